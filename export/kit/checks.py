"""Checks of the exercises: each prints ✓, or says in one sentence what is likely wrong.

A check computes the right numbers on its own, and those that typical mistakes lead to. What a solution returns is
compared with all of them, so any way of writing it passes, and a known mistake is called by its name.
"""

import ast
import contextlib
import json
import re
import traceback
from pathlib import Path

import nice_evaluation as ne
import nice_helpers as nh
import nice_images as ni

import keras
import nbformat
import numpy as np
import tensorflow as tf

# ---- What all checks share -------------------------------------------------------------------------------------


class Wrong(AssertionError):
    """What a check found, in one sentence, which a notebook shows without a traceback."""

    def _render_traceback_(self):
        return [f"✗ {self}"]


def check(name, thing=None):
    """Check an exercise: print ✓, or raise one sentence that names the likely mistake.

    Args:
        name: of the exercise, as its task has it.
        thing: the function to check, where the exercise is a cell of the notebook.

    Raises:
        Wrong: where the solution is missing or wrong.
        ValueError: for a name that is no exercise.
    """
    if name not in CHECKS:
        raise ValueError(f"name must be one of {sorted(CHECKS)}, got {name!r}")
    for module in (nh, ni, ne):  # one that can't be read is not read again: the old code would be checked
        try:
            ast.parse(Path(module.__file__).read_bytes())
        except SyntaxError as error:
            raise Wrong(f"{Path(module.__file__).name} can't be read: line {error.lineno}, {error.msg}") from None
    try:
        CHECKS[name](*([] if thing is None else [thing]))
    except Wrong as wrong:
        raise Wrong(f"{name}: {wrong}") from None
    except Exception as error:
        raise Wrong(stopped(name, error)) from None
    print(f"✓ {name}")


def stopped(name, error):
    """Return the sentence for a solution that ends in an error."""
    told = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(str(error).split()))[:200]
    missing = re.search(r"Task \d+, .* is not solved yet", told)
    if missing or (isinstance(error, NotImplementedError) and not told):
        return f"{missing[0] if missing else f'{name} is not solved yet'}."
    own = [f for f in traceback.extract_tb(error.__traceback__) if not is_library(f.filename)]
    place = f" (line {own[-1].lineno} of {Path(own[-1].filename).name}: {own[-1].line})" if own else ""
    return f"{name} stops with {type(error).__name__}: {told}{place}"


def is_library(filename):
    """Return whether a file is neither a student's module nor a cell of a notebook."""
    own = Path(filename).name in ("checks.py", "grade_one.py")
    return own or "site-packages" in filename or "<frozen" in filename or filename.endswith(".pyx")


def written_in(exercise, folder=None):
    """Return the function or class of an exercise that stands in a notebook, or None for one in a module.

    Args:
        exercise: one of exercises.json.
        folder: where the notebooks are, if not in notebooks/ beside this file.

    Raises:
        Wrong: where the notebook doesn't have it.
    """
    if exercise["file"].endswith(".py"):
        return None
    path = Path(folder or Path(__file__).with_name("notebooks")) / f"{exercise['file']}.ipynb"
    name = exercise["name"].partition(".")[0]
    if not path.exists():
        raise Wrong(f"{path.name} is not there")
    known = definitions([c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"])
    if name not in known:
        raise Wrong(f"{path.name} has no {name}, or its cell can't be read")
    return known[name]


def definitions(sources):
    """Return the names that cells define, without running what they compute: imports, functions, classes, constants."""
    names = {}
    for source in sources:
        lines = [line for line in source.splitlines() if not re.match(r"\s*[%!?]|.*\?\s*$", line)]
        with contextlib.suppress(SyntaxError):
            for node in ast.parse("\n".join(lines)).body:
                constant = isinstance(node, ast.Assign) and not calls_something(node.value)
                if constant or isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)):
                    with contextlib.suppress(Exception):  # a default value may be something that is computed
                        exec(compile(ast.Module([node], []), "notebook", "exec"), names)
    return names


def calls_something(value):
    """Return whether an expression calls a function, other than within a lambda."""
    return not isinstance(value, ast.Lambda) and any(isinstance(node, ast.Call) for node in ast.walk(value))


def check_all(exercises, report, folder=None):
    """Check exercises in order, and call report(name, message) after each; the message is empty where it is right."""
    for exercise in exercises:
        try:
            check(exercise["name"], written_in(exercise, folder))
            report(exercise["name"], "")
        except Wrong as wrong:
            report(exercise["name"], str(wrong))


def compare(what, received, right, mistakes=None, tolerance=1e-4):
    """Raise Wrong unless `received` is `right`; `mistakes` maps a sentence to the value that its mistake leads to."""
    try:
        received = np.asarray(received, np.float64)
    except Exception:
        raise Wrong(f"{what} must be a tensor of numbers, got {type(received).__name__}") from None
    right = np.asarray(right, np.float64)

    def same(a, b):
        return a.shape == b.shape and bool(np.all(np.abs(a - b) <= tolerance * (1 + np.abs(b))))

    if same(received, right):
        return
    for sentence, value in (mistakes or {}).items():
        value = np.asarray(value, np.float64)
        if same(received, value) and not same(value, right):
            raise Wrong(sentence)
    if received.shape != right.shape:
        raise Wrong(f"{what} must have shape {right.shape}, got {received.shape}")
    if not np.isfinite(received).all():
        raise Wrong(f"{what} has NaN or infinite values")
    raise Wrong(f"{what} is off by up to {np.abs(received - right).max():.2g}")


def run(function, *arguments, outputs=1, **options):
    """Return what a solution returns, after a look whether it does so in a compiled graph too."""
    eager = function(*arguments, **options)
    if outputs > 1 and not (isinstance(eager, (tuple, list)) and len(eager) == outputs):
        raise Wrong(f"{outputs} values must be returned, got {type(eager).__name__}")
    if eager is None:
        raise Wrong("nothing is returned")
    arguments = [None if a is None else tf.constant(a) for a in arguments]
    # As in a flow: the number of rows is not known while the graph is made.
    specs = [None if a is None else tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in arguments]
    advice = (
        "it works eagerly but not in a graph, where the number of rows is not known ({}): use TensorFlow's operations, "
        "and tf.shape(x)[0] or tf.zeros_like(x[:, 0]) where you need that number"
    )
    try:
        graph = tf.function(lambda *given: function(*given, **options), autograph=False)
        compiled = graph.get_concrete_function(*specs)(*(a for a in arguments if a is not None))
    except Exception as error:
        why = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(str(error).split()))
        why = re.sub(r'.*(?=[A-Z]\w+Error:)|^in user code: File "[^"]*", line \d+, in .*?\*? ', "", why)[:100]
        raise Wrong(advice.format(why)) from None
    for a, b in zip(*(tf.nest.flatten(result) for result in (eager, compiled)), strict=True):
        if np.shape(a) != np.shape(b):  # before NumPy 2.4 np.zeros(None) is a number, not an error
            raise Wrong(advice.format(f"the shape is {np.shape(b)} in place of {np.shape(a)}"))
        compare("the result in a graph", b, a)
    return eager


def numbers(*shape, seed=0):
    """Return normal random numbers in float32."""
    return np.random.default_rng([len(shape), seed]).standard_normal(shape).astype(np.float32)


def finite_spread(what, values, expected, tolerance=0.1):
    """Raise Wrong unless the standard deviation of random values is what it should be."""
    spread = float(np.std(np.asarray(values, np.float64)))
    if not abs(spread - expected) <= tolerance * expected:
        raise Wrong(f"{what} must have a standard deviation near {expected:.3g}, got {spread:.3g}")


# ---- Couplings -------------------------------------------------------------------------------------------------


class Network:
    """A fixed function in place of a coupling's network; it tells what it is not meant to be given."""

    def __init__(self, kept, condition_size, outputs):
        self.matrix = numbers(kept + condition_size, outputs)
        self.kept, self.condition_size = kept, condition_size
        self.input_shape, self.output_shape = (None, kept + condition_size), (None, outputs)

    def __call__(self, x, training=False):
        """Return outputs (N, outputs), which are larger in training."""
        expected, received = self.kept + self.condition_size, x.shape[-1]
        if received == self.kept != expected:
            raise Wrong("the condition does not reach the network: call self._network(kept, condition, training)")
        if received != expected:
            raise Wrong(f"the network is given {received} columns, not {expected}: it must see the kept part alone")
        return self.values(tf.convert_to_tensor(x)) + (3.0 if training else 0.0)

    def values(self, x):
        """Return the function's values without training, of a tensor or an array."""
        return (tf.tanh if tf.is_tensor(x) else np.tanh)(x @ self.matrix) * 1.5


