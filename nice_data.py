"""The notebooks' data: MNIST and Fashion-MNIST, and toy sets whose true densities are known."""

from pathlib import Path
from typing import NamedTuple

import nice_backend  # noqa: F401  first, so that TensorFlow starts quietly

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions
FOLDER = Path(__file__).resolve().parent / "data"


class Images(NamedTuple):
    """Images as rows of pixels: x (N, size²) and labels y (N,), all uint8."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load_images(name, size=28):
    """Load all of MNIST or Fashion-MNIST: from data/ beside this file, else through keras.datasets.

    Args:
        name: "mnist" or "fashion_mnist".
        size: 28, or 8 for images scaled to 10×10 with a Lanczos filter and cropped by one pixel at each border.

    Returns:
        Images, with x_train (60,000, size²) and x_test (10,000, size²).

    Raises:
        ValueError: for an unknown name or size.
        OSError: where the file is not in data/ and can't be downloaded.
    """
    if name not in ("mnist", "fashion_mnist"):
        raise ValueError(f'name must be "mnist" or "fashion_mnist", got {name!r}')
    if size not in (28, 8):
        raise ValueError(f"size must be 28 or 8, got {size!r}")
    path = FOLDER / f"{name}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[key] for key in Images._fields]
    else:
        try:
            train, test = getattr(keras.datasets, name).load_data()
            arrays = [*train, *test]
        except Exception as error:  # Keras wraps what urllib raises in a bare Exception
            raise OSError(
                f"{name} is neither in {path} nor to be downloaded by keras.datasets.{name}.load_data() "
                f"({' '.join(str(error).split())}). Copy the file there, or connect to the network."
            ) from error
    x_train, y_train, x_test, y_test = arrays
    if size == 8:
        x_train, x_test = _to_8x8(x_train), _to_8x8(x_test)
    return Images(x_train.reshape(len(x_train), -1), y_train, x_test.reshape(len(x_test), -1), y_test)


def _to_8x8(images):
    """Scale (N, 28, 28) to (N, 8, 8) as the INN exercise does: Lanczos to 10×10, then crop the border."""
    from PIL import Image

    small = [np.asarray(Image.fromarray(image).resize((10, 10), Image.Resampling.LANCZOS)) for image in images]
    return np.stack(small)[:, 1:-1, 1:-1]


# ---- Toy sets --------------------------------------------------------------------------------------------------


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


def toy_distribution(name, label=None, *, noise=0.1):
    """Return the density that a toy set's points are drawn from, as a TFP distribution over (2,).

    Args:
        name: "parabola" (make_parabola), "moons" (sklearn's make_moons) or "hexagon" (make_hexagon).
        label: a label, or several, to get p(x | label): 0 or 1 for the moons, 0…5 for the hexagon's corners.
        noise: the generator's noise; for the moons at least 0.05.

    Raises:
        ValueError: for an unknown name or label, or too little noise.
    """
    centres = {"parabola": None, "moons": _moon_nodes(), "hexagon": _hexagon_corners()[:, None]}
    if name not in centres:
        raise ValueError(f"name must be one of {sorted(centres)}, got {name!r}")
    least = 0.05 if name == "moons" else 1e-6
    if not noise >= least:
        raise ValueError(f"noise must be at least {least} for {name}, got {noise!r}")
    if name == "parabola":
        if label is not None:
            raise ValueError(f"the parabola has no labels, got label={label!r}")
        # A coupling maps independent normal (u, v) to (u, u² + v): the parabola is itself a NICE flow.
        bend = tfp.bijectors.RealNVP(num_masked=1, shift_and_log_scale_fn=lambda u, *_, **__: (u**2, None))
        return tfd.TransformedDistribution(tfd.MultivariateNormalDiag([0.0, 0.0], [1.0, noise]), bend)
    groups = centres[name]
    chosen = np.arange(len(groups)) if label is None else np.atleast_1d(label)
    if chosen.dtype.kind not in "iu" or not len(chosen) or not np.isin(chosen, np.arange(len(groups))).all():
        raise ValueError(f"label must lie in 0…{len(groups) - 1} for {name}, got {label!r}")
    means = groups[chosen].reshape(-1, 2).astype(np.float32)
    weights = np.tile(_ARC_WEIGHTS, len(chosen)) if name == "moons" else np.ones(len(chosen))
    return tfd.MixtureSameFamily(
        tfd.Categorical(probs=(weights / weights.sum()).astype(np.float32)),
        tfd.MultivariateNormalDiag(means, tf.fill(means.shape, np.float32(noise))),
    )


# The integral along an arc (angle uniform on [0, π]) is a Gauss-Legendre sum: with 128 nodes, whose spacing is at most
# four tenths of the default noise, it is exact in float32.
_ARC_NODES, _ARC_WEIGHTS = np.polynomial.legendre.leggauss(128)


def _moon_nodes():
    """Return nodes (2, 128, 2) along the arcs of sklearn's make_moons, the upper one first."""
    t = (_ARC_NODES + 1) * np.pi / 2
    return np.stack([np.stack([np.cos(t), np.sin(t)], 1), np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1)])
