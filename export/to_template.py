"""Write the students' template: `python to_template.py ARCHIVE NOTEBOOK…`.

The zip holds the notebooks, the tests of the exercises, the data, and the modules with the bodies of the exercises
taken out. It is made from the real files, so it can't drift; the same files give the same bytes.
"""

import ast
import sys
import textwrap
from pathlib import Path

from make_zip import write_zip

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "template"  # in the zip: unpacked, it leaves one folder behind

# What students write themselves, and what the template tells them about it. `outer.inner` is a method or a nested
# function. OrthogonalMixing and Logit stay: they show what a transform looks like.
EXERCISES = {
    "bits_per_dim": "Convert nats to bits per dimension: log₂(levels) − nats / (D ln 2). Why is the first term there? "
    "(RealNVP, section 4.1)",
    "AdditiveCoupling.forward": "Keep one part and add m of it to the other: z_a = a, z_b = b + m(a); the Jacobian is "
    "triangular with ones on its diagonal (NICE, section 3.2). Use self._inputs to check x, self._divide, "
    "self._network for m, self._join; return z and the log-determinant, one number for each sample.",
    "AdditiveCoupling.backward": "Invert forward: a = z_a, b = z_b − m(z_a) (NICE, section 3.2). No training here: "
    "call self._network(kept, condition, False).",
    "AffineCoupling.forward": "Keep one part, scale and shift the other: z_b = b ⊙ exp(s(a)) + t(a), and log|det| = "
    "Σ s(a) over the columns (RealNVP, equations 4 to 6). self.log_scale_and_shift returns the bounded s and t.",
    "AffineCoupling.backward": "Invert forward without inverting s or t: b = (z_b − t(z_a)) ⊙ exp(−s(z_a)) (RealNVP, "
    "equations 7 and 8).",
    "DiagonalScaling.forward": "Scale each column: z = exp(s) ⊙ (x − m) with s = self.log_scale and m = self.mean; "
    "log|det| = Σ s is the same for every sample, so repeat it N times (NICE, section 3.3).",
    "DiagonalScaling.backward": "Invert forward: x = z ⊙ exp(−s) + m (NICE, section 3.3).",
    "Flow._forward": "Chain the transforms: z = f_L(… f_1(x)); the log-determinants add up (NICE, section 2). "
    "Pass condition only to a transform whose condition_size is not 0, and training to all.",
    "Flow._backward": "Undo the transforms in reverse order: x = f_1⁻¹(… f_L⁻¹(z)) (NICE, section 2). Pass "
    "condition as in _forward.",
    "Flow._log_prob": "Change of variables: log p(x) = log p_Z(f(x)) + log|det ∂f/∂x| (NICE, section 2); self.prior is "
    "p_Z.",
    "Flow.sample": "Draw z from self.prior and map it backward (ancestral sampling, NICE, section 2). For M "
    "conditions, checked by as_matrix, draw num_samples for each (tf.repeat) and reshape to (M, num_samples, D). "
    "as_integer refuses a negative num_samples; the same seed must give the same points.",
    "likelihood_step": "One step of Adam on the negative log-likelihood −mean(log p_Z(z) + log|det|) plus extra_loss "
    "(NICE, section 2): run flow._forward(x, condition, training=True) under a tf.GradientTape, give "
    "flow.optimizer.apply the gradients and flow.trainable_variables; return the mean nats and the extra loss or 0.",
    "keep_first": "Return z with zeros after the first k columns, the bottleneck of the INN exercise; refuse a k "
    "outside 1…D with a ValueError that names both.",
    "reconstruction_loss.loss": "weight · mean over the batch of ‖f⁻¹(keep_first(f(x), k)) − x‖² (INN exercise, "
    "bottleneck); z = f(x) is given.",
    "_mmd2": "Unbiased MMD²: Σ_{i≠j} k(x_i, x_j) / (n(n − 1)) + Σ_{i≠j} k(y_i, y_j) / (m(m − 1)) − 2 Σ_{ij} k(x_i, y_j)"
    " / (nm), from the three kernel matrices (Gretton et al. 2012, Lemma 6). Return a float.",
    "inpaint.step": "One step uphill: x_u ← x_u + α (∂ log p(x)/∂x_u + ε) for the unknown pixels only (NICE, section "
    "5.2). The gradient is with respect to free.value, where restored(free.value) is the image; ε is stateless normal "
    "noise with the seed [seed, i]; optimizer.apply goes downhill, so hand it the negative; for space='clip' project "
    "back to [0, 1]. Return i + 1 and path.write(i, log p before the step).",
}
# Those that are not in nice_helpers.
ELSEWHERE = {"_mmd2": "nice_evaluation", "inpaint.step": "nice_images"}