class Case:
    """A coupling, points for it, and the indices of the columns that it keeps and changes."""

    def __init__(self, kind, columns, split, swap=False, condition_size=0):
        half = (columns + 1) // 2
        order = np.arange(columns) if split == "half" else np.r_[0:columns:2, 1:columns:2]
        self.kept, self.changed = (order[half:], order[:half]) if swap else (order[:half], order[half:])
        network = Network(len(self.kept), condition_size, kind.outputs_per_column * len(self.changed))
        self.layer = kind(columns, network, split=split, swap=swap, condition_size=condition_size)
        self.points, self.swap = numbers(6, columns), swap
        self.condition = numbers(6, condition_size, seed=1) if condition_size else None

    def seen(self, values, columns):
        """Return what the network says to these columns of some points, and to the condition."""
        inputs = [values[:, columns]] + ([] if self.condition is None else [self.condition])
        return self.layer.network.values(np.concatenate(inputs, 1))

    def with_columns(self, columns, new):
        """Return the points with new values in some columns."""
        result = np.array(self.points, np.float64)
        result[:, columns] = new
        return result

    def order_mistakes(self, new):
        """Return what comes of a wrong way to put the parts together."""
        old = self.points[:, self.kept]
        if len(self.kept) != len(self.changed):
            return {}
        return {
            "the columns come out in another order: let self._join put the two parts together": np.c_[old, new],
            "the parts are joined the wrong way round: self._join takes the kept part first": self.put(new, old),
            "only the changed part is returned: self._join puts it together with the kept one": new,
        }

    def put(self, at_kept, at_changed):
        """Return points from the values of both parts."""
        result = np.zeros(self.points.shape)
        result[:, self.kept], result[:, self.changed] = at_kept, at_changed
        return result


def coupling_cases(kind):
    """Return the couplings to try, in the order of what may go wrong."""
    yield Case(kind, 4, "half")
    yield Case(kind, 4, "half", swap=True)
    yield Case(kind, 4, "odd-even")
    yield Case(kind, 5, "half", condition_size=2)


EXCHANGED = "the parts are exchanged: what self._divide returns first is kept, and the network sees it"
OWN_INPUT = "the network sees the part that it changes, so it can't be undone: it must see the kept part"
SWAP_IGNORED = "self.swap makes no difference: self._divide knows which part is kept"


def additive_forward():
    """Check AdditiveCoupling.forward (NICE, section 3.2)."""
    for case in coupling_cases(nh.AdditiveCoupling):
        x, changed, m = case.points, case.points[:, case.changed], case.seen(case.points, case.kept)
        z, log_det = run(case.layer.forward, x, case.condition, outputs=2)
        mistakes = {
            "z is x unchanged: add m of the kept part to the other": x,
            "forward subtracts m: it must add, and backward subtract": case.with_columns(case.changed, changed - m),
            "the changed part is replaced by m: add m to it": case.with_columns(case.changed, m),
            "the network runs as in training: pass `training` on": case.with_columns(case.changed, changed + m + 3),
        } | case.order_mistakes(changed + m)
        if len(case.kept) == len(case.changed):
            exchanged = case.with_columns(case.kept, x[:, case.kept] + case.seen(x, case.changed))
            mistakes[OWN_INPUT] = case.with_columns(case.changed, changed + case.seen(x, case.changed))
            mistakes[SWAP_IGNORED if case.swap else EXCHANGED] = exchanged
        compare("z", z, case.with_columns(case.changed, changed + m), mistakes)
        volume_preserving(log_det, len(x), x.shape[1])
    case = Case(nh.AdditiveCoupling, 4, "half")
    z, _ = case.layer.forward(case.points, training=True)
    m = case.seen(case.points, case.kept)
    not_passed = {
        "`training` is not passed on to the network": case.with_columns(case.changed, case.points[:, case.changed] + m)
    }
    compare("z in training", z, case.with_columns(case.changed, case.points[:, case.changed] + m + 3), not_passed)


def volume_preserving(log_det, samples, columns):
    """Check that a log-determinant is zero for each sample."""
    mistakes = {
        f"log_det must have one number for each sample, shape ({samples},), not a single one": 0.0,
        "log_det must be one number for each sample, not for each value": np.zeros((samples, columns)),
        "the determinant is 1, and its logarithm is 0": np.ones(samples),
    }
    compare("log_det", log_det, np.zeros(samples), mistakes)


def additive_backward():
    """Check AdditiveCoupling.backward (NICE, section 3.2)."""
    for case in coupling_cases(nh.AdditiveCoupling):
        z, changed, m = case.points, case.points[:, case.changed], case.seen(case.points, case.kept)
        x = run(case.layer.backward, z, case.condition)
        if isinstance(x, (tuple, list)):
            raise Wrong("backward must return x alone, without a log-determinant")
        mistakes = {
            "x is z unchanged: subtract m of the kept part from the other": z,
            "backward(forward(x)) is off by twice m(a): subtract where forward adds": case.with_columns(
                case.changed, changed + m
            ),
            "m − z is returned for z − m": case.with_columns(case.changed, m - changed),
            "the network runs as in training: backward is no training": case.with_columns(
                case.changed, changed - m - 3
            ),
        } | case.order_mistakes(changed - m)
        if len(case.kept) == len(case.changed):
            exchanged = case.with_columns(case.kept, z[:, case.kept] - case.seen(z, case.changed))
            mistakes[OWN_INPUT] = case.with_columns(case.changed, changed - case.seen(z, case.changed))
            mistakes[SWAP_IGNORED if case.swap else EXCHANGED] = exchanged
        compare("x", x, case.with_columns(case.changed, changed - m), mistakes)


def scale_and_shift():
    """Check AffineCoupling.log_scale_and_shift."""
    for case in (Case(nh.AffineCoupling, 4, "half"), Case(nh.AffineCoupling, 5, "half", condition_size=2)):
        raw = case.seen(case.points, case.kept)
        count = len(case.changed)
        s, t = raw[:, :count], raw[:, count:]
        kept = case.points[:, case.kept]
        log_scale, shift = run(case.layer.log_scale_and_shift, kept, case.condition, outputs=2, training=False)
        mistakes = {
            "the log scale is not bounded: put s through tanh, or exp overflows": s,
            "s and t are exchanged: the network's first half is s": np.tanh(t),
            "the scale is returned for its logarithm: exp comes later": np.exp(np.tanh(s)),
            "tanh is applied twice": np.tanh(np.tanh(s)),
        }
        compare("log_scale", log_scale, np.tanh(s), mistakes)
        compare("shift", shift, t, {"the shift must stay linear: tanh belongs to the scale": np.tanh(t)})
    log_scale, _ = case.layer.log_scale_and_shift(kept, case.condition, True)
    passed = {"`training` is not passed on to the network": np.tanh(s)}
    compare("log_scale in training", log_scale, np.tanh(s + 3), passed)


def parts(case):
    """Return log scale and shift of a coupling's points, and the values they change."""
    raw = case.seen(case.points, case.kept)
    count = len(case.changed)
    return np.tanh(raw[:, :count]), raw[:, count:], case.points[:, case.changed]


def affine_forward():
    """Check AffineCoupling.forward (RealNVP, equations 4 to 6)."""
    for case in coupling_cases(nh.AffineCoupling):
        s, t, b = parts(case)
        z, log_det = run(case.layer.forward, case.points, case.condition, outputs=2)
        wrong = {
            "the scale is s itself: it must be exp(s), which is never zero": b * s + t,
            "the changed part is shifted first: scale it, then add t": (b + t) * np.exp(s),
            "forward divides by the scale: multiply, and let backward divide": b * np.exp(-s) + t,
            "t is subtracted: forward adds it": b * np.exp(s) - t,
            "the shift is missing": b * np.exp(s),
            "the scale is missing": b + t,
        }
        mistakes = {text: case.with_columns(case.changed, values) for text, values in wrong.items()}
        right = b * np.exp(s) + t
        compare("z", z, case.with_columns(case.changed, right), mistakes | case.order_mistakes(right))
        log_det_mistakes = {
            "log_det is the sum over the whole batch: sum over the columns (axis 1) only": s.sum(),
            "log_det is summed over the samples: sum over the columns, axis 1": s.sum(0),
            "log_det has the wrong sign: it is that of forward, Σ s": -s.sum(1),
            "log_det sums the scales: sum their logarithms": np.exp(s).sum(1),
            "log_det is a product of scales: add their logarithms": np.exp(s).prod(1),
            "log_det is a mean over the columns: it must be their sum": s.mean(1),
            "log_det counts the shift too: without the mask of the scaled columns the sum is not Σ s": (s + t).sum(1),
            "log_det is zero: scaling changes volumes": np.zeros(len(s)),
            "log_det must be summed over the columns": s,
        }
        compare("log_det", log_det, s.sum(1), log_det_mistakes)


