"""Normalizing flows for the course notebooks: data, layers, training, checks and plots.

Conventions, the same in all notebooks: `forward` maps data x to code (latent) z, `backward` maps code to
data. Every log-determinant is log|det dz/dx|, that of `forward`. Likelihoods are natural logarithms (nats)
of the density in data space. N counts samples, D dimensions, C the columns of a condition; arrays are
(N, D) and float32.

Sections: Data · Priors and true densities · Layers · Flows · Training · Checks, evaluation and inpainting · Figures and
results.

Sources:
    NICE     Dinh, Krueger, Bengio: NICE: Non-linear Independent Components Estimation, 2014, arXiv:1410.8516
    RealNVP  Dinh, Sohl-Dickstein, Bengio: Density Estimation using Real NVP, 2016, arXiv:1605.08803
    INN      Ardizzone et al.: Analyzing Inverse Problems with Invertible Neural Networks, 2018, arXiv:1808.04730
    cINN     Ardizzone et al.: Guided Image Generation with Conditional INNs, 2019, arXiv:1907.02392
    Glow     Kingma, Dhariwal: Glow: Generative Flow with Invertible 1x1 Convolutions, 2018, arXiv:1807.03039
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import platform
import socket
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

_STARTED = time.perf_counter()


@contextlib.contextmanager
def _quiet_start():
    """Hold back what TensorFlow's C++ code writes to file descriptor 2; show it after all if the start fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what is really wrong comes as an exception too
    # Off by default on some processors: there convolutions took 1.4 times as long, log_prob of many rows twice.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        original = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)


with _quiet_start():
    import keras
    import numpy as np
    import tensorflow as tf
    import tensorflow_probability as tfp

    tf.config.list_physical_devices()  # the search for a GPU is noisy too: let it happen here
    tf.function(lambda: tf.zeros(1) + 1, jit_compile=True)()  # and so is TF 2.20's first use of XLA
tf.get_logger().setLevel("ERROR")  # its warnings of retracing count every new flow as a retrace

tfd = tfp.distributions
HERE = Path(__file__).resolve().parent


# ---- Data ------------------------------------------------------------------------------------------------------

DOWNLOAD_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"  # where Keras fetches both sets
DOWNLOAD_TIMEOUT = 20.0  # seconds without a byte before a download counts as failed

_IDX_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# SHA-256 of these four arrays' bytes, one after the other: any faithful copy is accepted, whatever file it is in.
_SHA256 = {
    "mnist": "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16",
    "fashion_mnist": "ca3ab2a37f845e1b8ae23cab1b51749a3011ba3bf1d9016176d75cbaabac376f",
    "mnist_subset": "df588dd70e7cec6f8fa2e20bd47d0d64ac1b6a3760324b1018cc6adae0ece9f2",
    "fashion_mnist_subset": "93a499c8d0880ac610dd693b8a86f79b3f9083880d9de78b1fe771dcc89b8ed3",
}


class Images(NamedTuple):
    """Images as rows of pixels: x (N, size²) and labels y (N,), both uint8; `source` says which data these are."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    source: str


def load_images(name, size=28):
    """Load MNIST or Fashion-MNIST, the full set where it can be had, else the bundled subset of 5,000 images.

    Looks for `<name>.npz` in the folder $NICE_DATA, then in data/; then downloads it into data/. Every array is
    checked by its SHA-256. Prints one line that says what was loaded.

    Args:
        name: "mnist" or "fashion_mnist".
        size: 28, or 8 for images scaled to 10×10 with a Lanczos filter and cropped by one pixel at each border.

    Returns:
        Images, with x_train and x_test of shape (N, size²) and `source` "full" or "bundled subset".

    Raises:
        ValueError: for an unknown name or size, or a damaged file.
        OSError: where neither the full data nor the subset can be had.
    """
    if name not in ("mnist", "fashion_mnist"):
        raise ValueError(f'name must be "mnist" or "fashion_mnist", got {name!r}')
    if size not in (28, 8):
        raise ValueError(f"size must be 28 or 8, got {size!r}")
    source, remark = "full", ""
    folders = [Path(folder) for folder in (os.environ.get("NICE_DATA"), HERE / "data") if folder]
    for path in (folder / f"{name}.npz" for folder in folders):
        if path.exists():
            arrays = _read_images(path, name)
            break
    else:
        try:
            arrays = _download_images(name)
        except Exception as error:  # Keras wraps what urllib raises in a bare Exception
            subset = HERE / "data" / f"{name}_subset.npz"
            reason = " ".join(str(error).split())
            if not subset.exists():
                raise OSError(
                    f"{name} could not be downloaded ({reason}) and {subset.name} is not in {subset.parent}. "
                    f"Copy {name}.npz there, or set NICE_DATA to the folder that has it."
                ) from error
            arrays, source = _read_images(subset, f"{name}_subset"), "bundled subset"
            places = "$NICE_DATA or data/" if len(folders) > 1 else "data/"
            remark = f" (the full set is not in {places} and could not be downloaded: {reason})"
    print(f"{name}: {source}, {len(arrays[0]):,} training and {len(arrays[2]):,} test images{remark}")
    x_train, y_train, x_test, y_test = arrays
    if size == 8:
        x_train, x_test = _to_8x8(x_train), _to_8x8(x_test)
    return Images(x_train.reshape(len(x_train), -1), y_train, x_test.reshape(len(x_test), -1), y_test, source)


def _read_images(path, name):
    """Return the four arrays in an .npz file, checked; never unpickles anything."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[key] for key in _ARRAYS]
    except Exception as error:  # a damaged zip raises anything from KeyError to zlib.error
        raise ValueError(f"{path} is damaged ({error}). Delete it and run again.") from error
    return _checked_images(arrays, name, path)


def _checked_images(arrays, name, place):
    received = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()
    if received != _SHA256[name] or {a.dtype for a in arrays} != {np.dtype(np.uint8)}:
        raise ValueError(
            f"{place} is damaged: expected uint8 arrays with SHA-256 {_SHA256[name][:12]}…, "
            f"got {received[:12]}…. Delete it and run again."
        )
    return arrays


def _download_images(name):
    """Download the four arrays, check them, and keep a copy in data/ where that is possible."""
    former, folder = socket.getdefaulttimeout(), HERE / "data"
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)  # Keras sets none: a stalled connection would hang for ever
    try:
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
            fetch = lambda file: keras.utils.get_file(file, DOWNLOAD_URL + file, cache_dir=scratch)  # noqa: E731
            if name == "mnist":
                arrays = _read_images(fetch("mnist.npz"), name)
            else:
                raw = [gzip.decompress(Path(fetch(f"{file}-ubyte.gz")).read_bytes()) for file in _IDX_FILES]
                # An IDX header has 4 bytes and 4 more for each dimension: 16 for images, 8 for labels.
                images, labels = ([np.frombuffer(r, np.uint8, offset=o) for r in raw] for o in (16, 8))
                arrays = [images[0].reshape(-1, 28, 28), labels[1], images[2].reshape(-1, 28, 28), labels[3]]
                _checked_images(arrays, name, "the download")
    finally:
        socket.setdefaulttimeout(former)
    try:
        folder.mkdir(exist_ok=True)
        _write_whole(
            folder / f"{name}.npz", lambda f: np.savez_compressed(f, **dict(zip(_ARRAYS, arrays, strict=True)))
        )
    except OSError as error:
        print(f"{name}: no copy kept in {folder.name}/ ({error.strerror})")
    return arrays


