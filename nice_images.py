"""Flows on images: training from pixels, a convolutional RealNVP, inpainting, and a Gaussian to compare with."""

from typing import NamedTuple

import nice_backend
import nice_helpers as nh

import keras
import numpy as np
import tensorflow as tf
from scipy import stats


def train_on_images(flow, pixels, *, epochs, batch_size=512, peak=3e-3, augment=nh.dequantize, seed=0, **options):
    """Start a flow's scalings from 5,000 images, then train it with fresh noise in every epoch and warm_up_cosine.

    Args:
        flow: an unconditional Flow; trained in place. A second call sets the scalings again: train on by train_inn.
        pixels: images (N, D) of whole numbers; the first 5,000 should be a fair sample.
        epochs, batch_size, augment, seed: as in train_inn, which has other defaults.
        peak: of the learning rate.
        options: more of train_inn's, but for condition and learning_rate.

    Returns:
        train_inn's history.
    """
    flow.adapt(augment(pixels[:5000], tf.constant([seed, 0])))
    options |= {"epochs": epochs, "batch_size": batch_size, "augment": augment, "seed": seed}
    return nh.train_inn(flow, pixels, learning_rate=nh.warm_up_cosine(peak), **options)


def fit_gaussian(x, levels=256):
    """Return the normal distribution with the mean and covariance of dequantized pixels, a baseline for flows.

    The noise of `dequantize` moves each mean by half a grey level and adds 1/12 of a squared grey level to each
    variance, so no covariance is singular.

    Args:
        x: pixels 0 … levels − 1, (N, D) with N ≥ 2.
        levels: as in dequantize.

    Returns:
        SciPy's multivariate normal on the scale of [0, 1]^D, float64; `logpdf` gives nats, `mean`, `cov` the moments.
    """
    x = np.asarray(x, float)
    covariance = (np.cov(x.T) + np.eye(x.shape[1]) / 12) / levels**2
    factor = stats.Covariance.from_cholesky(np.linalg.cholesky(covariance))  # SciPy's own takes eigenvectors: slower
    return stats.multivariate_normal((x.mean(0) + 0.5) / levels, factor)


def pixel_log_prob(flow, pixels, seed=0):
    """Return log p (N,) in nats of pixels 0 … 255 (N, D), dequantized once; 500 at a time, to spare memory."""
    starts = range(0, max(len(pixels), 1), 500)
    return np.concatenate([flow.log_prob(nh.dequantize(pixels[i : i + 500], (seed, i))) for i in starts])


# ---- A convolutional flow --------------------------------------------------------------------------------------


def _conv_network(keeps, block, channels, residual_blocks, dense, seed, shortcut=True):
    """Build a residual network from an image's kept pixels to [s, t] of the others; its last layer starts at zero.

    `keeps` (size²,) repeats itself in blocks of block × block pixels: a block's kept pixels are channels of one place.
    A checkerboard on 28×28 pixels, in blocks of 2×2, gives 14×14 places with two channels in and two times two out; on
    4×4 pixels `blocks` is 0 1 4 5, 2 3 6 7 …, `kept` 0 5, 2 7 …, and `places`, counted among the kept, 0 2, 1 3 ….
    """
    layers, rng = keras.layers, np.random.default_rng(seed)
    side = int(np.sqrt(len(keeps))) // block
    blocks = np.arange(len(keeps)).reshape(side, block, side, block).swapaxes(1, 2).ravel()
    kept, changed = blocks[keeps[blocks]], blocks[~keeps[blocks]]  # pixels, one block after the other
    values = len(changed) // side**2  # changed pixels of a block

    def conv(filters, initializer=None):
        initializer = initializer or keras.initializers.HeNormal(seed=int(rng.integers(2**31)))
        return layers.Conv2D(filters, 3, padding="same", kernel_initializer=initializer)

    inputs = keras.Input((len(kept),))
    places = np.searchsorted(np.flatnonzero(keeps), kept)  # of the kept pixels among the inputs
    h = layers.Reshape((side, side, -1))(nice_backend.Permutation(places.tolist())(inputs))
    h = conv(channels)(h)
    ### BEGIN SOLUTION
    for _ in range(residual_blocks):
        y = conv(channels)(layers.ReLU()(h))
        y = conv(channels, "zeros" if shortcut else None)(layers.ReLU()(y))
        h = layers.Add()([h, y]) if shortcut else y
    ### END SOLUTION
    features = layers.ReLU()(h)
    h = conv(2 * values, "zeros")(features)
    if dense:
        start = keras.initializers.HeNormal(seed=int(rng.integers(2**31)))
        y = layers.Dense(dense, "relu", kernel_initializer=start)(layers.Flatten()(features))
        h = layers.Add()(
            [h, layers.Reshape(h.shape[1:])(layers.Dense(int(np.prod(h.shape[1:])), kernel_initializer="zeros")(y))]
        )
    h = layers.Permute((3, 1, 2, 4))(layers.Reshape((side, side, 2, values))(h))
    order = np.argsort(changed)  # from block order to pixel order, s and then t
    order = np.concatenate([order, len(changed) + order])
    return keras.Model(inputs, nice_backend.Permutation(order.tolist())(layers.Flatten()(h)))