def affine_backward():
    """Check AffineCoupling.backward (RealNVP, equations 7 and 8)."""
    for case in coupling_cases(nh.AffineCoupling):
        s, t, b = parts(case)
        x = run(case.layer.backward, case.points, case.condition)
        if isinstance(x, (tuple, list)):
            raise Wrong("backward must return x alone, without a log-determinant")
        wrong = {
            "t is taken off after the scale: subtract it first, then divide": b * np.exp(-s) - t,
            "backward multiplies by the scale where it must divide": (b - t) * np.exp(s),
            "backward is forward again: undo it, the shift first": b * np.exp(s) + t,
            "t is added where forward adds it too: subtract": (b + t) * np.exp(-s),
            "the scale is s itself: divide by exp(s)": (b - t) / s,
        }
        mistakes = {text: case.with_columns(case.changed, values) for text, values in wrong.items()}
        right = (b - t) * np.exp(-s)
        compare("x", x, case.with_columns(case.changed, right), mistakes | case.order_mistakes(right))


# ---- Rotation and scaling --------------------------------------------------------------------------------------


def rotation_forward():
    """Check OrthogonalMixing.forward."""
    layer, x = nh.OrthogonalMixing(3, seed=0), numbers(6, 3)
    q = layer.matrix.numpy()
    z, log_det = run(layer.forward, x, outputs=2)
    if np.allclose(z, x @ q.T, atol=1e-4):  # as good a rotation, if backward undoes it
        q = q.T
    elementwise = {"x must be multiplied by the matrix (@), not value by value": x * q[0], "z is x unchanged": x}
    compare("z", z, x @ q, elementwise)
    volume_preserving(log_det, 6, 3)


def rotation_backward():
    """Check OrthogonalMixing.backward against the student's own forward."""
    layer, x = nh.OrthogonalMixing(3, seed=0), numbers(6, 3)
    q = layer.matrix.numpy()
    z = layer.forward(x)[0].numpy()
    mistakes = {"x is z unchanged": z}
    mistakes["backward rotates once more in the same direction: use the transposed matrix"] = np.where(
        np.allclose(z, x @ q, atol=1e-4), z @ q, z @ q.T
    )
    compare("x", run(layer.backward, z), x, mistakes)


def scaling_forward():
    """Check DiagonalScaling.forward (NICE, section 3.3)."""
    layer, s, m, x = scaling()
    z, log_det = run(layer.forward, x, outputs=2)
    mistakes = {
        "the factor is s itself: it must be exp(s), which is never zero": s * (x - m),
        "forward divides by the scale: multiply, and let backward divide": np.exp(-s) * (x - m),
        "the mean is not taken off": np.exp(s) * x,
        "the mean is taken off after scaling: subtract it from x first": np.exp(s) * x - m,
        "the mean is added: subtract it": np.exp(s) * (x + m),
    }
    compare("z", z, np.exp(s) * (x - m), mistakes)
    log_det_mistakes = {
        "log_det is one number for all: repeat it for each of the samples, shape (N,)": s.sum(),
        "log_det sums the factors: sum their logarithms s": np.full(6, np.exp(s).sum()),
        "log_det has the wrong sign: it is that of forward, Σ s": np.full(6, -s.sum()),
        "log_det is a mean: it must be the sum Σ s": np.full(6, s.mean()),
        "log_det must be summed over the columns": s,
        "log_det is zero: scaling changes volumes": np.zeros(6),
        "log_det is counted once for each sample of the batch": np.full(6, 6 * s.sum()),
    }
    compare("log_det", log_det, np.full(6, s.sum()), log_det_mistakes)


def scaling_backward():
    """Check DiagonalScaling.backward (NICE, section 3.3)."""
    layer, s, m, z = scaling()
    mistakes = {
        "the mean is added before dividing: divide first, as forward subtracts first": (z + m) * np.exp(-s),
        "backward multiplies by exp(s) where forward does: divide by it": z * np.exp(s) + m,
        "the mean is subtracted again: add it": z * np.exp(-s) - m,
        "the mean is missing": z * np.exp(-s),
        "the factor is exp(s), not s": z / s + m,
    }
    compare("x", run(layer.backward, z), z * np.exp(-s) + m, mistakes)


def scaling():
    """Return a scaling, its logarithms and means, and points."""
    layer, s, m = nh.DiagonalScaling(3), np.array([0.5, -0.3, 0.9]), np.array([1.0, -2.0, 0.5])
    layer.log_scale.assign(s)
    layer.mean.assign(m)
    return layer, s, m, numbers(6, 3)


# ---- The chain, its likelihood and its samples -----------------------------------------------------------------


class Toy(keras.layers.Layer):
    """A transform of two columns that is known in closed form: z = (a x₁ + b, x₂ e^(c x₁)) plus the condition."""

    def __init__(self, a, b, c=0.3, condition_size=0):
        super().__init__()
        self.input_size, self.condition_size, self.seen_in_training, self.built = 2, condition_size, False, True
        self.a, self.b, self.c = a, self.add_weight(shape=(), initializer=keras.initializers.Constant(b)), c
        self.fixed = self.add_weight(shape=(), initializer="ones", trainable=False)  # as a rotation's matrix
        self.only_backward = False

    def forward(self, x, condition=None, training=False):
        """Return z (N, 2) and log|det| (N,)."""
        if self.only_backward:
            raise Wrong("backward runs forward: call each transform's backward")
        self.seen_in_training |= bool(training)
        self.look_at(condition)
        z = tf.stack([self.a * x[:, 0] + self.b.value, x[:, 1] * tf.exp(self.c * x[:, 0])], 1)
        return z + (condition if self.condition_size else 0.0), np.log(self.a, dtype=np.float32) + self.c * x[:, 0]

    def backward(self, z, condition=None):
        """Return x (N, 2)."""
        self.look_at(condition)
        z = z - (condition if self.condition_size else 0.0)
        first = (z[:, 0] - self.b.value) / self.a
        return tf.stack([first, z[:, 1] * tf.exp(-self.c * first)], 1)

    def look_at(self, condition):
        """Raise Wrong for a condition that is missing or not meant for this transform."""
        if condition is None and self.condition_size:
            raise Wrong("the condition does not reach the transforms")
        if condition is not None and not self.condition_size:
            raise Wrong("a transform with condition_size 0 must get None as its condition")


def toy_chain(condition_size=0):
    """Return a flow of three toys; the second one sees the condition."""
    return nh.Flow([Toy(2.0, 1.0), Toy(0.5, -1.0, condition_size=condition_size), Toy(1.5, 0.5)])


def chained(transforms, x, condition=None):
    """Return z after each transform of a chain, and each one's log-determinant."""
    codes, dets = [tf.constant(x)], []
    for transform in transforms:
        z, log_det = transform.forward(codes[-1], condition if transform.condition_size else None)
        codes.append(z)
        dets.append(log_det)
    return codes, dets


def chain_forward():
    """Check Flow._forward (NICE, section 2)."""
    for size in (0, 2):
        flow, x, condition = toy_chain(size), numbers(6, 2), numbers(6, size, seed=1)
        z, log_det = run(flow._forward, x, condition, outputs=2)
        codes, dets = chained(flow.transforms, x, condition)
        at_x = [t.forward(tf.constant(x), condition if t.condition_size else None) for t in flow.transforms]
        mistakes = {
            "z is x unchanged: pass it through each transform": x,
            "each transform gets x itself: give it the output of the one before": at_x[-1][0],
            "the transforms run in reverse order: that is backward's": chained(flow.transforms[::-1], x, condition)[0][
                -1
            ],
            "the last transform is left out": codes[-2],
        }
        compare("z", z, codes[-1], mistakes)
        det_mistakes = {
            "log_det is that of the last transform: add up all of them": dets[-1],
            "log_det is zero: add up those of the transforms (a product that begins with 0 stays 0)": np.zeros(6),
            "log_det has the wrong sign": -sum(dets),
            "the log-determinants are multiplied: add them": np.prod(dets, axis=0),
            "log_det is summed over the batch: keep one number for each sample": np.sum(dets),
            "log_det is a mean over the batch: keep one number for each sample": np.sum(dets) / 6,
            "each log_det is taken at x: take it where the transform is, at the output of the one before": sum(
                d for _, d in at_x
            ),
        }
        compare("log_det", log_det, sum(dets), det_mistakes)
    flow = toy_chain()
    flow._forward(tf.constant(x), None, training=True)
    if not all(t.seen_in_training for t in flow.transforms):
        raise Wrong("`training` is not passed on to the transforms")