def _write_whole(path, write):
    """Call write(file) on a temporary file beside `path` and move it into place: the file is whole or not there."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _to_8x8(images):
    """Scale (N, 28, 28) to (N, 8, 8) as the INN exercise does: Lanczos to 10×10, then crop the border."""
    from PIL import Image

    small = [np.asarray(Image.fromarray(image).resize((10, 10), Image.Resampling.LANCZOS)) for image in images]
    return np.stack(small)[:, 1:-1, 1:-1]


def dequantize(x, seed, levels=256):
    """Map integer pixels 0 … levels − 1 to the unit interval by uniform noise: (x + u) / levels with u in [0, 1).

    A density on discrete values is unbounded; with this noise E[log p] bounds the discrete log-likelihood from
    below (Theis et al. 2016, arXiv:1511.01844, section 3.1).

    Args:
        x: pixels (N, D).
        seed: an integer or a pair of integers; the same seed gives the same noise.

    Returns:
        A float32 tensor (N, D) in [0, 1].
    """
    x, seed = tf.cast(x, tf.float32), tf.convert_to_tensor(seed, tf.int32)
    seed = tf.stack([seed, 0]) if seed.shape.rank == 0 else seed
    # Philox by name: the generator that XLA chooses for itself took half of the time of a training step of NICE.
    return (x + tf.random.stateless_uniform(tf.shape(x), seed, alg="philox")) / levels


def quantize(x, levels=256):
    """Undo `dequantize`: return the integer pixels 0 … levels − 1 (float32) in whose cells x falls, clipped."""
    return np.clip(np.floor(np.asarray(x, np.float32) * levels), 0, levels - 1)


def bits_per_dim(nats, dimensions, levels=256):
    """Return bits per dimension of integer data from the log-density (nats) of the dequantized data in [0, 1).

    -log2 p(x)/D, plus the log2(levels) bits by which scaling by 1/levels raised the density (RealNVP, section 4.1).
    """
    return np.log2(levels) - np.asarray(nats) / (dimensions * np.log(2.0))


def make_parabola(n, *, seed, noise=0.1):
    """Draw (n, 2) float32 points: x₁ normal, x₂ = x₁² + normal noise of the given standard deviation."""
    rng = np.random.default_rng(seed)
    x1 = rng.standard_normal(n)
    return np.stack([x1, x1**2 + noise * rng.standard_normal(n)], axis=1).astype(np.float32)


def make_hexagon(n, *, seed, noise=0.1):
    """Draw points around the corners of a regular hexagon of radius 1; noise is their standard deviation.

    Returns:
        x (n, 2) float32 and the corner's number 0…5 as label (n,).
    """
    rng = np.random.default_rng(seed)
    label = rng.integers(6, size=n)
    x = _hexagon_corners()[label] + noise * rng.standard_normal((n, 2))
    return x.astype(np.float32), label


def _hexagon_corners():
    angle = np.arange(6) * np.pi / 3
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


# ---- Priors and true densities ---------------------------------------------------------------------------------


def gaussian_prior(dimensions):
    """Return the standard normal distribution over (dimensions,)."""
    return tfd.Independent(tfd.Normal(tf.zeros(dimensions), 1.0), 1)


def logistic_prior(dimensions):
    """Return the standard logistic distribution over (dimensions,), NICE section 3.4; its variance is π²/3."""
    return tfd.Independent(tfd.Logistic(tf.zeros(dimensions), 1.0), 1)


def fit_gaussian(x, levels=256):
    """Return the normal distribution with the mean and covariance of dequantized pixels, a baseline for flows.

    The noise of `dequantize` moves each mean by half a grey level and adds 1/12 of a squared grey level to each
    variance, so no covariance is singular.

    Args:
        x: pixels 0 … levels − 1, (N, D) with N ≥ 2.
        levels: as in dequantize.

    Returns:
        SciPy's multivariate normal over [0, 1]^D, float64; `logpdf` gives nats, `mean` and `cov` the moments.
    """
    from scipy.stats import multivariate_normal

    x = np.asarray(x, float)
    return multivariate_normal((x.mean(0) + 0.5) / levels, (np.cov(x.T) + np.eye(x.shape[1]) / 12) / levels**2)


def toy_distribution(name, label=None, *, noise=0.1):
    """Return the density that a toy set's points are drawn from, as a TFP distribution over (2,).

    Args:
        name: "parabola" (make_parabola), "moons" (sklearn's make_moons) or "hexagon" (make_hexagon).
        label: a label, or several, to get p(x | label): 0 or 1 for the moons, 0…5 for the hexagon's corners.
        noise: the generator's noise.

    Raises:
        ValueError: for an unknown name or label.
    """
    centres = {"parabola": None, "moons": _moon_nodes(), "hexagon": _hexagon_corners()[:, None]}
    if name not in centres:
        raise ValueError(f"name must be one of {sorted(centres)}, got {name!r}")
    if name == "parabola":
        if label is not None:
            raise ValueError(f"the parabola has no labels, got label={label!r}")
        # A coupling maps independent normal (u, v) to (u, u² + v): the parabola is itself a NICE flow.
        bend = tfp.bijectors.RealNVP(num_masked=1, shift_and_log_scale_fn=lambda u, *_, **__: (u**2, None))
        return tfd.TransformedDistribution(tfd.MultivariateNormalDiag([0.0, 0.0], [1.0, noise]), bend)
    groups = centres[name]
    chosen = np.arange(len(groups)) if label is None else np.atleast_1d(label)
    if not np.isin(chosen, np.arange(len(groups))).all():
        raise ValueError(f"label must lie in 0…{len(groups) - 1} for {name}, got {label!r}")
    means = groups[chosen].reshape(-1, 2).astype(np.float32)
    weights = np.tile(_ARC_WEIGHTS, len(chosen)) if name == "moons" else np.ones(len(chosen))
    return tfd.MixtureSameFamily(
        tfd.Categorical(probs=(weights / weights.sum()).astype(np.float32)),
        tfd.MultivariateNormalDiag(means, tf.fill(means.shape, np.float32(noise))),
    )


# The integral along an arc (angle uniform on [0, π]) is a Gauss-Legendre sum: with 128 nodes, whose spacing is a
# quarter of the default noise, it is exact in float32.
_ARC_NODES, _ARC_WEIGHTS = np.polynomial.legendre.leggauss(128)


def _moon_nodes():
    """Return nodes (2, 128, 2) along the arcs of sklearn's make_moons, the upper one first."""
    t = (_ARC_NODES + 1) * np.pi / 2
    return np.stack([np.stack([np.cos(t), np.sin(t)], 1), np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1)])


# ---- Layers ----------------------------------------------------------------------------------------------------


def _matrix(values, columns, name):
    """Return `values` as a float32 tensor (N, columns), or raise a ValueError that says what is wrong with it."""
    if not tf.is_tensor(values):
        values = np.asarray(values)
        if values.dtype.kind not in "fiu":
            raise ValueError(f"{name} must be an array of real numbers, got dtype {values.dtype}")
    if len(values.shape) != 2 or values.shape[1] != columns:
        raise ValueError(f"{name} must have shape (N, {columns}), got {tuple(values.shape)}")
    values = tf.cast(values, tf.float32)
    if hasattr(values, "numpy") and not np.isfinite(values.numpy()).all():  # in a graph there are no values yet
        bad = int((~np.isfinite(values.numpy())).sum())
        raise ValueError(f"{name} must be finite in float32, got {bad} NaN or infinite values")
    return values


def _check_size(name, value, least):
    if int(value) != value or value < least:
        raise ValueError(f"{name} must be an integer ≥ {least}, got {value!r}")


def mlp(input_size, output_size, *, hidden_size, hidden_layers, normalization=None, seed=None):
    """Build a fully connected ReLU network as a Keras model; its linear last layer starts at zero.

    With a last layer of zeros each coupling starts as the identity, so a deep flow starts without blowing up
    (Glow, section 3.3).

    Args:
        normalization: None, "layer" or "batch": a Keras normalization before each activation.
        seed: of the initial weights; whatever np.random.default_rng takes.
    """
    if normalization not in (None, "layer", "batch"):
        raise ValueError(f'normalization must be None, "layer" or "batch", got {normalization!r}')
    normalize = {"layer": keras.layers.LayerNormalization, "batch": keras.layers.BatchNormalization}
    rng = np.random.default_rng(seed)
    inputs = h = keras.Input((input_size,))
    for _ in range(hidden_layers):
        initializer = keras.initializers.HeNormal(seed=int(rng.integers(2**31)))
        h = keras.layers.Dense(hidden_size, kernel_initializer=initializer)(h)
        if normalization:
            h = normalize[normalization]()(h)
        h = keras.layers.Activation("relu")(h)
    last = _TwoColumns if output_size == 2 else keras.layers.Dense
    return keras.Model(inputs, last(output_size, kernel_initializer="zeros")(h))


@keras.saving.register_keras_serializable("nice_helpers")
class _TwoColumns(keras.layers.Dense):
    """A Dense layer of two columns, what every affine coupling of the plane ends in.

    Its gradients are sums: as matrix products they took a quarter of a training step, since XLA is slow at products
    with two columns (at one or four it is not).
    """

    def call(self, x, training=None):
        return _product_of_two_columns(x, tf.convert_to_tensor(self.kernel)) + self.bias


@tf.custom_gradient
def _product_of_two_columns(x, w):
    def gradient(upstream):
        columns = tf.split(upstream, 2, axis=1)
        by_x = columns[0] * w[:, 0] + columns[1] * w[:, 1]
        by_w = tf.stack([tf.reduce_sum(x * column, 0) for column in columns], 1)
        return by_x, by_w

    return x @ w, gradient


class _Transform(keras.layers.Layer):
    """An invertible map of (N, input_size); children define forward(x, condition) and backward(z, condition)."""

    def __init__(self, input_size, condition_size=0, **kwargs):
        super().__init__(**kwargs)
        _check_size("input_size", input_size, 2)
        _check_size("condition_size", condition_size, 0)
        self.input_size, self.condition_size, self.built = int(input_size), int(condition_size), True

    def call(self, x, condition=None):
        """Return forward's z: what Keras shows in a summary."""
        return self.forward(x, condition)[0]

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "input_size": self.input_size}

    def _inputs(self, values, condition, name):
        """Return checked (values, condition), the condition None where none is needed: no empty ones in graphs."""
        values = _matrix(values, self.input_size, name)
        needed = self.condition_size or condition is not None
        return values, _check_condition(condition, self.condition_size, values) if needed else None


def _check_condition(condition, size, values):
    rows = values.shape[0] if values.shape[0] is not None else tf.shape(values)[0]
    if condition is None:
        if size:
            raise ValueError(f"condition must have shape (N, {size}), got None")
        return tf.zeros((rows, 0))
    if not size and tuple(np.shape(condition))[-1:] != (0,):
        raise ValueError(f"condition must be None, as condition_size is 0, got shape {tuple(np.shape(condition))}")
    condition = _matrix(condition, size, "condition")
    if None not in (condition.shape[0], values.shape[0]) and condition.shape[0] != values.shape[0]:
        raise ValueError(f"condition must have one row for each of {values.shape[0]} samples, got {condition.shape[0]}")
    return condition