def ConvRealNVP(
    size=28, channels=32, couplings=8, residual_blocks=2, *, second=None, dense=0, shortcut=True, alpha=1e-3, seed=None
):  # fmt: skip
    """Build RealNVP for square grey images: logit, affine couplings of residual convolutional networks, a scaling.

    Couplings split the pixels as a checkerboard, then by channels after squeezing 2×2 pixels into four channels. Then
    every second row is finished code, and further couplings, of twice the channels, do the same with the other rows at
    half the size. Source: RealNVP, sections 3.4 to 3.6 and 4.1, figures 3 and 4. Among what differs: no batch or weight
    normalization, but a last scaling that starts from data; networks see the kept pixels as channels of
    blocks, in place of masked images; the second scale's checkerboard is one of the remaining pixels, and its networks
    see finished code too; the dense branch; and `alpha` is not 0.05.

    Args:
        size: number of pixels in a row, a multiple of 4.
        channels, residual_blocks: of the networks, which have 3×3 kernels.
        couplings: of the first scale, a multiple of 4, so that each half of each split is changed.
        second: couplings of the second scale, an even number; half as many as of the first unless given. With two, some
            of its pixels stay unchanged.
        dense: width of a dense branch beside each network's last convolution, which sees the whole image; 0 for none.
        shortcut: False leaves the residual blocks' shortcuts out: as many convolutions, one after the other.
        alpha: of the Logit. A black pixel's noise is 1/256 wide: with 0.05 it stays narrow and each coupling has to
            widen it; a small value spreads it at once.
        seed: of the initial weights.

    Returns:
        A Flow over size² columns with the Gaussian prior. Train and inpaint with jit_compile=False: XLA is slow here.
    """
    second, dense = couplings // 2 if second is None else second, nh.as_integer("dense", dense, 0)
    for name, value, factor in (("size", size, 4), ("couplings", couplings, 4), ("second", second, 2)):
        if nh.as_integer(name, value, factor) % factor:
            raise ValueError(f"{name} must be a multiple of {factor}, got {value}")
    size, couplings, second = int(size), int(couplings), int(second)
    row, column = np.divmod(np.arange(size**2), size)
    layers = []
    for scale, number in ((1, couplings), (2, second)):
        for i in range(number):
            checkerboard = column if i < number // 2 else 0  # else whole rows: two of the four channels
            changed = (row % scale == 0) & ((row // scale + checkerboard) % 2 == i % 2)
            network_seed = None if seed is None else [seed, scale, i]
            network = _conv_network(
                ~changed, 2 * scale, scale * channels, residual_blocks, dense, network_seed, shortcut
            )
            layers.append(nh.AffineCoupling(size**2, network, split=~changed))
    return nh.Flow([nh.Logit(size**2, alpha=alpha), *layers, nh.DiagonalScaling(size**2)])


# ---- Inpainting ------------------------------------------------------------------------------------------------


class Inpainted(NamedTuple):
    """Restored data x (N, D), and log p(x) in nats before each step and after the last, (steps + 1, N)."""

    x: np.ndarray
    log_prob: np.ndarray


def inpaint(
    flow, x, known, start, *, condition=None, steps=100, optimizer=None, noise=0.0, space="logit", seed=0,
    jit_compile=None,
):  # fmt: skip
    """Move unknown values uphill on the log-likelihood; known ones stay bit-identical (NICE, section 5.2).

    Args:
        x: data (N, D); unknown values are ignored, but must be finite.
        known: bool (D,) or (N, D), True for a value to keep.
        start: (D,) or (N, D), the unknown values to start from, for example the mean of the training data.
        condition: (N, C) for a conditional flow.
        steps: how many; all samples climb together in one compiled loop.
        optimizer: a fresh Keras optimizer; the default, Adam with a rate of 0.2, is meant for "logit".
        noise: standard deviation of normal noise added to each gradient; the paper has 1.
        space: "logit" climbs in u with x = sigmoid(u), so x stays within (0, 1) and moves in small steps near the ends;
            "clip" climbs in x and projects back to [0, 1], as the paper does; "real" climbs in x without bounds.
        seed: of that noise.
        jit_compile: as in train_inn; the samples of all steps count.

    Returns:
        Inpainted(x, log_prob).

    Raises:
        ValueError: for a mask of another dtype or shape, an unknown space, or a start outside [0, 1] unless "real".
        FloatingPointError: if a log-likelihood becomes NaN or infinite.
    """
    x, steps = nh.as_matrix(x, flow.input_size, "x"), nh.as_integer("steps", steps, 0)
    condition = nh.as_condition(condition, flow.condition_size, x)
    known, free = _known_and_free(x, known, start, space)
    jit_compile = nice_backend.xla_pays(steps * len(x)) if jit_compile is None else bool(jit_compile)
    optimizer = optimizer or keras.optimizers.Adam(0.2)
    optimizer.build([free])

    def restored(value):
        return tf.where(known, x, tf.sigmoid(value) if space == "logit" else value)

    def step(i, path):
        ### BEGIN SOLUTION
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
        ### END SOLUTION

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


def _known_and_free(x, known, start, space):
    """Return inpaint's mask (N, D) as a tensor, and its start in the space to climb in as a variable; both checked."""
    known, start = np.asarray(known), np.asarray(start)
    for name, value in (("known", known), ("start", start)):
        if value.shape not in (tuple(x.shape[1:]), tuple(x.shape)):
            raise ValueError(f"{name} must have shape {tuple(x.shape[1:])} or {tuple(x.shape)}, got {value.shape}")
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
    return known, keras.Variable(start)