def chain_backward():
    """Check Flow._backward (NICE, section 2)."""
    for size in (0, 2):
        flow, z, condition = toy_chain(size), numbers(6, 2), numbers(6, size, seed=1)
        order = list(flow.transforms)

        def undone(transforms, condition=condition, x=z):
            x = tf.constant(x)
            for transform in transforms:
                x = transform.backward(x, condition if transform.condition_size else None)
            return x

        for transform in order:
            transform.only_backward = True
        mistakes = {
            "the transforms are undone in forward's order: undo the last one first": undone(order),
            "the first transform is left out": undone(order[:0:-1]),
            "each transform gets z itself: give it what the one before returned": undone(order[:1]),
        }
        x = flow._backward(tf.constant(z), condition)
        if list(flow.transforms) != order:
            raise Wrong("self.transforms itself is reversed, and stays so: go through reversed(self.transforms)")
        compare("x", x, undone(order[::-1]), mistakes)
        run(flow._backward, z, condition)


def alternating_chain():
    """Check coupling_chain (NICE, section 3.2)."""
    layers = small_chain(nh.AdditiveCoupling, 5, 3, seed=0)
    if not isinstance(layers, list) or len(layers) != 3:
        raise Wrong(f"a list of 3 couplings must be returned, got {layers!r:.80}")
    if len({id(layer) for layer in layers}) < 3:
        raise Wrong("one coupling stands in the list several times: make a new one each time")
    swaps = [layer.swap for layer in layers]
    if len(set(swaps)) == 1:
        raise Wrong("all couplings change the same part: swap every second one")
    if swaps != [False, True, False]:
        raise Wrong(f"the couplings must keep the first part and the second in turn, got swap = {swaps}")
    if len({id(layer.network) for layer in layers}) < 3:
        raise Wrong("the couplings share a network: each needs one of its own")
    split = small_chain(nh.AdditiveCoupling, 4, 1, split="half", seed=0)[0].split
    if (layers[0].split, split) != ("odd-even", "half"):
        raise Wrong("`split` is not passed on to the couplings")
    first, third = (layers[i].network.get_weights()[0] for i in (0, 2))
    if np.array_equal(first, third):
        raise Wrong("all networks start from the same weights: give each a seed of its own, such as [seed, i]")
    again = small_chain(nh.AdditiveCoupling, 5, 3, seed=0)
    if not np.array_equal(first, again[0].network.get_weights()[0]):
        raise Wrong("the same seed gives other weights: derive each network's seed from `seed`")
    if first.shape[1] != 4:
        raise Wrong("hidden_size and hidden_layers are not passed on to mlp")
    try:
        small_chain(nh.AffineCoupling, 4, 2)
    except TypeError:
        raise Wrong("without a seed it must work too: mlp's seed is None then, not [None, i]") from None


def small_chain(kind, columns, number, **options):
    """Return a student's chain with small networks; names a network that does not fit."""
    try:
        return nh.coupling_chain(kind, columns, number, hidden_size=4, hidden_layers=1, **options)
    except ValueError as error:
        if "network must map" not in str(error):
            raise
        raise Wrong(
            f"a network does not fit its coupling ({error}): each coupling needs one of its own, for the columns "
            "that coupling_sizes(input_size, swap=…) says"
        ) from None


def log_likelihood():
    """Check Flow._log_prob (NICE, section 2)."""
    x = numbers(6, 2)
    for prior in ("gaussian", "logistic"):
        flow = nh.Flow([Toy(2.0, 1.0), Toy(1.5, 0.5)], prior)
        codes, dets = chained(flow.transforms, x)
        z, log_det = codes[-1].numpy(), sum(dets).numpy()
        if prior == "gaussian":
            each = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
            at_x = (-0.5 * x**2 - 0.5 * np.log(2 * np.pi)).sum(1)
        else:
            each, at_x = -z - 2 * np.log1p(np.exp(-z)), (-x - 2 * np.log1p(np.exp(-x))).sum(1)
        density = each.sum(1)
        mistakes = {
            "the log-determinant is missing": density,
            "the log-determinant is subtracted: add it": density - log_det,
            "the prior is taken at x: take it at the code z": at_x + log_det,
            "the prior's density is added, not its logarithm": np.exp(density) + log_det,
            "the density is returned: return its logarithm": np.exp(density + log_det),
            "the sign is wrong: return log p, not the loss −log p": -(density + log_det),
            "the log-determinant is summed over the batch: each sample has its own": density + log_det.sum(),
            "the prior's log-density is summed over the batch: self.prior.log_prob(z) is one number a sample already": (
                density.sum() + log_det
            ),
            "the mean over the batch is returned: one number for each sample is needed": (density + log_det).mean(),
            "the sum over the batch is returned: one number for each sample is needed": (density + log_det).sum(),
            "log-density and log-determinant are multiplied: logarithms are added": density * log_det,
            "only the log-determinant is returned": log_det,
        }
        if prior == "logistic":
            normal = (-0.5 * z**2 - 0.5 * np.log(2 * np.pi)).sum(1)
            mistakes["the prior is always the normal one: use self.prior"] = normal + log_det
        compare("log p", run(flow._log_prob, x, np.zeros((6, 0), np.float32)), density + log_det, mistakes)
        if any(transform.seen_in_training for transform in flow.transforms):
            raise Wrong("the flow runs as in training: the likelihood of a point must not depend on its batch")
    toy_chain(2)._log_prob(tf.constant(x), tf.constant(numbers(6, 2, seed=1)))  # a condition that gets lost is named


def samples():
    """Check Flow.sample (NICE, section 2; one row of conditions after the other)."""
    flow = nh.Flow([Toy(2.0, 1.0, c=0.0)])
    x = np.asarray(flow.sample(4000, seed=1))
    compare("a sample's shape", x.shape, (4000, 2))
    if np.array_equal(x, flow.sample(4000, seed=2)):
        raise Wrong("every seed gives the same points: `seed` must decide them")
    if not np.array_equal(x, flow.sample(4000, seed=1)):
        raise Wrong("the same seed gives other points: draw from the prior with a seed made from `seed`")
    if np.array_equal(flow.sample(9), flow.sample(9)):
        raise Wrong("without a seed each call must give other points")
    mean, spread = x[:, 0].mean(), x[:, 0].std()
    if abs(mean - 1.0) < 0.15 and abs(spread - 2.0) < 0.2:
        raise Wrong("the code is mapped forward: samples come from backward")
    if abs(mean) < 0.1 and abs(spread - 1.0) < 0.1:
        raise Wrong("the codes themselves are returned: map them backward")
    finite_spread("a sample", x[:, 0], 0.5)
    finite_spread("a sample", x[:, 1], 1.0)
    flow = nh.Flow([Toy(100.0, 0.0, c=0.0, condition_size=2)])
    conditions = np.array([[100.0, 0.0], [300.0, 0.0], [700.0, 0.0]], np.float32)
    x = np.asarray(flow.sample(4, conditions, seed=1))
    compare("the shape for 3 conditions and 4 samples of each", x.shape, (3, 4, 2))
    nearest = np.rint(-x[..., 0]).astype(int)
    if not (nearest == [[1], [3], [7]]).all():
        mixed = (np.sort(nearest.ravel()) == np.repeat([1, 3, 7], 4)).all()
        raise Wrong(
            "row i's samples belong to several conditions: repeat each row (tf.repeat), don't tile them (tf.tile)"
            if mixed
            else "samples do not follow their conditions"
        )
    if len({tuple(row) for row in np.round(x[..., 1], 6)}) < 3:
        raise Wrong("all conditions get the same codes: draw rows × num_samples of them")
    unfitting = np.zeros((2, 3), np.float32)
    try:
        flow.sample(4, unfitting, seed=1)
    except ValueError:
        return
    raise Wrong("conditions with a wrong number of columns must be refused: check them by as_matrix")