class _Coupling(_Transform):
    """Split the columns, keep one part, and change the other by what `network` makes of the kept one.

    Args:
        input_size: D ≥ 2.
        network: Keras model from (N, kept columns + condition_size) to (N, outputs).
        split: "odd-even" (columns 0, 2, 4 … are the first part; NICE, section 5.1), "half", or a mask (D,) of booleans,
            True for the first part (RealNVP, section 3.4). Of an odd D the two named ones give the first part more.
        swap: keep the second part and change the first.
        condition_size: columns C of the condition, which the network sees beside the kept part (cINN).
    """

    outputs_per_column = 1

    def __init__(self, input_size, network, *, split="odd-even", swap=False, condition_size=0, **kwargs):
        super().__init__(input_size, condition_size, **kwargs)
        kept, changed = coupling_sizes(input_size, swap=swap)
        if not isinstance(split, str):
            mask = np.asarray(split)
            if mask.shape != (input_size,) or mask.dtype != bool or mask.all() or not mask.any():
                raise ValueError(
                    f"split must be a mask of {input_size} booleans, True and False among them, got {split}"
                )
            split = mask.tolist()
            self._parts = [np.flatnonzero(mask == part) for part in (True, False)]
            kept, changed = [len(part) for part in (self._parts[::-1] if swap else self._parts)]
        elif split not in ("odd-even", "half"):
            raise ValueError(f'split must be "odd-even", "half" or a mask, got {split!r}')
        self.network, self.split, self.swap = network, split, bool(swap)
        expected = (kept + condition_size, self.outputs_per_column * changed)
        received = (network.input_shape[-1], network.output_shape[-1])
        if received != expected:
            raise ValueError(
                f"network must map {expected[0]} columns to {expected[1]}, got {received[0]} to {received[1]}"
            )

    def get_config(self):
        network = keras.saving.serialize_keras_object(self.network)
        own = {"network": network, "split": self.split, "swap": self.swap, "condition_size": self.condition_size}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "network": keras.saving.deserialize_keras_object(config["network"])})

    def _divide(self, x):
        """Return the kept and the changed part of x."""
        half = (self.input_size + 1) // 2
        if self.split == "half":
            first, second = x[:, :half], x[:, half:]
        elif self.split == "odd-even":
            first, second = x[:, 0::2], x[:, 1::2]
        else:
            first, second = (tf.gather(x, part, axis=1) for part in self._parts)
        return (second, first) if self.swap else (first, second)

    def _join(self, kept, changed):
        """Undo _divide."""
        first, second = (changed, kept) if self.swap else (kept, changed)
        if self.split == "half":
            return tf.concat([first, second], 1)
        if self.split != "odd-even":
            return tf.gather(tf.concat([first, second], 1), np.argsort(np.concatenate(self._parts)), axis=1)
        pairs = self.input_size // 2
        zipped = tf.reshape(tf.stack([first[:, :pairs], second], 2), (-1, 2 * pairs))
        return tf.concat([zipped, first[:, pairs:]], 1)  # an odd D leaves one column over

    def _network(self, kept, condition, training):
        return self.network(tf.concat([kept, condition], 1) if self.condition_size else kept, training=training)


def coupling_sizes(input_size, *, swap=False):
    """Return (kept, changed): how many columns a coupling with a named split keeps and changes."""
    sizes = ((input_size + 1) // 2, input_size // 2)
    return sizes[::-1] if swap else sizes


@keras.saving.register_keras_serializable("nice_helpers")
class AdditiveCoupling(_Coupling):
    """Add a function of the kept part to the other: volume-preserving (NICE, section 3.2)."""

    def forward(self, x, condition=None, training=False):
        """Map data x (N, D) to code z (N, D); also log|det dz/dx| (N,) in nats, here zero."""
        x, condition = self._inputs(x, condition, "x")
        kept, changed = self._divide(x)
        z = self._join(kept, changed + self._network(kept, condition, training))
        return z, tf.zeros_like(z[:, 0])  # the Jacobian is triangular with ones on the diagonal

    def backward(self, z, condition=None):
        """Map code z (N, D) to data x (N, D)."""
        z, condition = self._inputs(z, condition, "z")
        kept, changed = self._divide(z)
        return self._join(kept, changed - self._network(kept, condition, False))


@keras.saving.register_keras_serializable("nice_helpers")
class AffineCoupling(_Coupling):
    """Scale the other part by exp(tanh(s)) and shift it by t; network returns [s, t].

    Source: RealNVP, section 3.2, equations 4 and 5; tanh keeps each scale in [1/e, e], without it exp overflows
    within a few steps.
    """

    outputs_per_column = 2

    def forward(self, x, condition=None, training=False):
        """Map data x (N, D) to code z (N, D); also log|det dz/dx| = Σ tanh(s) (N,) in nats (RealNVP, equation 6)."""
        x, condition = self._inputs(x, condition, "x")
        kept, changed = self._divide(x)
        log_scale, shift = self.log_scale_and_shift(kept, condition, training)
        return self._join(kept, changed * tf.exp(log_scale) + shift), tf.reduce_sum(log_scale, 1)

    def backward(self, z, condition=None):
        """Map code z (N, D) to data x (N, D)."""
        z, condition = self._inputs(z, condition, "z")
        kept, changed = self._divide(z)
        log_scale, shift = self.log_scale_and_shift(kept, condition, False)
        return self._join(kept, (changed - shift) * tf.exp(-log_scale))

    def log_scale_and_shift(self, kept, condition, training):
        """Return log scale and shift of the changed columns, (N, changed) each, from the kept ones."""
        s, shift = tf.split(self._network(kept, condition, training), 2, axis=1)
        return tf.tanh(s), shift


@keras.saving.register_keras_serializable("nice_helpers")
class OrthogonalMixing(_Transform):
    """Rotate by a fixed random orthogonal matrix, so that the next coupling sees other columns.

    The matrix is a weight that is not trained: it is saved with the model. Source: INN, where it is a permutation.
    """

    def __init__(self, input_size, *, seed=None, **kwargs):
        super().__init__(input_size, **kwargs)
        initializer = keras.initializers.Orthogonal(seed=seed)
        self.matrix = self.add_weight(shape=(input_size, input_size), initializer=initializer, trainable=False)

    def forward(self, x, condition=None, training=False):
        """Map data x (N, D) to code z (N, D); also log|det dz/dx| (N,) in nats, zero for a rotation."""
        x, _ = self._inputs(x, condition, "x")
        return x @ self.matrix, tf.zeros_like(x[:, 0])

    def backward(self, z, condition=None):
        """Map code z (N, D) to data x (N, D)."""
        z, _ = self._inputs(z, condition, "z")
        return tf.matmul(z, self.matrix, transpose_b=True)


@keras.saving.register_keras_serializable("nice_helpers")
class DiagonalScaling(_Transform):
    """Scale each column: z = exp(s) ⊙ (x − m), both trained.

    Source: NICE, section 3.3, with m = 0 there; with m and a start from data it is Glow's ActNorm (section 3.1).
    """

    def __init__(self, input_size, **kwargs):
        super().__init__(input_size, **kwargs)
        self.log_scale = self.add_weight(shape=(input_size,), initializer="zeros", name="log_scale")
        self.mean = self.add_weight(shape=(input_size,), initializer="zeros", name="mean")

    def forward(self, x, condition=None, training=False):
        """Map data x (N, D) to code z (N, D); also log|det dz/dx| = Σ s (N,) in nats."""
        x, _ = self._inputs(x, condition, "x")
        z = tf.exp(self.log_scale) * (x - self.mean)
        return z, tf.fill(tf.shape(x)[:1], tf.reduce_sum(self.log_scale))

    def backward(self, z, condition=None):
        """Map code z (N, D) to data x (N, D)."""
        z, _ = self._inputs(z, condition, "z")
        return z * tf.exp(-self.log_scale) + self.mean

    def adapt(self, x, stddev=1.0):
        """Set s and m so that the columns of x (N, D) get mean 0 and this deviation; constant ones keep s = 0."""
        x = _matrix(x, self.input_size, "x").numpy().astype(np.float64)
        mean, spread = x.mean(0), x.std(0)
        constant = spread <= 1e-6 * np.maximum(1.0, np.abs(mean))
        self.log_scale.assign(np.where(constant, 0.0, np.log(stddev / np.where(constant, 1.0, spread))))
        self.mean.assign(mean)


@keras.saving.register_keras_serializable("nice_helpers")
class Logit(_Transform):
    """Map [0, 1] to the real line: z = logit(α + (1 − 2α) x). Source: RealNVP, section 4.1, there 1 − α."""

    def __init__(self, input_size, *, alpha=0.05, **kwargs):
        super().__init__(input_size, **kwargs)
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha must lie between 0 and 0.5, got {alpha!r}")
        self.alpha = alpha

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "alpha": self.alpha}

    def forward(self, x, condition=None, training=False):
        """Map data x (N, D) in [0, 1] to code z (N, D); also log|det dz/dx| (N,) in nats."""
        x, _ = self._inputs(x, condition, "x")
        p = self.alpha + (1 - 2 * self.alpha) * x
        if hasattr(p, "numpy") and not ((p.numpy() > 0) & (p.numpy() < 1)).all():
            raise ValueError(f"x must lie in [0, 1] for Logit, got [{x.numpy().min():.4g}, {x.numpy().max():.4g}]")
        log_slope = np.log(1 - 2 * self.alpha) - tf.math.log(p) - tf.math.log1p(-p)
        return tf.math.log(p) - tf.math.log1p(-p), tf.reduce_sum(log_slope, 1)

    def backward(self, z, condition=None):
        """Map code z (N, D) to data x (N, D); codes of no image come out up to α/(1 − 2α) beyond [0, 1]."""
        z, _ = self._inputs(z, condition, "z")
        return (tf.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha)