# The tests of these functions, with what they import.
TESTS = ["conftest.py", "test_evaluation.py", "test_flows.py", "test_inpainting.py", "test_training.py"]
COPIED = ["constraints.txt", "pyproject.toml", *(f"tests/{name}" for name in TESTS)]


def without_solutions(source, exercises):
    """Return a module's source with the bodies of the exercises replaced by an error that says what to do.

    Docstrings and everything outside the bodies stay as they are, comments included.

    Raises:
        ValueError: for a name that the module doesn't have.
    """
    tree, lines = ast.parse(source), source.splitlines()
    bodies = {body(find(tree, name), name, lines): text for name, text in exercises.items()}
    for (first, last, indent), text in sorted(bodies.items(), reverse=True):  # from the end: other numbers stay right
        lines[first - 1 : last] = textwrap.indent(raising(text, 120 - indent), " " * indent).splitlines()
    return "\n".join(lines) + "\n"


def find(tree, name):
    """Return the function of a dotted name in a module."""
    node = tree
    for part in name.split("."):
        named = (n for n in node.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name == part)
        node = next(named, None)
        if node is None:
            raise ValueError(f"no module has {name}: correct EXERCISES in {Path(__file__).name}")
    if not isinstance(node, ast.FunctionDef):
        raise ValueError(f"{name} in EXERCISES is a class: name its methods")
    return node


def body(function, name, lines):
    """Return a body's first and last line (from 1) and its indentation; it begins after the docstring."""
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not statements or statements[0].lineno == function.lineno:
        raise ValueError(f"{name} in EXERCISES has no body of its own to take out")
    first = statements[0].lineno
    while not lines[first - 2].strip() or lines[first - 2].strip().startswith("#"):
        first -= 1  # a comment above the first statement explains the solution
    return first, statements[-1].end_lineno, statements[0].col_offset


def raising(text, width):
    """Return the statement that raises NotImplementedError with a text, formatted as the rest of the file is."""
    if len(statement := f'raise NotImplementedError("{text}")') <= width:
        return statement
    parts = textwrap.wrap(text, width - 7, break_long_words=False, break_on_hyphens=False)
    quoted = [f'    "{part} "' for part in parts[:-1]] + [f'    "{parts[-1]}"']
    return "\n".join(["raise NotImplementedError(", *quoted, ")"])


def members(notebooks):
    """Return the names and bytes of the zip's files."""
    files = {name: (ROOT / name).read_bytes() for name in COPIED}
    files |= {f"notebooks/{notebook.name}": notebook.read_bytes() for notebook in notebooks}
    data = [path for path in (ROOT / "data").rglob("*") if path.is_file()]
    files |= {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in data}
    for path in ROOT.glob("nice_*.py"):
        source = path.read_text(encoding="utf-8")
        own = {n: text for n, text in EXERCISES.items() if ELSEWHERE.get(n, "nice_helpers") == path.stem}
        files[path.name] = without_solutions(source, own).encode()
    tools = [r for r in (ROOT / "requirements-dev.txt").read_text().splitlines() if r.startswith("pytest>")]
    files["requirements.txt"] = "\n".join([(ROOT / "requirements.txt").read_text().strip(), *tools, ""]).encode()
    listed = "\n".join(f"- `{name}` in `{ELSEWHERE.get(name, 'nice_helpers')}.py`" for name in EXERCISES)
    readme = (ROOT / "export/template_readme.md").read_text(encoding="utf-8")
    files["README.md"] = readme.replace("EXERCISES", listed).encode()
    return {f"{FOLDER}/{name}": content for name, content in files.items()}


def main():
    """Write the zip, or say in one line what is wrong."""
    try:
        write_zip(sys.argv[1], members([Path(notebook) for notebook in sys.argv[2:]]))
    except ValueError as error:
        sys.exit(f"{Path(__file__).name}: {error}")


if __name__ == "__main__":
    main()