def train_step():
    """Check likelihood_step (NICE, section 2)."""
    x, nothing = numbers(6, 2), tf.zeros((6, 0))

    def penalty(flow, x, z, condition):
        return 0.3 * tf.reduce_mean(z[:, 0] ** 2)

    for extra_loss in (None, penalty):
        flow, loss, nats, extra = before_step(x, extra_loss)
        b = flow.transforms[0].b
        start, rate = float(b), 0.1
        slope, slope_of_nats = loss
        result = nh.likelihood_step(flow, tf.constant(x), nothing, extra_loss)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise Wrong("two values must be returned: mean log-likelihood and extra loss")
        mistakes = {
            "the loss is returned: return the log-likelihood": -nats,
            "the log-likelihood is summed over the batch: take the mean": 6 * nats,
            "the log-likelihood is that after the step": before_step(x, extra_loss, float(b))[2],
            "the log-determinant is missing in the log-likelihood": nats - np.log(2.0) - 0.3 * x[:, 0].mean(),
            "the extra loss is counted into the log-likelihood": nats - extra,
        }
        compare("the mean log-likelihood", result[0], nats, mistakes)
        compare("the extra loss", result[1], extra, {"the extra loss is not returned": 0.0})
        mistakes = {
            "the weights did not move: give flow.optimizer.apply the gradients": start,
            "the step goes downhill on the likelihood: the loss is its negative": start + rate * slope,
            "the gradient is that of a sum over the batch: take the mean": start - 6 * rate * slope,
            "the extra loss has no part in the step: add it to the loss under the tape": start + rate * slope_of_nats,
            "the extra loss is subtracted: add it to the loss": start + rate * (slope_of_nats + slope + slope_of_nats),
        }
        compare("a weight after the step", b, start - rate * slope, mistakes)
        if int(flow.optimizer.iterations) != 1:
            raise Wrong("the step is not flow.optimizer's: give its apply the gradients and the variables, once")
        if not flow.transforms[0].seen_in_training:
            raise Wrong("forward must run with training=True here")
        step = tf.function(
            lambda flow=flow, extra=extra_loss: nh.likelihood_step(flow, tf.constant(x), nothing, extra),
            autograph=False,
        )
        try:
            step()
        except Exception as error:
            why = " ".join(str(error).split())[:120]
            raise Wrong(f"it works eagerly but not in a graph ({why}): use TensorFlow's operations") from None


def before_step(x, extra_loss, b=1.0):
    """Return a toy flow, the slopes of loss and log-likelihood in its weight, the mean of it, the extra loss."""
    flow = nh.Flow([Toy(2.0, b)])
    flow.compile(keras.optimizers.SGD(0.1))
    flow.optimizer.build(flow.trainable_variables)
    z, log_det = flow.transforms[0].forward(tf.constant(x))
    density = -0.5 * np.sum(np.square(z), 1) - np.log(2 * np.pi)
    slope_of_nats = -np.mean(z[:, 0])  # d/db of −z₁²/2, as dz₁/db = 1
    extra = float(extra_loss(flow, x, z, None)) if extra_loss else 0.0
    slope = -slope_of_nats + (0.6 * np.mean(z[:, 0]) if extra_loss else 0.0)
    return flow, (slope, slope_of_nats), np.mean(density + log_det), extra


# ---- Bottleneck and MMD ----------------------------------------------------------------------------------------


def first_codes():
    """Check keep_first."""
    z = numbers(6, 4)
    right = np.c_[z[:, :1], np.zeros((6, 3))]
    mistakes = {
        "the last k dimensions are kept: keep the first ones": np.c_[np.zeros((6, 3)), z[:, 3:]],
        "the first k dimensions are set to zero: keep them, and zero the others": np.c_[np.zeros((6, 1)), z[:, 1:]],
        "the others are cut off: put zeros in their place": z[:, :1],
        "the first k samples are kept: k counts columns": np.r_[z[:1], np.zeros((5, 4))],
        "z is returned unchanged": z,
        "one dimension too many is kept": np.c_[z[:, :2], np.zeros((6, 2))],
    }
    compare("the code", run(nh.keep_first, z, k=1), right, mistakes)
    compare("the code for k = D", nh.keep_first(tf.constant(z), 4), z)
    for k in (0, 5):
        try:
            nh.keep_first(tf.constant(z), k)
        except ValueError as error:
            if str(k) not in str(error):
                raise Wrong(f"the ValueError must name what came, here k = {k}") from None
        else:
            raise Wrong(f"k = {k} must be refused with a ValueError: k lies in 1…D, here 1…4")


def bottleneck_loss():
    """Check the loss that reconstruction_loss returns."""
    x = numbers(6, 2)
    for size in (0, 2):
        flow, condition = nh.Flow([Toy(2.0, 1.0, condition_size=size)]), numbers(6, size, seed=1)
        toy, c = flow.transforms[0], condition if size else None
        z = toy.forward(tf.constant(x), c)[0]

        def error(code, toy=toy, c=c):
            return np.asarray(toy.backward(code, c)) - x

        first = error(tf.stack([z[:, 0], tf.zeros(6)], 1))
        kept_x = error(tf.stack([tf.constant(x)[:, 0], tf.zeros(6)], 1))
        last = error(tf.stack([tf.zeros(6), z[:, 1]], 1))
        right = 3.0 * (first**2).sum(1).mean()
        mistakes = {
            "the weight is missing": right / 3,
            "the loss is a mean over all values: sum the squares of each sample, then take the mean": 3
            * (first**2).mean(),
            "the loss is a sum over the batch: take the mean over the samples": 3 * (first**2).sum(),
            "the norm is not squared": 3.0 * np.sqrt((first**2).sum(1)).mean(),
            "all dimensions are decoded: keep the first k of z only": 0.0,
            "keep_first is applied to the data: apply it to the code z": 3 * (kept_x**2).sum(1).mean(),
            "the last dimensions are kept: keep the first k": 3 * (last**2).sum(1).mean(),
            "one loss for each sample is returned: take the mean over the batch": 3 * (first**2).sum(1),
            "absolute errors are summed: square them": 3 * np.abs(first).sum(1).mean(),
        }
        loss = nh.reconstruction_loss(1, 3.0)
        received = run(lambda a, b, c, flow=flow, loss=loss: loss(flow, a, b, c), x, z.numpy(), condition)
        compare("the loss", received, right, mistakes)


def unbiased_mmd():
    """Check _mmd2 (Gretton et al. 2012, Lemma 6)."""
    x, y = numbers(40, 2), numbers(30, 2, seed=1) + 0.5

    def kernel(a, b):
        return np.exp(-0.5 * ((a[:, None] - b[None]) ** 2).sum(-1)).astype(np.float32)

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    a, b, c = (k.astype(np.float64) for k in (xx, yy, xy))
    n, m = c.shape
    within = (a.sum() - n) / (n * (n - 1)) + (b.sum() - m) / (m * (m - 1))
    right = within - 2 * c.mean()
    mistakes = {
        "the estimate is biased: leave out k(x_i, x_i), the diagonals": a.mean() + b.mean() - 2 * c.mean(),
        "the diagonals are left out of the sums, but not of the numbers of pairs: divide by n(n − 1)": (a.sum() - n)
        / n**2
        + (b.sum() - m) / m**2
        - 2 * c.mean(),
        "the diagonals are still in the sums, though not in the numbers of pairs": a.sum() / (n * (n - 1))
        + b.sum() / (m * (m - 1))
        - 2 * c.mean(),
        "the mixed term has a factor of 2": within - c.mean(),
        "the mixed term is subtracted": within + 2 * c.mean(),
        "the square is asked for, which may be negative: no root": np.sqrt(abs(right)),
        "the second sample has its own number of points: divide by m(m − 1)": (a.sum() - n) / (n * (n - 1))
        + (b.sum() - m) / (n * (n - 1))
        - 2 * c.mean(),
        "the sign is wrong": -right,
    }
    received = ne._mmd2(xx, yy, xy)
    compare("MMD²", received, right, mistakes, tolerance=1e-5)
    rng = np.random.default_rng(0)
    k = [(0.9 + 0.1 * rng.random((701, 701))).astype(np.float32) for _ in range(3)]
    for one in k[:2]:
        np.fill_diagonal(one, 1)
    exact = sum((one.sum(dtype=float) - 701) / (701 * 700) for one in k[:2]) - 2 * k[2].mean(dtype=float)
    if abs(float(ne._mmd2(*k)) - exact) > 1e-11:
        raise Wrong("the sums lose digits, as the terms nearly cancel: add in float64 (dtype=float)")