# ---- Flows -----------------------------------------------------------------------------------------------------

PRIORS = {"gaussian": gaussian_prior, "logistic": logistic_prior}


@keras.saving.register_keras_serializable("nice_helpers")
class Flow(keras.Model):
    """A chain of transforms from data to a code with a known density, by the change of variables (NICE, section 2).

    Args:
        transforms: the layers, in the order of `forward`.
        prior: "gaussian" or "logistic", or a TFP distribution over (D,), which can't be saved.

    Methods accept whatever NumPy can turn into real numbers of the right shape, and raise a ValueError that
    names the expected and the received shape for anything else, NaN and infinities included.
    """

    def __init__(self, transforms, prior="gaussian", **kwargs):
        super().__init__(**kwargs)
        transforms = list(transforms)
        if not transforms:
            raise ValueError("transforms must name at least one layer, got none")
        sizes = [t.input_size for t in transforms]
        if len(set(sizes)) > 1:
            raise ValueError(f"transforms must agree in input_size, got {sizes}")
        conditions = {t.condition_size for t in transforms} - {0}
        if len(conditions) > 1:
            raise ValueError(f"transforms must agree in condition_size, got {sorted(conditions)}")
        if isinstance(prior, str) and prior not in PRIORS:
            raise ValueError(f"prior must be one of {sorted(PRIORS)} or a TFP distribution, got {prior!r}")
        self.transforms, self.input_size, self.condition_size = transforms, sizes[0], max(conditions, default=0)
        self.prior_name = prior if isinstance(prior, str) else None
        self.prior = PRIORS[prior](self.input_size) if isinstance(prior, str) else prior
        if tuple(self.prior.event_shape) != (self.input_size,):
            raise ValueError(f"prior must be over ({self.input_size},), got {tuple(self.prior.event_shape)}")
        self.built = True
        data, codes = [tf.TensorSpec((None, size), tf.float32) for size in (self.input_size, self.condition_size)]
        # One graph each for any number of rows: no retracing when that number changes.
        self._graphs = {
            method: tf.function(method, input_signature=[data, codes], autograph=False)
            for method in (self._forward, self._backward, self._log_prob)
        }

    def get_config(self):
        """Return the constructor's arguments; raises a ValueError for a prior that has no name."""
        if self.prior_name is None:
            raise ValueError(f"only flows with a prior named {sorted(PRIORS)} can be saved, got {self.prior}")
        return {
            "transforms": [keras.saving.serialize_keras_object(t) for t in self.transforms],
            "prior": self.prior_name,
        }

    @classmethod
    def from_config(cls, config):
        """Build the flow that get_config describes."""
        return cls([keras.saving.deserialize_keras_object(t) for t in config["transforms"]], config["prior"])

    def call(self, x, condition=None):
        """Return forward's z."""
        return self.forward(x, condition)[0]

    def forward(self, x, condition=None):
        """Map data x (N, D) to code z (N, D); also log|det dz/dx| (N,) in nats."""
        return self._run(self._forward, x, condition, "x")

    def backward(self, z, condition=None):
        """Map code z (N, D) to data x (N, D)."""
        return self._run(self._backward, z, condition, "z")

    def log_prob(self, x, condition=None):
        """Return log p(x | condition) (N,) in nats: log prior(z) + log|det dz/dx|."""
        return self._run(self._log_prob, x, condition, "x")

    def sample(self, num_samples, conditions=None, *, seed=None):
        """Draw points: z from the prior, then backward.

        Args:
            num_samples: how many, for each condition where there are any.
            conditions: (M, C) for a conditional flow.
            seed: an integer for the same points again.

        Returns:
            A tensor (num_samples, D), or (M, num_samples, D).
        """
        _check_size("num_samples", num_samples, 0)
        rows = 1
        if conditions is not None and self.condition_size:
            conditions = _matrix(conditions, self.condition_size, "conditions")
            rows = conditions.shape[0]
            conditions = tf.repeat(conditions, num_samples, axis=0)
        seed = np.random.default_rng(seed).integers(2**31 - 1, size=2)
        z = self.prior.sample(rows * num_samples, seed=tf.constant(seed, tf.int32))
        x = self._run(self._backward, z, conditions, "z")
        return tf.reshape(x, (rows, num_samples, self.input_size)) if self.condition_size else x

    def adapt(self, x, condition=None):
        """Start each transform that has an `adapt` from data (N, D).

        DiagonalScaling's output gets mean 0 and the prior's standard deviation; without it NICE on MNIST spends its
        first epochs on finding scales that the data tell at once.
        """
        h = _matrix(x, self.input_size, "x")
        condition = _check_condition(condition, self.condition_size, h)
        for transform in self.transforms:
            if hasattr(transform, "adapt"):
                transform.adapt(h, self.prior.stddev().numpy())
            h, _ = transform.forward(h, condition if transform.condition_size else None)

    def _run(self, method, values, condition, name):
        values = _matrix(values, self.input_size, name)
        condition = _check_condition(condition, self.condition_size, values)
        # Inside another graph the method itself: a graph called from an XLA loop ran 25 times slower.
        return (self._graphs[method] if tf.executing_eagerly() else method)(values, condition)

    def _forward(self, x, condition, training=False):
        log_det = tf.zeros_like(x[:, 0])
        for transform in self.transforms:
            x, step = transform.forward(x, condition if transform.condition_size else None, training=training)
            log_det += step
        return x, log_det

    def _backward(self, z, condition):
        for transform in reversed(self.transforms):
            z = transform.backward(z, condition if transform.condition_size else None)
        return z

    def _log_prob(self, x, condition):
        z, log_det = self._forward(x, condition)
        return self.prior.log_prob(z) + log_det


def NICE(
    input_size,
    hidden_size=1000,
    hidden_layers=5,
    couplings=4,
    prior="logistic",
    split="odd-even",
    *,
    normalization=None,
    seed=None,
):
    """Build NICE: additive couplings that keep the two parts in turn, then a diagonal scaling.

    The defaults are those of the paper's MNIST model. Source: NICE, sections 3 and 5.1.

    Args:
        input_size: D ≥ 2, odd ones too.
        hidden_size, hidden_layers: of each coupling's ReLU network.
        couplings: ≥ 3 for every column to be able to depend on every other one.
        prior: "logistic" or "gaussian".
        split: "odd-even" or "half".
        normalization: None, "layer" or "batch", inside the networks.
        seed: of the initial weights.

    Returns:
        A Flow; call its `adapt` with data before training, as train_on_images does.
    """
    network = {"hidden_size": hidden_size, "hidden_layers": hidden_layers, "normalization": normalization}
    chain = coupling_chain(AdditiveCoupling, input_size, couplings, split=split, seed=seed, **network)
    return Flow([*chain, DiagonalScaling(input_size)], prior)


def coupling_chain(coupling, input_size, couplings, *, split="odd-even", seed=None, **network):
    """Return a list of couplings that keep the first and the second part in turn (NICE, section 3.2).

    Args:
        coupling: AdditiveCoupling, AffineCoupling or a class made from one of them.
        input_size: D ≥ 2.
        couplings: how many.
        split: "odd-even" or "half".
        seed: of the initial weights.
        network: hidden_size, hidden_layers and normalization of each coupling's `mlp`.
    """
    _check_size("input_size", input_size, 2)
    _check_size("couplings", couplings, 1)
    layers = []
    for i in range(couplings):
        kept, changed = coupling_sizes(input_size, swap=i % 2 == 1)
        network_seed = None if seed is None else [seed, i]
        layer = mlp(kept, coupling.outputs_per_column * changed, seed=network_seed, **network)
        layers.append(coupling(input_size, layer, split=split, swap=i % 2 == 1))
    return layers


def RealNVP(input_size, hidden_size, blocks, condition_size=0, *, seed=None):
    """Build RealNVP as the INN exercise has it: affine couplings with a random rotation after each but the last.

    Each coupling passes on the first half of the columns; its network has two hidden ReLU layers. Source: RealNVP,
    section 3; with a condition, cINN, section 3.1.

    Args:
        input_size: D ≥ 2.
        hidden_size: of the networks' two hidden layers.
        blocks: the number of couplings.
        condition_size: columns C of the condition that every network sees.
        seed: of the initial weights and the rotations.

    Returns:
        A Flow with the Gaussian prior.
    """
    _check_size("input_size", input_size, 2)
    _check_size("blocks", blocks, 1)
    kept, changed = coupling_sizes(input_size)
    layers = []
    for i in range(blocks):
        seeds = [None, None] if seed is None else [[seed, i], 1000 * seed + i]
        if i > 0:
            layers.append(OrthogonalMixing(input_size, seed=seeds[1]))
        network = mlp(kept + condition_size, 2 * changed, hidden_size=hidden_size, hidden_layers=2, seed=seeds[0])
        layers.append(AffineCoupling(input_size, network, split="half", condition_size=condition_size))
    return Flow(layers, "gaussian")


def _conv_network(keeps, block, channels, residual_blocks, seed):
    """Build a residual network from an image's kept pixels to [s, t] of the others; its last layer starts at zero.

    `keeps` (size²,) repeats itself in blocks of block × block pixels: a block's kept pixels are channels of one place.
    """
    take, layers, rng = keras.ops.take, keras.layers, np.random.default_rng(seed)
    side = int(np.sqrt(len(keeps))) // block
    blocks = np.arange(len(keeps)).reshape(side, block, side, block).swapaxes(1, 2).ravel()
    kept, changed = blocks[keeps[blocks]], blocks[~keeps[blocks]]  # pixels, one block after the other
    values = len(changed) // side**2

    def conv(filters, initializer=None):
        initializer = initializer or keras.initializers.HeNormal(seed=int(rng.integers(2**31)))
        return layers.Conv2D(filters, 3, padding="same", kernel_initializer=initializer)

    inputs = keras.Input((len(kept),))
    h = layers.Reshape((side, side, -1))(take(inputs, np.searchsorted(np.flatnonzero(keeps), kept), axis=1))
    h = conv(channels)(h)
    for _ in range(residual_blocks):
        y = conv(channels)(layers.ReLU()(h))
        h = layers.Add()([h, conv(channels, "zeros")(layers.ReLU()(y))])
    h = conv(2 * values, "zeros")(layers.ReLU()(h))
    h = layers.Permute((3, 1, 2, 4))(layers.Reshape((side, side, 2, values))(h))
    h = take(layers.Reshape((2, len(changed)))(h), np.argsort(changed), axis=2)
    return keras.Model(inputs, layers.Reshape((2 * len(changed),))(h))