# ---- Inpainting ------------------------------------------------------------------------------------------------


class Known:
    """In place of a flow: a normal density of two columns with deviations 1, around (0, 3)."""

    input_size, condition_size = 2, 0

    def log_prob(self, x, condition=None):
        """Return log p(x) (N,) in nats."""
        return -0.5 * tf.reduce_sum((x - tf.constant([0.0, 3.0])) ** 2, 1) - np.log(2 * np.pi, dtype=np.float32)


def climb(start, steps, seed=0, images=4, rate=0.1, **options):
    """Restore the second column under a known density; the first one is known."""
    x = np.full((images, 2), 0.25, np.float32)
    options |= {"optimizer": keras.optimizers.SGD(rate), "jit_compile": False, "seed": seed}
    result = ni.inpaint(Known(), x, np.array([True, False]), np.full(2, start), steps=steps, **options)
    compare("the known part of the image", result.x[:, 0], x[:, 0], {}, tolerance=1e-7)
    return result


def inpainting_step():
    """Check inpaint's step (NICE, section 5.2)."""
    x, path = climb(0.5, 3, space="real")
    heights = [3 + (0.5 - 3) * 0.9**i for i in range(4)]
    density = [-0.5 * 0.25**2 - 0.5 * (u - 3) ** 2 - np.log(2 * np.pi) for u in heights]
    mistakes = {
        "the step goes downhill: the optimizer subtracts what it is given, so hand it the negative gradient": 3
        - 2.5 * 1.1**3,
        "an image's step depends on how many there are: take the gradient of the sum, not of the mean": 3
        - 2.5 * 0.975**3,
        "the image does not move: give the optimizer the gradient and `free`": 0.5,
    }
    compare("an image after 3 steps", x[:, 1], np.full(4, heights[-1]), {t: np.full(4, v) for t, v in mistakes.items()})
    shifted = {"log p is written after the step: write that before it": np.tile((density[1:] + density[-1:]), (4, 1)).T}
    compare("the path of log p", path, np.tile(density, (4, 1)).T, shifted)
    u = np.log(0.8 / 0.2)
    wrong = u + 0.5 * (3 - 0.8)
    u += 0.5 * (3 - 0.8) * 0.8 * 0.2
    right, by_x = (np.full(4, 1 / (1 + np.exp(-value))) for value in (u, wrong))
    in_x = {"in the logit space the gradient is that by u, where x = sigmoid(u): watch free.value": by_x}
    compare("an image after one step in logits", climb(0.8, 1, rate=0.5, space="logit").x[:, 1], right, in_x)
    beyond = {'with space="clip" the values leave [0, 1]: project them back after each step': np.full(4, 3 - 2.5 * 0.1)}
    compare("an image after a clipped step", climb(0.5, 1, rate=0.9, space="clip").x[:, 1], np.ones(4), beyond)
    first, again, other = (
        climb(0.5, 1, seed, 2000, rate=1.0, noise=2.0, space="real").x[:, 1] - 3 for seed in (0, 0, 1)
    )
    if np.std(first) == 0:
        raise Wrong("`noise` has no effect: add that much normal noise to the gradient")
    if not np.array_equal(first, again):
        raise Wrong("the same seed gives other noise: use a stateless generator with the seed [seed, i]")
    if np.array_equal(first, other):
        raise Wrong("every seed gives the same noise: `seed` belongs into the generator's seed")
    finite_spread("the noise", first, 2.0)
    second = climb(0.5, 2, 0, 2000, rate=1.0, noise=2.0, space="real").x[:, 1] - 3
    if np.allclose(first, second):
        raise Wrong("each step draws the same noise: the step's number belongs into the seed")


# ---- Exercises that stand in a notebook ------------------------------------------------------------------------


def threshold(function):
    """Check choose_threshold of notebook 08."""
    scores = np.random.default_rng(0).permutation(np.arange(201.0))
    received = function(scores, 0.05)
    if np.shape(received):
        raise Wrong(f"one number must be returned, got shape {np.shape(received)}")
    mistakes = {
        "the threshold lies at the upper end: outliers are the unlikely ones, so call few images *below* it": 190.0,
        "the share is taken for a percentage: np.quantile takes 0.05, np.percentile 5": np.percentile(scores, 0.05),
        "the smallest score is returned": 0.0,
        "mean and deviation say nothing about a share of images: take the quantile": scores.mean()
        - 1.645 * scores.std(),
    }
    share = np.mean(scores < received)
    if abs(share - 0.05) > 0.006:
        compare("the threshold", received, 10.0, mistakes)
    if not np.mean(scores * 2 < function(scores * 2, 0.2)) == 0.2 * 200 / 201:
        share = np.mean(scores * 2 < function(scores * 2, 0.2))
        if abs(share - 0.2) > 0.006:
            raise Wrong(f"a share of 0.2 is asked for, and {share:.2g} of the images lie below: use the argument")


def precision_recall(function):
    """Check precision_and_recall of notebook 08."""
    clean, outliers = np.arange(10.0, 20.0), np.r_[np.arange(3.0), 15.0, 16.0]  # 3 of 5 outliers below 11.5
    result = function(clean, outliers, 11.5)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise Wrong("two numbers must be returned, precision and recall")
    right = (3 / 5, 3 / 5)
    clean = np.arange(0.0, 20.0)
    result = function(clean, outliers, 1.5)  # 2 of 20 clean ones and 2 of 5 outliers are flagged
    right = (0.5, 0.4)
    mistakes = {
        "precision and recall are exchanged": (0.4, 0.5),
        "what lies *above* the threshold is flagged: outliers are the unlikely ones": (3 / 21, 3 / 5),
        "shares are added in place of numbers: there are four times as many clean images": (0.4 / 0.5, 0.4),
        "recall is the share of *outliers* that is flagged, not of all images": (0.5, 2 / 25),
        "recall is the share of clean images that pass": (0.5, 0.9),
        "precision is the share of true outliers among what is *flagged*": (2 / 25, 0.4),
        "precision is the share of clean images that pass": (0.9, 0.4),
    }
    compare("(precision, recall)", result, right, mistakes)
    nothing = function(clean, outliers, -5.0)
    if not np.isfinite(nothing[0]) or nothing[1] != 0:
        raise Wrong("nothing is flagged at a low threshold: precision must be a number there too, not 0/0")


def bernoulli(function):
    """Check kl_bernoulli of notebook 10."""

    def terms(p, q):
        return p * np.log(p / q), (1 - p) * np.log((1 - p) / (1 - q))

    first, second = terms(0.4, 0.8)
    mistakes = {
        "p and q are exchanged: the expectation is over p": sum(terms(0.8, 0.4)),
        "the second outcome is missing: add (1 − p) log((1 − p)/(1 − q))": first,
        "the sign is wrong: a KL is never negative": -(first + second),
        "the unit is bits: use the natural logarithm": (first + second) / np.log(2),
        "the second term is subtracted: add it": first - second,
        "this is the cross-entropy: subtract the entropy of p": -0.4 * np.log(0.8) - 0.6 * np.log(0.2),
    }
    compare("KL(0.4 ‖ 0.8)", function(0.4, 0.8), first + second, mistakes)
    grid = np.array([0.1, 0.5, 0.9])
    with np.errstate(all="ignore"):
        compare("the KL of an array q", function(0.4, grid), sum(terms(0.4, grid)))
        compare("the KL of an array p", function(grid, 0.4), sum(terms(grid, 0.4)))
        edges = {(0.0, 0.5): np.log(2), (1.0, 0.5): np.log(2), (0.0, 0.0): 0.0, (1.0, 1.0): 0.0}
        for (p, q), right in edges.items():
            received = function(p, q)
            if np.isnan(received):
                raise Wrong(f"KL({p} ‖ {q}) is NaN: 0 log 0 counts as 0")
            compare(f"KL({p} ‖ {q})", received, right)
        for p, q in ((0.5, 0.0), (0.4, 1.0), (1.0, 0.0), (0.0, 1.0)):
            if not function(p, q) == np.inf:
                raise Wrong(f"KL({p} ‖ {q}) must be infinite: q excludes what p allows")
        ends = np.array([0.0, 0.5, 1.0])
        compare("the KL of an array with 0 and 1", function(ends, 0.5), [np.log(2), 0.0, np.log(2)])