def ConvRealNVP(size=28, channels=32, couplings=8, residual_blocks=2, *, alpha=1e-3, seed=None):
    """Build RealNVP for square grey images: logit, affine couplings of residual convolutional networks, a scaling.

    Couplings split the pixels as a checkerboard, then by channels after squeezing 2×2 pixels into four channels. Then
    every second row is finished code, and half as many couplings, of twice the channels, do the same with the other
    rows at half the size. Source: RealNVP, sections 3.4 to 3.6 and 4.1, figures 3 and 4. Among what differs: no batch
    or weight normalization, but a last scaling that starts from data; networks see the kept pixels as channels of
    blocks, in place of masked images; the second scale's checkerboard is one of the remaining pixels, and its networks
    see finished code too; and `alpha` is not 0.05.

    Args:
        size: number of pixels in a row, a multiple of 4.
        channels, residual_blocks: of the networks, which have 3×3 kernels.
        couplings: of the first scale, a multiple of 4.
        alpha: of the Logit. A black pixel's noise is 1/256 wide: with 0.05 it stays narrow and each coupling has to
            widen it; a small value spreads it at once.
        seed: of the initial weights.

    Returns:
        A Flow over size² columns with the Gaussian prior. Train it with jit_compile=False: XLA is slow at convolutions.
    """
    for name, value in (("size", size), ("couplings", couplings)):
        _check_size(name, value, 4)
        if value % 4:
            raise ValueError(f"{name} must be a multiple of 4, got {value}")
    row, column = np.divmod(np.arange(size**2), size)
    layers = []
    for scale, number in ((1, couplings), (2, couplings // 2)):
        for i in range(number):
            checkerboard = column if i < number // 2 else 0
            changed = (row % scale == 0) & ((row // scale + checkerboard) % 2 == i % 2)
            network_seed = None if seed is None else [seed, scale, i]
            network = _conv_network(~changed, 2 * scale, scale * channels, residual_blocks, network_seed)
            layers.append(AffineCoupling(size**2, network, split=~changed))
    return Flow([Logit(size**2, alpha=alpha), *layers, DiagonalScaling(size**2)])


# ---- Training --------------------------------------------------------------------------------------------------

# XLA compiles for one to two seconds. Measured on NICE and RealNVP of several widths, on two cores, that was repaid
# after 14,000 to 130,000 samples.
_XLA_PAYS = 30_000


def train_inn(
    flow,
    x,
    condition=None,
    *,
    epochs,
    batch_size,
    learning_rate=1e-3,
    validation=None,
    augment=None,
    extra_loss=None,
    callbacks=(),
    seed=0,
    jit_compile=None,
    verbose=True,
):
    """Fit a flow by maximum likelihood: Adam on the mean negative log-likelihood (NICE, section 2).

    For images see also train_on_images, which sets the scalings and the learning rate.

    A whole epoch runs as one compiled graph, and every batch has the same size: the last one is topped up with
    samples from the epoch's start. So callbacks see epochs (EarlyStopping, ModelCheckpoint, BackupAndRestore,
    ReduceLROnPlateau …), with the logs `loss` and `val_loss`; batch-level hooks are not called.

    Args:
        flow: a Flow; trained in place.
        x: data (N, D); with augment it stays in its own dtype until a batch is formed, so images can be uint8.
        condition: (N, C) for a conditional flow.
        epochs, batch_size: integers ≥ 1.
        learning_rate: a float, a Keras learning-rate schedule (over steps, not epochs), or a function that makes one
            from the number of steps, such as warm_up_cosine(3e-3).
        validation: data (n, D), or a pair (data, condition), to evaluate after each epoch; augmented once, so its noise
            is the same in every epoch.
        augment: function (batch, seed) → float32 batch, called on each batch in the graph, for example `dequantize`;
            seed is a tensor of two int32.
        extra_loss: function (flow, x, z, condition) → scalar, added to the negative log-likelihood.
        seed: of the order of the samples and of augment's noise.
        jit_compile: compile with XLA: faster steps for fully connected networks, one or two seconds more to start. None
            does so where at least 30,000 samples are seen, epochs counted; fewer seldom make up for the start.
        verbose: show one line of progress that updates in place.

    Returns:
        A DataFrame with a row for each epoch: `nats` (mean training log-likelihood), `validation_nats`,
        `extra_loss` where there is one, and `seconds` since the start.

    Raises:
        ValueError: for unusable data, integers without augment among them.
        FloatingPointError: if the loss becomes NaN or infinite; the best weights so far are restored first.
    """
    import pandas as pd

    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        _check_size(name, value, 1)
    x, condition = _training_data(flow, x, condition, augment)
    x_val, condition_val = validation if isinstance(validation, tuple) else (validation, None)
    if validation is not None:
        x_val, condition_val = _training_data(flow, x_val, condition_val, augment)
        x_val = augment(x_val, tf.constant([seed, -1])) if augment else x_val
    count, batch_size = len(x), min(batch_size, len(x))
    steps = -(-count // batch_size)
    if callable(learning_rate) and not isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        learning_rate = learning_rate(epochs * steps)
    jit_compile = epochs * count >= _XLA_PAYS if jit_compile is None else jit_compile
    flow.compile(optimizer=keras.optimizers.Adam(learning_rate))
    flow.optimizer.build(flow.trainable_variables)

    def step(batch, c, step_seed):
        batch = augment(batch, step_seed) if augment else batch
        with tf.GradientTape() as tape:
            z, log_det = flow._forward(batch, c, training=True)
            nats = tf.reduce_mean(flow.prior.log_prob(z) + log_det)
            extra = extra_loss(flow, batch, z, c) if extra_loss else tf.constant(0.0)
            loss = extra - nats
        weights = flow.trainable_variables
        gradients = tape.gradient(loss, [w.value for w in weights], unconnected_gradients="zero")
        _apply_adam(flow.optimizer, weights, gradients)
        return tf.stack([nats, extra])

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run_epoch(x, condition, order, epoch):
        def one_more(i, total):
            batch, c = tf.gather(x, order[i]), tf.gather(condition, order[i])
            return i + 1, total + step(batch, c, tf.stack([epoch * 9973 + seed, i]))

        return tf.while_loop(lambda i, _: i < steps, one_more, (0, tf.zeros(2)))[1] / steps

    callbacks = keras.callbacks.CallbackList(list(callbacks), model=flow)
    flow.stop_training = False
    show, records, started = _progress_line() if verbose else None, [], time.perf_counter()
    callbacks.on_train_begin()
    # There BackupAndRestore has loaded its weights and said with which epoch to go on, this time only.
    first, flow._initial_epoch = getattr(flow, "_initial_epoch", None) or 0, None
    best, best_nats, best_epoch = flow.get_weights(), -np.inf, first
    for epoch in range(first, epochs):
        callbacks.on_epoch_begin(epoch)
        order = np.random.default_rng([seed, epoch]).permutation(count)
        order = np.resize(order, (steps, batch_size)).astype(np.int32)  # repeats from the start to fill the last row
        nats, extra = run_epoch(x, condition, tf.constant(order), tf.constant(epoch)).numpy().tolist()
        record, logs = {"epoch": epoch + 1, "nats": nats}, {"loss": extra - nats}
        if validation is not None:
            record["validation_nats"] = float(tf.reduce_mean(flow.log_prob(x_val, condition_val)))
            logs["val_loss"] = -record["validation_nats"]
        if extra_loss:
            record["extra_loss"] = extra
        records.append({**record, "seconds": time.perf_counter() - started})
        if not np.isfinite(list(logs.values())).all():
            flow.set_weights(best)
            raise FloatingPointError(
                f"{', '.join(f'{name} became {value:.4g}' for name, value in logs.items())} in epoch {epoch + 1}; "
                f"the weights of epoch {best_epoch} are restored. Try a smaller learning_rate, flow.adapt(x) first, "
                "or bounded scales."
            )
        if record.get("validation_nats", nats) > best_nats:
            best, best_nats, best_epoch = flow.get_weights(), record.get("validation_nats", nats), epoch + 1
        callbacks.on_epoch_end(epoch, logs)
        last = flow.stop_training or epoch + 1 == epochs
        if show:
            show(_epoch_line(records[-1], first, epochs, last), last)
        if last:
            break
    callbacks.on_train_end()
    return pd.DataFrame(records).set_index("epoch") if records else pd.DataFrame(columns=["nats", "seconds"])


def _apply_adam(adam, weights, gradients):
    """Take the step of Keras' Adam by one fused operation for each weight.

    With Keras' own 15 operations, a small flow takes a second longer to compile.
    """
    step = tf.cast(adam.iterations + 1, tf.float32)
    settings = {"lr": adam.learning_rate, "beta1": adam.beta_1, "beta2": adam.beta_2, "epsilon": adam.epsilon}
    settings |= {"beta1_power": adam.beta_1**step, "beta2_power": adam.beta_2**step}
    settings = {name: tf.convert_to_tensor(value, tf.float32) for name, value in settings.items()}
    for w, m, v, gradient in zip(weights, adam._momentums, adam._velocities, gradients, strict=True):
        handles = {"var": w.value.handle, "m": m.value.handle, "v": v.value.handle}
        tf.raw_ops.ResourceApplyAdam(**handles, **settings, grad=gradient)
    adam.iterations.assign_add(1)


def warm_up_cosine(peak):
    """Return, for train_inn's learning_rate, a rate that rises from 0 to `peak` in 5 % of the steps, then falls to 0.

    It falls along half a cosine (Loshchilov and Hutter: SGDR, 2017, arXiv:1608.03983, equation 5, without restarts).
    """

    def schedule(steps):
        warm_up = steps // 20
        decay = steps - warm_up
        return keras.optimizers.schedules.CosineDecay(0.0, decay, warmup_target=peak, warmup_steps=warm_up)

    return schedule


def train_on_images(flow, pixels, *, epochs, batch_size=512, peak=3e-3, augment=dequantize, seed=0, **options):
    """Start a flow's scalings from 5,000 images, then train it with fresh noise in every epoch and warm_up_cosine.

    Args:
        flow: an unconditional Flow; trained in place. A second call sets the scalings again: train on by train_inn.
        pixels: images (N, D) of whole numbers.
        epochs, batch_size, augment, seed: as in train_inn, which has other defaults.
        peak: of the learning rate.
        options: more of train_inn's, but for condition and learning_rate.

    Returns:
        train_inn's history.
    """
    flow.adapt(augment(pixels[:5000], tf.constant([seed, 0])))
    options |= {"epochs": epochs, "batch_size": batch_size, "augment": augment, "seed": seed}
    return train_inn(flow, pixels, learning_rate=warm_up_cosine(peak), **options)


def keep_first(z, k):
    """Return the codes z (N, D) with all but the first k dimensions set to zero."""
    if not 1 <= k <= z.shape[1]:
        raise ValueError(f"k must lie in 1…{z.shape[1]}, got {k!r}")
    return tf.concat([z[:, :k], tf.zeros_like(z[:, k:])], axis=1)


def reconstruct(flow, x, k, condition=None):
    """Return the data (N, D) that the first k code dimensions of x (N, D) decode to."""
    return flow.backward(keep_first(flow.forward(x, condition)[0], k), condition)


def reconstruction_loss(k, weight):
    """Return an extra_loss for train_inn: weight times the mean of ‖reconstruct(x) − x‖² over the batch."""

    def loss(flow, x, z, condition):
        decoded = flow.backward(keep_first(z, k), condition)
        return weight * tf.reduce_mean(tf.reduce_sum((decoded - x) ** 2, axis=1))

    return loss


def _training_data(flow, x, condition, augment):
    """Return x and its condition as checked tensors; x keeps its dtype where `augment` takes care of it."""
    x = x if tf.is_tensor(x) else np.asarray(x)
    checked = _matrix(x, flow.input_size, "x")
    if len(x) == 0:
        raise ValueError("x must have at least one sample, got 0")
    if not augment and not np.issubdtype(x.dtype if isinstance(x, np.ndarray) else x.dtype.as_numpy_dtype, np.floating):
        raise ValueError(f"x must be of a floating dtype, got {x.dtype}: discrete values need augment=dequantize")
    condition = _check_condition(condition, flow.condition_size, checked)
    return tf.convert_to_tensor(x) if augment else checked, condition


def _progress_line():
    """Return show(line, last), which keeps one line of a notebook or a terminal up to date."""
    from IPython import get_ipython
    from IPython.display import display

    notebook = getattr(get_ipython(), "kernel", None) is not None
    handle, shown = None, 0.0

    def show(line, last):
        nonlocal handle, shown
        if not last and time.perf_counter() - shown < 0.5:
            return
        shown = time.perf_counter()
        data = {"text/plain": line}
        if notebook and handle:
            handle.update(data, raw=True)
        elif notebook:
            handle = display(data, raw=True, display_id=True)
        elif sys.stdout.isatty():
            print(f"\r{line:<100}", end="\n" if last else "", flush=True)

    return show


def _epoch_line(record, first, epochs, last):
    line = f"epoch {record['epoch']}/{epochs} · train {record['nats']:.4g} nats"
    if "validation_nats" in record:
        line += f" · validation {record['validation_nats']:.4g} nats"
    left = record["seconds"] / (record["epoch"] - first) * (epochs - record["epoch"])
    return line + (f" · {record['seconds']:.0f} s" if last else f" · {left:.0f} s left")


# ---- Checks, evaluation and inpainting -------------------------------------------------------------------------


def check_flow(flow, x, condition=None, *, tolerance=1e-3):
    """Check each transform, then the whole flow: both round trips, and the log-determinant against autodiff.

    Args:
        x: samples (N, D); the first eight are checked.
        condition: (N, C) for a conditional flow.
        tolerance: for every error, relative to 1 + the largest value compared.

    Returns:
        A DataFrame with a row for each transform and one for the flow: `round_trip_x` max|backward(forward(x)) − x|,
        `round_trip_z` max|forward(backward(z)) − z|, `log_det_error` max|log_det − log|det J|| in nats.

    Raises:
        AssertionError: names the first transform that fails, and how.
    """
    import pandas as pd

    x = _matrix(x, flow.input_size, "x")
    condition = _check_condition(condition, flow.condition_size, x)[:8]
    h = x = x[:8]
    owners, rows = {}, {}
    for i, transform in enumerate(flow.transforms):
        name = f"{i} {type(transform).__name__}"
        for variable in transform.variables:
            if owners.setdefault(id(variable), name) != name:
                raise AssertionError(f"{name} shares the weight {variable.path} with {owners[id(variable)]}")
        rows[name] = _check_transform(transform, h, condition if transform.condition_size else None, name, tolerance)
        h, _ = transform.forward(h, condition if transform.condition_size else None)
    rows["whole flow"] = _check_transform(flow, x, condition, "whole flow", tolerance)
    return pd.DataFrame.from_dict(rows, orient="index")


def _check_transform(transform, x, condition, name, tolerance):
    z, log_det = transform.forward(x, condition)
    # One copy of a sample for each row of its Jacobian: a single backward pass gives them all.
    (rows, columns), repeat = x.shape, lambda v: None if v is None else tf.repeat(v, x.shape[1], axis=0)
    with tf.GradientTape() as tape:
        copies = repeat(x)
        tape.watch(copies)
        codes, _ = transform.forward(copies, repeat(condition))
    jacobian = tape.gradient(codes, copies, output_gradients=tf.tile(tf.eye(columns), (rows, 1)))
    autodiff = np.linalg.slogdet(jacobian.numpy().reshape(rows, columns, columns).astype(np.float64))[1]
    x_back = transform.backward(z, condition)
    # Codes beside those of data: a map can be inverse to itself on the data and nowhere else.
    other = z + tf.random.stateless_normal(z.shape, (1, 2)) * tf.math.reduce_std(z) * 0.1
    z_back, _ = transform.forward(transform.backward(other, condition), condition)
    log_det = np.asarray(log_det)
    if log_det.shape != autodiff.shape:
        raise AssertionError(f"{name}: log_det must have shape {autodiff.shape}, got {log_det.shape}")
    pairs = {"round_trip_x": (x_back, x), "round_trip_z": (z_back, other), "log_det_error": (log_det, autodiff)}
    errors = {}
    for key, (received, expected) in pairs.items():
        received, expected = np.asarray(received, np.float64), np.asarray(expected, np.float64)
        errors[key] = np.abs(received - expected).max()
        allowed = tolerance * (1 + np.abs(expected).max())
        if not errors[key] <= allowed:
            raise AssertionError(f"{name}: {key} is {errors[key]:.3g}, more than {allowed:.3g}")
    return errors


def pixel_log_prob(flow, pixels, seed=0):
    """Return log p (N,) in nats of pixels 0 … 255 (N, D), dequantized once; 500 at a time, to spare memory."""
    starts = range(0, len(pixels), 500)
    return np.concatenate([flow.log_prob(dequantize(pixels[i : i + 500], (seed, i))) for i in starts])


class Estimate(NamedTuple):
    """A Monte Carlo estimate and its standard error."""

    value: float
    standard_error: float


def kl_divergence(truth, flow, *, condition=None, num_samples=20_000, seed=0):
    """Estimate KL(truth ‖ flow) = E[log p_true(x) − log p_flow(x)] in nats over samples of the truth.

    Args:
        truth: a TFP distribution over (D,), for example from toy_distribution.
        flow: a Flow, or another TFP distribution.
        condition: one row (C,) for a conditional flow.

    Returns:
        Estimate(value, standard_error).
    """
    x = truth.sample(num_samples, seed=tf.constant([seed, 1]))
    if condition is not None:
        condition = np.tile(np.asarray(condition, np.float32), (num_samples, 1))
    model = flow.log_prob(x) if condition is None else flow.log_prob(x, condition)
    difference = (truth.log_prob(x) - model).numpy().astype(np.float64)
    return Estimate(float(difference.mean()), float(difference.std() / np.sqrt(num_samples)))


def median_bandwidths(x):
    """Return kernel bandwidths for `mmd`: the median distance of x (N, D), first 2,000 points, times ¼, ½, 1, 2."""
    from scipy.spatial.distance import pdist

    return np.median(pdist(np.asarray(x, np.float64)[:2000])) * np.array([0.25, 0.5, 1.0, 2.0])


def _kernel(x, y, bandwidths):
    from scipy.spatial.distance import cdist

    squared = cdist(np.asarray(x, np.float64), np.asarray(y, np.float64), "sqeuclidean").astype(np.float32)
    # The exponentials in float32 take a fifth of the time; their sums must be in float64.
    return sum(np.exp(squared * np.float32(-0.5 / b**2)) for b in bandwidths) / np.float32(len(bandwidths))


def _mmd2(k_xx, k_yy, k_xy):
    n, m = k_xy.shape
    off_diagonal = [k.sum(dtype=float) - len(k) for k in (k_xx, k_yy)]  # a point beside itself would bias the means
    return float(off_diagonal[0] / (n * (n - 1)) + off_diagonal[1] / (m * (m - 1)) - 2 * k_xy.mean(dtype=float))


def mmd(x, y, *, bandwidths):
    """Estimate the squared maximum mean discrepancy of two samples without bias; it can be slightly negative.

    The kernel is the mean over the bandwidths b of exp(−‖x − y‖² / 2b²). Source: Gretton et al.: A Kernel
    Two-Sample Test, 2012, JMLR 13, Lemma 6.

    Args:
        x: sample (N, D), N ≥ 2.
        y: sample (M, D), M ≥ 2.
        bandwidths: in the units of the data; take median_bandwidths(real data), the same for all that is compared.
    """
    x, y = _matrix(x, np.shape(x)[-1], "x"), _matrix(y, np.shape(x)[-1], "y")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"x and y must have at least 2 samples each, got {len(x)} and {len(y)}")
    return _mmd2(*(_kernel(a, b, bandwidths) for a, b in ((x, x), (y, y), (x, y))))


class Floor(NamedTuple):
    """What a perfect model would get: mean and 95 % quantile of a score, real against real."""

    mean: float
    quantile95: float


def mmd_floor(real, num_samples, *, bandwidths, splits=200, seed=0):
    """Return the Floor of `mmd` of disjoint parts of `num_samples` each, over random splits of real (N, D).

    Of `real` the first 4 × num_samples are used.
    """
    if len(real) < 2 * num_samples:
        raise ValueError(f"real must have at least 2 × {num_samples} samples, got {len(real)}")
    rng = np.random.default_rng(seed)
    kernel = _kernel(real[: 4 * num_samples], real[: 4 * num_samples], bandwidths)
    members = np.zeros((2, splits, len(kernel)), np.float32)
    for first, second in zip(*members, strict=True):
        order = rng.permutation(len(kernel))
        first[order[:num_samples]] = second[order[num_samples : 2 * num_samples]] = 1
    products = members @ kernel  # one product of matrices in place of a look-up for each split
    within = (products * members).sum((0, 2), dtype=float) - 2 * num_samples  # without the diagonal of ones
    between = (products[0] * members[1]).sum(1, dtype=float)
    values = within / (num_samples * (num_samples - 1)) - 2 * between / num_samples**2
    return Floor(float(np.mean(values)), float(np.quantile(values, 0.95)))


def quality_card(real, generated, forest, *, seed=0):
    """Score generated samples against real ones (N, D) of the same kind, unseen in training.

    Args:
        generated: a dict of each model's name and its samples (M, D), in random order.
        forest: a scikit-learn classifier trained on real samples and their labels.

    Returns:
        A DataFrame with a row for each model: `mmd2` and its `mmd2_floor95`; `c2st_accuracy`, that of a random forest
        that tells real from generated in 5-fold cross-validation, 0.5 if it can't (Lopez-Paz and Oquab 2017,
        arXiv:1610.06545); `confidence`, the classifier's mean largest probability. MMD² and c2st compare equally
        many of each, at most 1,000 and half of the real ones.
    """
    import pandas as pd
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_score

    n = min(len(real) // 2, *(len(samples) for samples in generated.values()), 1000)
    bandwidths, rows = median_bandwidths(real), {}
    floor = mmd_floor(real, n, bandwidths=bandwidths, seed=seed).quantile95
    for name, samples in generated.items():
        pair = np.concatenate([real[:n], samples[:n]])
        judge = RandomForestClassifier(random_state=seed, n_jobs=-1)
        rows[name] = {
            "mmd2": mmd(samples[:n], real[:n], bandwidths=bandwidths),
            "mmd2_floor95": floor,
            "c2st_accuracy": cross_val_score(judge, pair, np.repeat([0, 1], n), cv=5).mean(),
            "confidence": forest.predict_proba(samples).max(1).mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def code_report(flow, x, condition=None, *, projections=100, seed=0):
    """Test whether the code of data (N, D) is standard normal: four statistics, each with its limit.

    Returns:
        A DataFrame with the rows `mean` (largest |mean| of a dimension), `deviation` (largest |σ − 1| of a dimension),
        `radius` (Kolmogorov–Smirnov distance of ‖z‖ from χ with D degrees of freedom) and `projection` (largest such
        distance from N(0, 1) over random directions), and the columns `value`, `limit` (exceeded with 5 % probability
        by a normal code, or less) and `normal`.
    """
    import pandas as pd
    from scipy import stats

    if flow.prior_name != "gaussian":
        raise ValueError(f"flow must have a Gaussian prior, got {flow.prior_name or flow.prior}")
    z = flow.forward(x, condition)[0].numpy().astype(np.float64)
    count, dimensions = z.shape
    directions = np.random.default_rng(seed).standard_normal((dimensions, projections))
    projected = z @ (directions / np.linalg.norm(directions, axis=0))
    normal = stats.norm.ppf(1 - 0.025 / dimensions) / np.sqrt(count)  # Bonferroni's bound over the dimensions
    radius = stats.kstest(np.linalg.norm(z, axis=1), stats.chi(dimensions).cdf).statistic
    worst = max(stats.kstest(column, stats.norm.cdf).statistic for column in projected.T)
    rows = {
        "mean": (np.abs(z.mean(0)).max(), normal),
        "deviation": (np.abs(z.std(0) - 1).max(), normal / np.sqrt(2)),
        "radius": (radius, stats.kstwo.ppf(0.95, count)),
        "projection": (worst, stats.kstwo.ppf(1 - 0.05 / projections, count)),
    }
    report = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "limit"])
    return report.assign(normal=report["value"] <= report["limit"])


def _run_setting(function, setting):
    """Call function(**setting) in a worker; as part of this module it lets TensorFlow start quietly there too."""
    return function(**setting)


def run_grid(function, settings, *, jobs=None):
    """Call function(**setting) for each setting; return a DataFrame of settings and results.

    Runs with joblib, so also in parallel: inside `joblib.parallel_config(backend="dask")` the same call uses a Dask
    cluster.

    Args:
        function: returns a dict of numbers; must not depend on objects that can't be pickled.
        settings: dicts of keyword arguments, for example sklearn's ParameterGrid.
        jobs: processes at a time; None for one, or for what joblib.parallel_config says.
    """
    import joblib
    import pandas as pd

    settings, started, show = list(settings), time.perf_counter(), _progress_line()

    class Parallel(joblib.Parallel):
        def print_progress(self):  # joblib calls it after each task, whatever the backend
            done = self.n_completed_tasks
            show(f"{done} of {len(settings)} runs · {time.perf_counter() - started:.0f} s", done == len(settings))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A worker stopped")  # loky replaces workers that TensorFlow has made large
        results = Parallel(n_jobs=jobs)(joblib.delayed(_run_setting)(function, setting) for setting in settings)
    return pd.DataFrame([setting | result for setting, result in zip(settings, results, strict=True)])


class Inpainted(NamedTuple):
    """Restored data x (N, D), and log p(x) in nats before each step and after the last, (steps + 1, N)."""

    x: np.ndarray
    log_prob: np.ndarray


def inpaint(
    flow,
    x,
    known,
    start,
    *,
    condition=None,
    steps=100,
    optimizer=None,
    noise=0.0,
    space="logit",
    seed=0,
    jit_compile=None,
):
    """Move unknown values uphill on the log-likelihood; known ones stay bit-identical (NICE, section 5.2).

    All samples climb together in one compiled loop. To restart from several noises, pass x and start repeated.

    Args:
        x: data (N, D); unknown values are ignored, but must be finite.
        known: bool (D,) or (N, D), True for a value to keep.
        start: (D,) or (N, D), the unknown values to start from, for example the mean of the training data.
        condition: (N, C) for a conditional flow.
        steps: how many.
        optimizer: a Keras optimizer; the default is Adam with a rate of 0.2.
        noise: standard deviation of normal noise added to each gradient; the paper has 1.
        space: "logit" climbs in u with x = sigmoid(u), so x stays within (0, 1) and moves in small steps near the ends;
            "clip" climbs in x and projects back to [0, 1], as the paper does; "real" climbs in x without bounds.
        seed: of that noise.
        jit_compile: as in train_inn; the samples of all steps count. XLA is slower for convolutions.

    Returns:
        Inpainted(x, log_prob).

    Raises:
        ValueError: for a mask of another dtype or shape, an unknown space, or a start outside [0, 1] unless "real".
        FloatingPointError: if a log-likelihood becomes NaN or infinite.
    """
    x, known, start = _matrix(x, flow.input_size, "x"), np.asarray(known), np.asarray(start)
    for name, value in (("known", known), ("start", start)):
        if value.shape not in ((flow.input_size,), tuple(x.shape)):
            raise ValueError(f"{name} must have shape ({flow.input_size},) or {tuple(x.shape)}, got {value.shape}")
    if known.dtype != bool:
        raise ValueError(f"known must be of dtype bool, got {known.dtype}")
    if space not in ("logit", "clip", "real"):
        raise ValueError(f'space must be "logit", "clip" or "real", got {space!r}')
    known, start = tf.constant(np.broadcast_to(known, x.shape)), tf.broadcast_to(tf.cast(start, tf.float32), x.shape)
    if space != "real" and not (0 <= tf.reduce_min(start) and tf.reduce_max(start) <= 1):
        raise ValueError(f'start must lie in [0, 1] for space="{space}", got values outside')
    if space == "logit":
        inner = tf.clip_by_value(start, 1e-3, 1 - 1e-3)
        start = tf.math.log(inner) - tf.math.log1p(-inner)
    condition = _check_condition(condition, flow.condition_size, x)
    jit_compile = steps * len(x) >= _XLA_PAYS if jit_compile is None else jit_compile
    optimizer = optimizer or keras.optimizers.Adam(0.2)
    free = keras.Variable(start)
    optimizer.build([free])

    def restored(value):
        return tf.where(known, x, tf.sigmoid(value) if space == "logit" else value)

    def step(i, path):
        value = free.value
        with tf.GradientTape() as tape:
            tape.watch(value)
            nats = flow.log_prob(restored(value), condition)
        uphill = tape.gradient(nats, value)  # zero where the value is known
        if noise:
            drawn = tf.random.stateless_normal(x.shape, tf.stack([seed, i]), stddev=noise, alg="philox")
            uphill += tf.where(known, 0.0, drawn)
        optimizer.apply([-uphill], [free])
        if space == "clip":
            free.assign(tf.clip_by_value(free.value, 0.0, 1.0))
        return i + 1, path.write(i, nats)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def climb():
        path = tf.TensorArray(tf.float32, steps + 1, element_shape=x.shape[:1])
        _, path = tf.while_loop(lambda i, _: i < steps, step, (0, path))
        result = restored(free.value)
        return result, path.write(steps, flow.log_prob(result, condition)).stack()

    result, log_prob = (tensor.numpy() for tensor in climb())
    if not np.isfinite(log_prob).all():
        raise FloatingPointError("the log-likelihood became NaN or infinite; try an optimizer with a smaller rate")
    return Inpainted(result, log_prob)


# ---- Figures and results ---------------------------------------------------------------------------------------

# Okabe and Ito's, colour-blind-safe.
BLUE, ORANGE, GREEN, PINK, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#666666"


def set_style():
    """Set Matplotlib's defaults for all notebooks: readable at 100 % in the exported page."""
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, PINK, GREY]),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "image.cmap": "viridis",
            "legend.frameon": False,
        }
    )


def show(figure, alt):
    """Display a figure with a description for readers who can't see it, and close it."""
    import matplotlib.pyplot as plt
    from IPython.display import display

    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def plot_points(ax, x, title=None, *, color=BLUE, limits=None):
    """Scatter points (N, 2); limits are (left, right, bottom, top). Returns ax."""
    x = np.asarray(x)
    ax.scatter(x[:, 0], x[:, 1], s=3, alpha=0.4, color=color, linewidths=0, rasterized=True)
    ax.set(xlabel="$x_1$", ylabel="$x_2$", title=title, aspect="equal")
    if limits:
        ax.axis(limits)
    return ax


def plot_density(ax, log_prob, limits, title=None, *, points=200, vmax=None):
    """Show exp(log_prob) on a grid over limits (left, right, bottom, top) as an image. Returns ax."""
    grid = np.meshgrid(np.linspace(*limits[:2], points), np.linspace(*limits[2:], points))
    density = np.exp(np.asarray(log_prob(np.stack(grid, -1).reshape(-1, 2).astype(np.float32)))).reshape(points, points)
    ax.imshow(density, extent=limits, origin="lower", vmin=0, vmax=vmax, aspect="equal")
    ax.set(xlabel="$x_1$", ylabel="$x_2$", title=title)
    return ax