def matrix_of_convolution(function):
    """Check convolution_matrix of notebook 10."""
    for size, stride, k in ((7, 2, 3), (5, 1, 3), (6, 2, 3), (6, 2, 2)):
        kernel, out = numbers(k, k, seed=stride).astype(float), (size - k) // stride + 1

        def placed(kernel, size=size, stride=stride, out=out, k=k):
            matrix = np.zeros((out, out, size, size))
            for i, j in np.ndindex(out, out):
                matrix[i, j, stride * i : stride * i + k, stride * j : stride * j + k] = kernel
            return matrix

        right, shape = placed(kernel), (out**2, size**2)
        order = right.reshape(shape)
        by_columns = right.transpose(1, 0, 2, 3).reshape(shape)
        mistakes = {
            "the kernel is turned round: layers don't do that": placed(kernel[::-1, ::-1]).reshape(shape),
            "the matrix is transposed: rows are outputs, columns are pixels of the image": order.T,
            "the kernel is transposed": placed(kernel.T).reshape(shape),
            "the outputs are numbered column by column: number them row by row": by_columns,
            "the matrix must have two axes: reshape to (outputs, pixels)": right,
        }
        received = np.asarray(function(kernel, size, stride))
        if (size, received.shape) == (7, (25, 49)):
            raise Wrong("the stride is ignored: the kernel moves by `stride` pixels")
        if k == 2 and received.shape != order.shape:
            raise Wrong(f"for a kernel of 2×2 pixels C must have shape {order.shape}, got {received.shape}")
        compare("C", received, order, mistakes)


def kl_of_codes(function):
    """Check kl_to_prior of notebook 10."""
    m, s = numbers(6, 3), 0.5 * numbers(6, 3, seed=1)
    each = 0.5 * (m**2 + np.exp(2 * s) - 1 - 2 * s)
    mistakes = {
        "the factor ½ is missing": 2 * each.sum(1),
        "log_deviation is taken for the logarithm of the variance: σ² = exp(2 log σ)": 0.5
        * (m**2 + np.exp(s) - 1 - s).sum(1),
        "the sign is wrong: a KL is never negative": -each.sum(1),
        "a mean over the code's dimensions is taken: sum them": each.mean(1),
        "all is summed up: one number for each sample is needed": each.sum(),
        "one number for each dimension is returned: sum them": each,
        "the −1 is missing": (each + 0.5).sum(1),
        "log σ² is added: subtract it": 0.5 * (m**2 + np.exp(2 * s) - 1 + 2 * s).sum(1),
        "σ stands where σ² belongs": 0.5 * (m**2 + np.exp(s) - 1 - 2 * s).sum(1),
    }
    compare("the KL", run(function, m, s), each.sum(1), mistakes)


def latent_code(kind):
    """Check LatentCode.call of notebook 10: reparameterization, and β·KL as a loss."""
    keras.utils.set_random_seed(0)
    layer = kind(4.0)
    mean, log_deviation = np.full((4000, 2), 3.0, np.float32), np.full((4000, 2), -0.7, np.float32)
    log_deviation[:, 1], mean[2000:] = 0.3, 1.0  # two kinds of rows
    z = np.asarray(layer([tf.constant(mean), tf.constant(log_deviation)]))
    compare("the shape of z", z.shape, (4000, 2))
    if np.abs(z - mean).max() < 1e-6:
        raise Wrong("z is the mean: add σ times normal noise")
    noise = z - mean
    named = {
        "the noise is multiplied by log_deviation: multiply it by σ, its exponential": [0.7, 0.3],
        "log_deviation is taken for the logarithm of the variance: σ = exp(log σ)": np.exp([-0.35, 0.15]),
        "the noise has deviation 1: multiply it by σ": [1.0, 1.0],
        "the noise is multiplied by the variance: multiply by σ": np.exp([-1.4, 0.6]),
        "all samples of the batch get the same noise: draw an ε for each value": [0.0, 0.0],
    }
    compare("the deviation of z", noise.std(0), np.exp([-0.7, 0.3]), named, tolerance=0.04)
    epsilon = noise / noise.std(0)
    if len(np.unique(epsilon.round(4))) < 4000:
        raise Wrong("some values get the same noise: draw an ε for each value")
    if abs(np.corrcoef(epsilon.T)[0, 1]) > 0.9:
        raise Wrong("all dimensions get the same noise: draw an ε for each value")
    if abs((epsilon**4).mean() - 3) > 0.5:
        raise Wrong("the noise is not normal: draw ε from N(0, 1)")
    compare("the mean of the noise", noise.mean(0), [0.0, 0.0], tolerance=0.06)
    kl = 0.5 * (mean**2 + np.exp(2 * log_deviation) - 1 - 2 * log_deviation).sum(1)
    if not layer.losses:
        raise Wrong("the layer adds no loss: call self.add_loss with β times the mean KL")
    mistakes = {
        "β is missing": kl.mean(),
        "the KL is summed over the batch: take the mean": 4 * kl.sum(),
        "the loss has the wrong sign: the KL is to become small": -4 * kl.mean(),
        "the loss is that of the first sample: take the mean over the batch": 4 * kl[0],
    }
    compare("the loss that the layer adds", sum(float(loss) for loss in layer.losses), 4 * kl.mean(), mistakes)
    if np.array_equal(z, layer([tf.constant(mean), tf.constant(log_deviation)])):
        raise Wrong("each call draws the same noise: draw it anew, without a fixed seed")
    reach_inputs(layer, mean[:5], log_deviation[:5])
    inputs = [keras.Input((2,)), keras.Input((2,))]
    try:
        model = keras.Model(inputs, kind(1.0)(inputs))
    except Exception as error:
        why = " ".join(str(error).split())[:100]
        raise Wrong(
            f"no model can be built with it ({why}): the batch's size is not known then, use tf.shape"
        ) from None
    compare("the shape of z in a model", model([mean[:5], log_deviation[:5]]).shape, (5, 2))


def reach_inputs(layer, mean, log_deviation):
    """Raise Wrong unless gradients of the code and of the loss reach both inputs."""
    inputs = {"mean": tf.constant(mean), "log_deviation": tf.constant(log_deviation)}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(list(inputs.values()))
        total = tf.reduce_sum(layer(list(inputs.values())))
        loss = tf.add_n(layer.losses)
    for name, value in inputs.items():
        if tape.gradient(total, value) is None:
            raise Wrong(f"no gradient of z reaches {name}: write z as mean + exp(log_deviation) · ε")
        if tape.gradient(loss, value) is None:
            raise Wrong(f"no gradient of the loss reaches {name}")


def built(layers):
    """Return a Keras model of a list of layers, after a look at what they make of 784 pixels."""
    if not isinstance(layers, (list, tuple)):
        raise Wrong(f"a list of layers must be returned, got {type(layers).__name__}")
    model = keras.Sequential([keras.Input((784,)), *layers])
    if model.output_shape != (None, 784):
        raise Wrong(f"the model must return 784 pixels, got shape {model.output_shape}")
    out = model(10 * numbers(3, 784)).numpy()
    if out.min() < 0 or out.max() > 1:
        raise Wrong("pixels lie in [0, 1]: end in a sigmoid")
    return model


def layers_of(model):
    """Return a model's layers, those of models within it too."""
    nested = [layers_of(layer) if hasattr(layer, "layers") else [layer] for layer in model.layers]
    return [layer for some in nested for layer in some]


def kinds(model):
    """Return the names of a model's layers' classes."""
    return [type(layer).__name__ for layer in layers_of(model)]


def dense(model):
    """Return the widths and the names of the activations of a model's dense layers."""
    found = [layer for layer in layers_of(model) if isinstance(layer, keras.layers.Dense)]
    return [layer.units for layer in found], [layer.activation.__name__ for layer in found]


def convolutional_model(function):
    """Check model_b of notebook 10."""
    for task in ("reconstruction", "denoising"):
        model = built(function(task))
        found = kinds(model)
        if "Dense" in found:
            raise Wrong("B has no dense layers: convolutions take their place")
        if "Conv2D" not in found:
            raise Wrong("the encoder has no convolution (Conv2D)")
        if task == "reconstruction" and "Conv2DTranspose" not in found:
            raise Wrong("for reconstruction the decoder goes up by transposed convolutions")
        if task == "denoising" and "Conv2DTranspose" in found:
            raise Wrong("for denoising the transposed convolutions are replaced by up-sampling and a convolution")
        if task == "denoising" and "UpSampling2D" not in found:
            raise Wrong("for denoising the decoder goes up by up-sampling (UpSampling2D) and a convolution")
        shapes = [layer.output.shape[1:3] for layer in layers_of(model) if len(layer.output.shape) == 4]
        if (7, 7) not in shapes:
            raise Wrong(f"the code must be 7×7 pixels wide, two steps of stride 2 down from 28×28, got {shapes}")