def plot_images(ax, images, title=None, *, columns=10):
    """Show images (N, size²) with values in [0, 1] side by side, always on the scale black 0 to white 1. Returns ax."""
    images = np.clip(np.asarray(images, np.float32), 0, 1)
    size, rows = int(np.sqrt(images.shape[1])), -(-len(images) // columns)
    canvas = np.ones((rows * columns, size + 1, size + 1))
    canvas[: len(images), :size, :size] = images.reshape(-1, size, size)
    canvas = canvas.reshape(rows, columns, size + 1, size + 1).swapaxes(1, 2).reshape(rows * (size + 1), -1)
    ax.imshow(canvas[:-1, :-1], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title)
    ax.axis("off")
    return ax


def plot_history(ax, history, label=None, *, color=BLUE):
    """Plot train_inn's training nats, dashed, and validation nats, solid, over epochs. Returns ax."""
    suffix = f" {label}" if label else ""
    ax.plot(history.index, history["nats"], "--", color=color, label=f"train{suffix}")
    if "validation_nats" in history:
        ax.plot(history.index, history["validation_nats"], color=color, label=f"validation{suffix}")
    ax.set(xlabel="epoch", ylabel="log-likelihood (nats)")
    ax.xaxis.get_major_locator().set_params(integer=True)
    return ax


def save_results(notebook, *, profile, **numbers):
    """Write build/results/<notebook>.json: numbers, profile, versions, machine, date, and seconds since the import.

    The profiles "full" and "paper" add `_<profile>` to the file's name. Numbers of the profile "smoke" mean nothing;
    they go to build/smoke/.

    Args:
        notebook: the file's name without its ending.
        numbers: strings or finite numbers; `data_source` where data were loaded.

    Raises:
        ValueError: for a value that JSON can't hold, NaN among them, named by its key.
    """
    record = {"notebook": notebook, "profile": profile}
    for key, value in numbers.items():
        value = value.item() if hasattr(value, "item") else value
        if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not np.isfinite(value)):
            raise ValueError(f"{key} must be a string or a finite number, got {value!r}")
        record[key] = value
    modules = {"tensorflow": tf, "keras": keras, "tensorflow_probability": tfp, "numpy": np}
    record |= {f"version_{name}": module.__version__ for name, module in modules.items()}
    record |= {"version_python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    record["date"] = time.strftime("%Y-%m-%d")
    record["seconds"] = round(time.perf_counter() - _STARTED, 1)
    folder = HERE / "build" / ("smoke" if profile == "smoke" else "results")
    folder.mkdir(parents=True, exist_ok=True)
    name = notebook if profile in ("default", "smoke") else f"{notebook}_{profile}"
    _write_whole(folder / f"{name}.json", lambda f: f.write(json.dumps(record, indent=1).encode() + b"\n"))