def deeper_model(function):
    """Check model_c of notebook 10."""
    model = built(function("reconstruction"))
    widths, activations = dense(model)
    if "Conv2D" in kinds(model):
        raise Wrong("C is made from A, whose layers are dense, not from B")
    if widths == [64, 784]:
        raise Wrong("this is model A: add one more layer to the encoder")
    if len(widths) > 3:
        raise Wrong(f"one more layer is asked for, got dense layers of {widths}")
    if len(widths) == 3 and widths[0] == 64:
        raise Wrong("the new layer stands in the decoder: it belongs before the code of 64")
    if len(widths) != 3 or widths[1:] != [64, 784]:
        raise Wrong(f"C must end as A does, in 64 and 784, got dense layers of {widths}")
    if widths[0] < 64:
        raise Wrong(f"a layer of {widths[0]} before a code of 64 is a second bottleneck: make it wider than 64")
    if activations[0] == "linear" and len(kinds(model)) == 3:
        raise Wrong("the new layer has no activation: two linear maps in a row are one")


def own_model(function):
    """Check model_d of notebook 10: any model of one's own that differs from A and C and can be trained."""
    for task in ("reconstruction", "denoising"):
        keras.utils.set_random_seed(0)
        model = built(function(task))
        plain = set(kinds(model)) == {"Dense"} and all(layer.activity_regularizer is None for layer in layers_of(model))
        if plain and dense(model) == ([64, 784], ["leaky_relu", "sigmoid"]):
            raise Wrong("this is model A: change something")
        if plain and dense(model) == ([256, 64, 784], ["relu", "leaky_relu", "sigmoid"]):
            raise Wrong("this is model C: change something else")
        if min(int(np.prod(layer.output.shape[1:])) for layer in layers_of(model)) >= 784:
            raise Wrong("there is no bottleneck: some layer must be narrower than the image")
        x = np.clip(numbers(64, 784) ** 2 / 9, 0, 1)
        model.compile(keras.optimizers.Adam(1e-3), "mse")
        before = model.evaluate(x, x, verbose=0)
        model.fit(x, x, epochs=3, verbose=0)
        if not model.evaluate(x, x, verbose=0) < before:
            raise Wrong("three epochs of training do not lower the loss")


# ---- The diary's six bugs --------------------------------------------------------------------------------------


def bug_nan():
    """Bug 1: the loss is NaN."""
    case = Case(nh.AffineCoupling, 4, "half")
    case.layer.network.values = lambda x: 1e6 * (x @ case.layer.network.matrix)
    ends = [case.with_columns(case.changed, value).astype(np.float32) for value in (0.0, 1.0)]
    at_zero, at_one = (np.asarray(case.layer.forward(x)[0], np.float64)[:, case.changed] for x in ends)
    if not (np.isfinite(at_zero).all() and np.isfinite(at_one).all()):
        raise Wrong("a network that returns large numbers makes a coupling overflow: nothing bounds its scale")
    case.layer.network.values = lambda x: 20.0 * np.ones((1, 4), np.float32) + 0.0 * (x @ case.layer.network.matrix)
    at_zero, at_one = (np.asarray(case.layer.forward(x)[0], np.float64)[:, case.changed] for x in ends)
    scale = np.abs(at_one - at_zero).max()
    if scale > 10:
        raise Wrong(f"a network that returns 20 makes a coupling scale by {scale:.3g}: nothing bounds its scale")
    if scale < 1.1:
        raise Wrong("now the coupling hardly scales at all: bound the scale, don't remove it")


def bug_log_det():
    """Bug 2: the log-determinant of a coupling."""
    case = Case(nh.AffineCoupling, 4, "half")
    _, log_det = case.layer.forward(case.points)
    against_autodiff("a coupling", case.layer, case.points, log_det)


def bug_logit():
    """Bug 3: the log-determinant of the logit."""
    layer, x = nh.Logit(3, alpha=0.05), np.random.default_rng(0).uniform(0.01, 0.99, (6, 3)).astype(np.float32)
    z, log_det = layer.forward(x)
    compare("backward(forward(x))", layer.backward(z), x)
    against_autodiff("the logit", layer, x, log_det)


def against_autodiff(name, layer, x, log_det):
    """Raise Wrong unless a transform's log-determinant is what automatic differentiation finds."""
    if np.shape(log_det) != (len(x),):
        raise Wrong(
            f"the log-determinant of {name} must have one number for each sample, got shape {np.shape(log_det)}"
        )
    x = tf.constant(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        z, _ = layer.forward(x)
    exact = np.linalg.slogdet(tape.batch_jacobian(z, x, experimental_use_pfor=False).numpy())[1]
    sign = {f"the log-determinant of {name} has the wrong sign": -exact}
    compare(f"the log-determinant of {name}, beside automatic differentiation,", log_det, exact, sign)


def bug_order():
    """Bug 4: codes of data decode to something else."""
    flow, x = toy_chain(), numbers(6, 2)
    z, _ = flow._forward(tf.constant(x), None)
    compare("backward(forward(x)) of a flow of three transforms, each right by itself,", flow._backward(z, None), x)


def bug_shortcut():
    """Bug 5: the shortcut of the residual blocks."""
    keeps = np.arange(16).reshape(4, 4) % 2 == 0
    outputs = []
    for blocks in (0, 1):
        network = ni._conv_network(keeps.ravel(), 2, 3, blocks, 0, 0)
        last = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)][-1]
        last.kernel.assign(numbers(*last.kernel.shape))
        outputs.append(network(numbers(5, 8)).numpy())
    twice = {
        "a residual block whose branch returns zero doubles what goes in: its shortcut is applied twice": 2 * outputs[0]
    }
    compare("a network with a residual block whose branch returns zero", outputs[1], outputs[0], twice)


def bug_climb():
    """Bug 6: the climb."""
    x, path = climb(0.5, 3, space="real")
    if path[-1, 0] < path[0, 0]:
        raise Wrong("log p falls from step to step: the climb goes downhill")
    inpainting_step()


CHECKS = {
    "AdditiveCoupling.forward": additive_forward,
    "AdditiveCoupling.backward": additive_backward,
    "coupling_chain": alternating_chain,
    "Flow._forward": chain_forward,
    "Flow._backward": chain_backward,
    "DiagonalScaling.forward": scaling_forward,
    "DiagonalScaling.backward": scaling_backward,
    "Flow._log_prob": log_likelihood,
    "likelihood_step": train_step,
    "inpaint.step": inpainting_step,
    "choose_threshold": threshold,
    "precision_and_recall": precision_recall,
    "AffineCoupling.log_scale_and_shift": scale_and_shift,
    "AffineCoupling.forward": affine_forward,
    "AffineCoupling.backward": affine_backward,
    "OrthogonalMixing.forward": rotation_forward,
    "OrthogonalMixing.backward": rotation_backward,
    "Flow.sample": samples,
    "_mmd2": unbiased_mmd,
    "keep_first": first_codes,
    "reconstruction_loss.loss": bottleneck_loss,
    "kl_to_prior": kl_of_codes,
    "LatentCode.call": latent_code,
    "kl_bernoulli": bernoulli,
    "convolution_matrix": matrix_of_convolution,
    "model_b": convolutional_model,
    "model_c": deeper_model,
    "model_d": own_model,
    "bug 1": bug_nan,
    "bug 2": bug_log_det,
    "bug 3": bug_logit,
    "bug 4": bug_order,
    "bug 5": bug_shortcut,
    "bug 6": bug_climb,
}

if __name__ == "__main__":  # for handin.py: a JSON object of names and messages, in the file that is named
    import sys

    sys.stdout.reconfigure(errors="replace")
    output, told = Path(sys.argv[1]), {}

    def note(name, message):
        """Keep what is known so far: an exercise may end the process."""
        told[name] = message
        output.write_text(json.dumps(told), encoding="utf-8")

    check_all(json.loads(Path(__file__).with_name("exercises.json").read_text(encoding="utf-8"))["exercises"], note)
