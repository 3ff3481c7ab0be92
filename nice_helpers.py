"""Normalizing flows for the course notebooks: priors, transforms, flows, their training and their checks.

Conventions, the same everywhere: `forward` maps data x to code (latent) z, `backward` maps code to data. Every
log-determinant is log|det dz/dx|, that of `forward`. Likelihoods are natural logarithms (nats) of the density in data
space. N counts samples, D dimensions, C the columns of a condition; arrays are (N, D) and float32.

Beside it: nice_images, nice_data, nice_evaluation, nice_figures, and nice_backend (speed, checks of input). Marked
solutions are exercises for students (export/exercises.toml).

Sources:
    NICE     Dinh, Krueger, Bengio: NICE: Non-linear Independent Components Estimation, 2014, arXiv:1410.8516
    RealNVP  Dinh, Sohl-Dickstein, Bengio: Density Estimation using Real NVP, 2016, arXiv:1605.08803
    INN      Ardizzone et al.: Analyzing Inverse Problems with Invertible Neural Networks, 2018, arXiv:1808.04730
    cINN     Ardizzone et al.: Guided Image Generation with Conditional INNs, 2019, arXiv:1907.02392
    Glow     Kingma, Dhariwal: Glow: Generative Flow with Invertible 1x1 Convolutions, 2018, arXiv:1807.03039
"""

import warnings

import nice_backend  # first: it lets TensorFlow start quietly
from nice_backend import as_condition, as_integer, as_matrix, as_sample

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions


# ---- Priors and pixels -----------------------------------------------------------------------------------------


def gaussian_prior(dimensions):
    """Return the standard normal distribution over (dimensions,)."""
    return tfd.Independent(tfd.Normal(tf.zeros(dimensions), 1.0), 1)


def logistic_prior(dimensions):
    """Return the standard logistic distribution over (dimensions,), NICE section 3.4; its variance is π²/3."""
    return tfd.Independent(tfd.Logistic(tf.zeros(dimensions), 1.0), 1)


PRIORS = {"gaussian": gaussian_prior, "logistic": logistic_prior}


def dequantize(x, seed, levels=256):
    """Map integer pixels 0 … levels − 1 to the unit interval by uniform noise: (x + u) / levels with u in [0, 1).

    A density on discrete values is unbounded; with this noise E[log p] − D log(levels) bounds the discrete
    log-likelihood from below (Theis et al. 2016, arXiv:1511.01844, section 3.1).

    Args:
        x: pixels (N, D).
        seed: an integer or a pair of integers; the same seed gives the same noise (another one within XLA).

    Returns:
        A float32 tensor (N, D) in [0, 1].

    Raises:
        ValueError: for values that are no whole numbers from 0 to levels − 1 (not within a graph).
    """
    nice_backend.check_pixels(x, levels)
    x, seed = tf.cast(x, tf.float32), tf.convert_to_tensor(seed, tf.int32)
    seed = tf.stack([seed, 0]) if seed.shape.rank == 0 else seed
    # Philox by name: the generator that XLA chooses for itself took half of the time of a training step of NICE.
    return (x + tf.random.stateless_uniform(tf.shape(x), seed, alg="philox")) / levels


def quantize(x, levels=256):
    """Return the integer pixels 0 … levels − 1 (float32) in whose cells x falls, clipped: undo `dequantize`."""
    return np.clip(np.floor(np.asarray(x, np.float32) * levels), 0, levels - 1)


def bits_per_dim(nats, dimensions, levels=256):
    """Return bits per dimension of integer data from the log-density (nats) of the dequantized data in [0, 1).

    -log2 p(x)/D, plus the log2(levels) bits by which scaling by 1/levels raised the density (RealNVP, section 4.1).
    """
    return np.log2(levels) - np.asarray(nats) / (dimensions * np.log(2.0))


# ---- Transforms ------------------------------------------------------------------------------------------------


def mlp(input_size, output_size, *, hidden_size, hidden_layers, normalization=None, residual=False, seed=None):
    """Build a fully connected ReLU network as a Keras model; its linear last layer starts at zero.

    A last layer of zeros makes each coupling start as the identity, and a deep flow without blowing up (Glow, 3.3).

    Args:
        normalization: None, "layer" or "batch": a Keras normalization before each activation.
        residual: add to each hidden layer but the first what went into it.
        seed: of the initial weights; whatever np.random.default_rng takes.
    """
    if normalization not in (None, "layer", "batch"):
        raise ValueError(f'normalization must be None, "layer" or "batch", got {normalization!r}')
    normalize = {"layer": keras.layers.LayerNormalization, "batch": keras.layers.BatchNormalization}
    rng = np.random.default_rng(seed)
    inputs = h = keras.Input((input_size,))
    for i in range(hidden_layers):
        initializer = keras.initializers.HeNormal(seed=int(rng.integers(2**31)))
        before, h = h, keras.layers.Dense(int(hidden_size), kernel_initializer=initializer)(h)
        if normalization:
            h = normalize[normalization]()(h)
        h = keras.layers.Activation("relu")(h)
        h = keras.layers.Add()([before, h]) if residual and i > 0 else h
    last = nice_backend.TwoColumns if output_size == 2 else keras.layers.Dense  # a Dense layer too, only faster
    return keras.Model(inputs, last(output_size, kernel_initializer="zeros")(h))


class _Transform(keras.layers.Layer):
    """An invertible map of (N, D).

    Children define forward(x, condition, training), which returns z and log|det dz/dx|, and backward(z, condition).
    """

    def __init__(self, input_size, condition_size=0, **kwargs):
        super().__init__(**kwargs)
        if self.dtype_policy.name != "float32":
            raise ValueError(f"flows compute in float32 only, got Keras' policy {self.dtype_policy.name}")
        self.input_size = as_integer("input_size", input_size, 2)
        self.condition_size = as_integer("condition_size", condition_size, 0)
        self.built = True  # its weights are made at once, not at Keras' first call

    def _inputs(self, values, condition, name):
        """Return both, checked; a condition that is not needed as None, so that graphs have no empty matrices."""
        values = as_matrix(values, self.input_size, name)
        needed = self.condition_size or condition is not None
        return values, as_condition(condition, self.condition_size, values) if needed else None


class _Coupling(_Transform):
    """Split the columns, keep one part, and change the other by what `network` makes of the kept one.

    Args:
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
            mask, split = nice_backend.as_mask(split, input_size)
            self._order, first = np.argsort(~mask, kind="stable"), int(mask.sum())  # the first part's columns first
            kept, changed = (input_size - first, first) if swap else (first, input_size - first)
        elif split not in ("odd-even", "half"):
            raise ValueError(f'split must be "odd-even", "half" or a mask, got {split!r}')
        self.network, self.split, self.swap = network, split, bool(swap)
        expected = (kept + condition_size, self.outputs_per_column * changed)
        received = (network.input_shape[-1], network.output_shape[-1])
        if received != expected:
            raise ValueError("network must map {} columns to {}, got {} to {}".format(*expected, *received))

    def get_config(self):  # the other transforms have plain arguments, which Keras notes by itself
        own = {"input_size": self.input_size, "network": keras.saving.serialize_keras_object(self.network)}
        own |= {"split": self.split, "swap": self.swap, "condition_size": self.condition_size}
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
            first, second = tf.split(nice_backend.permuted(x, self._order), [sum(self.split), -1], axis=1)
        return (second, first) if self.swap else (first, second)

    def _join(self, kept, changed):
        """Undo _divide."""
        first, second = (changed, kept) if self.swap else (kept, changed)
        if self.split == "half":
            return tf.concat([first, second], 1)
        if self.split != "odd-even":
            return nice_backend.permuted(tf.concat([first, second], 1), np.argsort(self._order))
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
        ### BEGIN SOLUTION
        kept, changed = self._divide(x)
        z = self._join(kept, changed + self._network(kept, condition, training))
        return z, tf.zeros_like(z[:, 0])  # the Jacobian is triangular with ones on the diagonal
        ### END SOLUTION

    def backward(self, z, condition=None):
        """Map code z (N, D) to data x (N, D)."""
        z, condition = self._inputs(z, condition, "z")
        ### BEGIN SOLUTION
        kept, changed = self._divide(z)
        return self._join(kept, changed - self._network(kept, condition, False))
        ### END SOLUTION


@keras.saving.register_keras_serializable("nice_helpers")
class AffineCoupling(_Coupling):
    """Scale the other part by exp(tanh(s)) and shift it by t; network returns [s, t].

    Source: RealNVP, section 3.2, equations 4 and 5; tanh keeps each scale in [1/e, e], so that exp can't overflow.
    """

    outputs_per_column = 2

    def forward(self, x, condition=None, training=False):
        """Map data x (N, D) to code z (N, D); also log|det dz/dx| = Σ tanh(s) (N,) in nats (RealNVP, equation 6)."""
        x, condition = self._inputs(x, condition, "x")
        ### BEGIN SOLUTION
        kept, changed = self._divide(x)
        log_scale, shift = self.log_scale_and_shift(kept, condition, training)
        return self._join(kept, changed * tf.exp(log_scale) + shift), tf.reduce_sum(log_scale, 1)
        ### END SOLUTION

    def backward(self, z, condition=None):
        """Map code z (N, D) to data x (N, D)."""
        z, condition = self._inputs(z, condition, "z")
        ### BEGIN SOLUTION
        kept, changed = self._divide(z)
        log_scale, shift = self.log_scale_and_shift(kept, condition, False)
        return self._join(kept, (changed - shift) * tf.exp(-log_scale))
        ### END SOLUTION

    def log_scale_and_shift(self, kept, condition, training):
        """Return log scale and shift of the changed columns, (N, changed) each, from the kept ones."""
        ### BEGIN SOLUTION
        s, shift = tf.split(self._network(kept, condition, training), 2, axis=1)
        return tf.tanh(s), shift
        ### END SOLUTION


@keras.saving.register_keras_serializable("nice_helpers")
class OrthogonalMixing(_Transform):
    """Multiply by a fixed random orthogonal matrix, so that the next coupling sees other columns.

    The matrix is a weight that is not trained: it is saved with the model. Source: INN, where it is a permutation.
    """

    def __init__(self, input_size, *, seed=None, **kwargs):
        super().__init__(input_size, **kwargs)
        initializer, shape = keras.initializers.Orthogonal(seed=seed), (self.input_size, self.input_size)
        self.matrix = self.add_weight(shape=shape, initializer=initializer, trainable=False)

    def forward(self, x, condition=None, training=False):
        """Map data x (N, D) to code z (N, D); also log|det dz/dx| (N,) in nats, zero as |det| = 1."""
        x, _ = self._inputs(x, condition, "x")
        ### BEGIN SOLUTION
        return x @ self.matrix, tf.zeros_like(x[:, 0])
        ### END SOLUTION

    def backward(self, z, condition=None):
        """Map code z (N, D) to data x (N, D)."""
        z, _ = self._inputs(z, condition, "z")
        ### BEGIN SOLUTION
        return tf.matmul(z, self.matrix, transpose_b=True)
        ### END SOLUTION


@keras.saving.register_keras_serializable("nice_helpers")
class DiagonalScaling(_Transform):
    """Scale each column: z = exp(s) ⊙ (x − m), both trained.

    Source: NICE, section 3.3, with m = 0 there; with m and a start from data it is Glow's ActNorm (section 3.1).
    """

    def __init__(self, input_size, **kwargs):
        super().__init__(input_size, **kwargs)
        self.log_scale = self.add_weight(shape=(self.input_size,), initializer="zeros", name="log_scale")
        self.mean = self.add_weight(shape=(self.input_size,), initializer="zeros", name="mean")

    def forward(self, x, condition=None, training=False):
        """Map data x (N, D) to code z (N, D); also log|det dz/dx| = Σ s (N,) in nats."""
        x, _ = self._inputs(x, condition, "x")
        ### BEGIN SOLUTION
        z = tf.exp(self.log_scale) * (x - self.mean)
        return z, tf.fill(tf.shape(x)[:1], tf.reduce_sum(self.log_scale))
        ### END SOLUTION

    def backward(self, z, condition=None):
        """Map code z (N, D) to data x (N, D)."""
        z, _ = self._inputs(z, condition, "z")
        ### BEGIN SOLUTION
        return z * tf.exp(-self.log_scale) + self.mean
        ### END SOLUTION

    def adapt(self, x, stddev=1.0):
        """Set s and m so that the columns of x (N, D) get mean 0 and deviation `stddev`; constant ones get s = 0."""
        x = as_sample(x, self.input_size).numpy().astype(np.float64)
        mean, spread = x.mean(0), x.std(0)
        constant = spread <= 1e-6 * np.maximum(1.0, np.abs(mean))
        self.log_scale.assign(np.where(constant, 0.0, np.log(stddev / np.where(constant, 1.0, spread))))
        self.mean.assign(mean)


@keras.saving.register_keras_serializable("nice_helpers")
class Logit(_Transform):
    """Map [0, 1] into the real line: z = logit(α + (1 − 2α) x). Source: RealNVP, section 4.1 (1 − α for our 1 − 2α)."""

    def __init__(self, input_size, *, alpha=0.05, **kwargs):
        super().__init__(input_size, **kwargs)
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha must lie between 0 and 0.5, got {alpha!r}")
        self.alpha = alpha

    def forward(self, x, condition=None, training=False):
        """Map data x (N, D) in [0, 1] to code z (N, D); also log|det dz/dx| (N,) in nats."""
        x, _ = self._inputs(x, condition, "x")
        self.check(x)
        ### BEGIN SOLUTION
        p = self.alpha + (1 - 2 * self.alpha) * x
        log_p, log_q = tf.math.log(p), tf.math.log1p(-p)
        return log_p - log_q, tf.reduce_sum(np.log(1 - 2 * self.alpha) - log_p - log_q, 1)
        ### END SOLUTION

    def check(self, x):
        """Raise a ValueError if a value's logit is not finite; Flow asks its first transform, outside of graphs."""
        if hasattr(x, "numpy") and len(x):
            low, high = x.numpy().min(), x.numpy().max()
            margin = self.alpha / (1 - 2 * self.alpha)
            if not -margin < low <= high < 1 + margin:
                raise ValueError(f"x must lie in [0, 1] for Logit, got [{low:.4g}, {high:.4g}]")

    def backward(self, z, condition=None):
        """Map code z (N, D) to data x (N, D); codes of no image come out up to α/(1 − 2α) beyond [0, 1]."""
        z, _ = self._inputs(z, condition, "z")
        return (tf.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha)


# ---- Flows -----------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("nice_helpers")
class Flow(keras.Model):
    """A chain of transforms from data to a code with a known density, by the change of variables (NICE, section 2).

    Args:
        transforms: the layers, in the order of `forward`.
        prior: "gaussian" or "logistic", or a TFP distribution over (D,), which can't be saved.

    Methods take whatever NumPy can turn into real numbers of the right shape; anything else, NaN and infinities
    included, is a ValueError that says what was expected and what came.
    """

    def __init__(self, transforms, prior="gaussian", **kwargs):
        super().__init__(**kwargs)
        if isinstance(prior, str) and prior not in PRIORS:
            raise ValueError(f"prior must be one of {sorted(PRIORS)} or a TFP distribution, got {prior!r}")
        self.transforms = list(transforms)
        self.input_size, self.condition_size = nice_backend.sizes_of(self.transforms)
        self.prior_name = prior if isinstance(prior, str) else None
        self.prior = PRIORS[prior](self.input_size) if isinstance(prior, str) else prior
        self._spread = nice_backend.spread_of(self.prior, self.input_size)
        self.built = True
        data, conditions = [tf.TensorSpec((None, size), tf.float32) for size in (self.input_size, self.condition_size)]
        # One graph each for any number of rows: no retracing when that number changes.
        self._graphs = {
            method: tf.function(method, input_signature=[data, conditions], autograph=False)
            for method in (self._forward, self._backward, self._log_prob)
        }

    def get_config(self):
        """Return the constructor's arguments; raises a ValueError for a prior that has no name."""
        if self.prior_name is None:
            raise ValueError(f"only flows with a prior named {sorted(PRIORS)} can be saved, got {self.prior}")
        transforms = [keras.saving.serialize_keras_object(t) for t in self.transforms]
        return {"transforms": transforms, "prior": self.prior_name}

    @classmethod
    def from_config(cls, config):
        """Build the flow that get_config describes."""
        return cls([keras.saving.deserialize_keras_object(t) for t in config["transforms"]], config["prior"])

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
            seed: an integer for the same points again; needed within a tf.function.

        Returns:
            A tensor (num_samples, D), or (M, num_samples, D).
        """
        num_samples = as_integer("num_samples", num_samples, 0)
        if seed is None and not tf.executing_eagerly():
            raise ValueError("seed must be given within a tf.function: without, each call would give the same points")
        ### BEGIN SOLUTION
        rows = 1
        if conditions is not None and self.condition_size:
            conditions = as_matrix(conditions, self.condition_size, "conditions")
            rows = conditions.shape[0]
            conditions = tf.repeat(conditions, num_samples, axis=0)
        seed = np.random.default_rng(seed).integers(2**31 - 1, size=2)
        z = self.prior.sample(rows * num_samples, seed=tf.constant(seed, tf.int32))
        x = self._run(self._backward, z, conditions, "z")
        return tf.reshape(x, (rows, num_samples, self.input_size)) if self.condition_size else x
        ### END SOLUTION

    def adapt(self, x, condition=None):
        """Start each transform that has an `adapt` from data (N, D), so that no epochs go into finding scales."""
        h = as_sample(x, self.input_size)
        condition = as_condition(condition, self.condition_size, h)
        for transform in self.transforms:
            if hasattr(transform, "adapt"):
                transform.adapt(h, self._spread)
            h, _ = transform.forward(h, condition if transform.condition_size else None)

    def _run(self, method, values, condition, name):
        values = as_matrix(values, self.input_size, name)
        condition = as_condition(condition, self.condition_size, values)
        if name == "x" and isinstance(self.transforms[0], Logit):
            self.transforms[0].check(values)
        # Inside another graph call the method itself: a graph called from an XLA loop ran 25 times slower.
        return (self._graphs[method] if tf.executing_eagerly() else method)(values, condition)

    def _forward(self, x, condition, training=False):
        ### BEGIN SOLUTION
        log_det = tf.zeros_like(x[:, 0])
        for transform in self.transforms:
            x, step = transform.forward(x, condition if transform.condition_size else None, training=training)
            log_det += step
        return x, log_det
        ### END SOLUTION

    def _backward(self, z, condition):
        ### BEGIN SOLUTION
        for transform in reversed(self.transforms):
            z = transform.backward(z, condition if transform.condition_size else None)
        return z
        ### END SOLUTION

    def _log_prob(self, x, condition):
        ### BEGIN SOLUTION
        z, log_det = self._forward(x, condition)
        return self.prior.log_prob(z) + log_det
        ### END SOLUTION


def NICE(
    input_size, hidden_size=1000, hidden_layers=5, couplings=4, prior="logistic", split="odd-even", *,
    normalization=None, seed=None,
):  # fmt: skip
    """Build NICE: additive couplings that keep the two parts in turn, then a diagonal scaling.

    The defaults are those of the paper's MNIST model. Source: NICE, sections 3 and 5.1.

    Args:
        hidden_size, hidden_layers: of each coupling's ReLU network.
        couplings: ≥ 3 for every column to be able to depend on every other one.
        normalization: None, "layer" or "batch", inside the networks.

    Returns:
        A Flow over input_size columns; call its `adapt` with data before training, as train_on_images does.
    """
    network = {"hidden_size": hidden_size, "hidden_layers": hidden_layers, "normalization": normalization}
    chain = coupling_chain(AdditiveCoupling, input_size, couplings, split=split, seed=seed, **network)
    return Flow([*chain, DiagonalScaling(int(input_size))], prior)


def coupling_chain(coupling, input_size, couplings, *, split="odd-even", seed=None, **network):
    """Return a list of couplings that keep the first and the second part in turn (NICE, section 3.2).

    Args:
        coupling: AdditiveCoupling, AffineCoupling or a class made from one of them.
        split: "odd-even" or "half"; network: hidden_size, hidden_layers and more for each coupling's own `mlp`.
    """
    input_size, couplings = as_integer("input_size", input_size, 2), as_integer("couplings", couplings, 1)
    ### BEGIN SOLUTION
    layers = []
    for i in range(couplings):
        kept, changed = coupling_sizes(input_size, swap=i % 2 == 1)
        network_seed = None if seed is None else [seed, i]
        layer = mlp(kept, coupling.outputs_per_column * changed, seed=network_seed, **network)
        layers.append(coupling(input_size, layer, split=split, swap=i % 2 == 1))
    return layers
    ### END SOLUTION


def RealNVP(input_size, hidden_size, blocks, condition_size=0, *, seed=None):
    """Build RealNVP as the INN exercise has it: affine couplings with a random orthogonal matrix between each two.

    Each coupling passes on the first half of the columns; its network has two hidden ReLU layers. Source: RealNVP,
    section 3; with a condition (N, condition_size), which every network sees, cINN, section 3.1.

    Returns:
        A Flow over input_size columns of so many couplings (blocks), with the Gaussian prior.
    """
    input_size, blocks = as_integer("input_size", input_size, 2), as_integer("blocks", blocks, 1)
    kept, changed = coupling_sizes(input_size)
    layers = []
    for i in range(blocks):
        seeds = [None, None] if seed is None else [[seed, i], int(1000 * seed + i)]  # Keras' initializers take integers
        if i > 0:
            layers.append(OrthogonalMixing(input_size, seed=seeds[1]))
        network = mlp(kept + condition_size, 2 * changed, hidden_size=hidden_size, hidden_layers=2, seed=seeds[0])
        layers.append(AffineCoupling(input_size, network, split="half", condition_size=condition_size))
    return Flow(layers, "gaussian")


# ---- Training, with a bottleneck too ---------------------------------------------------------------------------


def likelihood_step(flow, x, condition=None, extra_loss=None):
    """Take a step of flow.optimizer on a batch x (N, D): mean negative log-likelihood plus train_inn's extra_loss.

    Return the batch's mean log-likelihood in nats and the extra loss, both before the step.
    """
    ### BEGIN SOLUTION
    with tf.GradientTape() as tape:
        z, log_det = flow._forward(x, condition, training=True)
        nats = tf.reduce_mean(flow.prior.log_prob(z) + log_det)
        extra = extra_loss(flow, x, z, condition) if extra_loss else tf.constant(0.0)
        loss = extra - nats
    weights = flow.trainable_variables  # one that has no part in the loss gets a zero
    gradients = tape.gradient(loss, [w.value for w in weights], unconnected_gradients="zero")
    flow.optimizer.apply(gradients, weights)
    return nats, extra
    ### END SOLUTION


def train_inn(
    flow, x, condition=None, *, epochs, batch_size, learning_rate=1e-3, weight_decay=0.0, validation=None, augment=None,
    extra_loss=None, callbacks=(), seed=0, jit_compile=None, verbose=True,
):  # fmt: skip
    """Fit a flow by maximum likelihood (NICE, section 2): Keras' fit with Adam on the negative log-likelihood.

    A whole epoch is compiled and is one batch to Keras: all callbacks work, those for batches once an epoch. The last
    batch is topped up with samples from the epoch's start. Ctrl-C ends the training and keeps what it reached.

    Args:
        flow: a Flow; trained in place.
        x: data (N, D); with augment it stays in its own dtype until a batch is formed, so images can be uint8.
        condition: (N, C) for a conditional flow.
        epochs, batch_size: integers ≥ 1.
        learning_rate: a float, a Keras schedule over steps, or a function that makes one from the number of steps.
        weight_decay: each step takes learning_rate · weight_decay of itself off each matrix (arXiv:1711.05101).
        validation: data (n, D), or a tuple (data, condition), to evaluate after each epoch; augmented once.
        augment: function (batch, seed) → float32 batch, called on each batch, for example `dequantize`.
        extra_loss: function (flow, x, z, condition) → scalar, added to the negative log-likelihood.
        callbacks: Keras callbacks; their logs are `loss`, `nats`, `val_loss` and `extra_loss`.
        seed: of the order of the samples and of augment's noise.
        jit_compile: compile with XLA; None does so where enough samples are seen to make up for its start.
        verbose: show one line of progress that updates in place.

    Returns:
        A DataFrame with a row for each epoch: `nats` (mean log-likelihood of its batches, each before its
        step), `validation_nats` (after it), `extra_loss` where there is one, and `seconds` since the start.

    Raises:
        ValueError: for unusable data, integers without augment among them; augment is tried on 1,000 rows.
        FloatingPointError: if the loss becomes NaN or infinite; the best weights so far are restored.
    """
    epochs, batch_size = as_integer("epochs", epochs, 1), as_integer("batch_size", batch_size, 1)
    x, condition = _training_data(flow, x, condition, augment)
    validation = _validation_data(flow, validation, augment, seed)
    batch_size = min(batch_size, len(x))
    steps = -(-len(x) // batch_size)
    jit_compile = nice_backend.xla_pays(epochs * len(x)) if jit_compile is None else bool(jit_compile)
    order, epoch = tf.Variable(tf.zeros((steps, batch_size), tf.int32)), tf.Variable(0)  # set before each epoch
    report = nice_backend.EveryEpoch(order, epoch, len(x), seed, validation, verbose)

    def one_batch(i, total):
        batch, c = tf.gather(x, order[i]), tf.gather(condition, order[i])
        if augment:
            batch = tf.cast(augment(batch, tf.stack([epoch * 9973 + seed, i])), tf.float32)  # a seed for each batch
        return i + 1, total + tf.stack(likelihood_step(flow, batch, c, extra_loss))

    @tf.function(jit_compile=jit_compile, autograph=False)
    def one_epoch():
        nats, extra = tf.unstack(tf.while_loop(lambda i, _: i < steps, one_batch, (0, tf.zeros(2)))[1] / steps)
        return {"loss": extra - nats, "nats": nats} | ({"extra_loss": extra} if extra_loss else {})

    if callable(learning_rate) and not isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        learning_rate = learning_rate(epochs * steps)
    flow.compile(nice_backend.FusedAdam(learning_rate, weight_decay=weight_decay))
    flow.optimizer.build(flow.trainable_variables)
    flow.train_function = lambda iterator: one_epoch()  # in place of the one that Keras makes for a batch
    try:
        nothing = tf.data.Dataset.from_tensors(0)  # the epoch finds its own data
        flow.fit(nothing, epochs=epochs, callbacks=[report, *callbacks], verbose=0, shuffle=False)
    except KeyboardInterrupt:
        warnings.warn(f"stopped by hand; the history has {len(report.records)} of {epochs} epochs", stacklevel=2)
    finally:
        flow.train_function = None  # its graph holds the data
        flow._initial_epoch = None  # where BackupAndRestore resumed: for this training only
    return pd.DataFrame(report.records or {"epoch": [], "nats": [], "seconds": []}).set_index("epoch")


def _training_data(flow, x, condition, augment, name="x"):
    """Return x and its condition as checked tensors; x keeps its dtype where `augment` takes care of it."""
    x = x if tf.is_tensor(x) else np.asarray(x)
    checked = as_matrix(x, flow.input_size, name, least=1)
    if not augment and not tf.as_dtype(x.dtype).is_floating:
        raise ValueError(f"{name} must be of a floating dtype, got {x.dtype}: discrete values need augment=dequantize")
    # augment sees values now, later a graph.
    sample = as_matrix(augment(x[:1000], tf.constant([0, -1])), flow.input_size, "augment(x)") if augment else checked
    if isinstance(flow.transforms[0], Logit):
        flow.transforms[0].check(sample)
    return tf.convert_to_tensor(x) if augment else checked, as_condition(condition, flow.condition_size, checked)


def _validation_data(flow, validation, augment, seed):
    """Return train_inn's validation as (x, condition), or None."""
    if validation is None:
        return None
    x, condition = validation if isinstance(validation, tuple) else (validation, None)
    x, condition = _training_data(flow, x, condition, augment, "validation")
    return (augment(x, tf.constant([seed, -1])) if augment else x), condition


def warm_up_cosine(peak):
    """Return, for train_inn's learning_rate, a rate that rises from 0 to `peak` in 5 % of the steps, then falls to 0.

    It falls along half a cosine (Loshchilov and Hutter: SGDR, 2017, arXiv:1608.03983, equation 5, without restarts).
    """

    def schedule(steps):
        rise = steps // 20
        return keras.optimizers.schedules.CosineDecay(0.0, steps - rise, warmup_target=peak, warmup_steps=rise)

    return schedule


def keep_first(z, k):
    """Return the codes z (N, D) with all but the first k dimensions set to zero; ValueError unless 1 ≤ k ≤ D."""
    ### BEGIN SOLUTION
    if not 1 <= k <= z.shape[1]:
        raise ValueError(f"k must lie in 1…{z.shape[1]}, got {k!r}")
    return tf.concat([z[:, :k], tf.zeros_like(z[:, k:])], axis=1)
    ### END SOLUTION


def reconstruct(flow, x, k, condition=None):
    """Return the data (N, D) that the first k code dimensions of x (N, D) decode to."""
    return flow.backward(keep_first(flow.forward(x, condition)[0], k), condition)


def reconstruction_loss(k, weight):
    """Return an extra_loss for train_inn: weight · mean ‖reconstruct(x) − x‖²; not for normalization="batch"."""

    def loss(flow, x, z, condition):
        ### BEGIN SOLUTION
        decoded = flow.backward(keep_first(z, k), condition)
        return weight * tf.reduce_mean(tf.reduce_sum((decoded - x) ** 2, axis=1))
        ### END SOLUTION

    return loss


# ---- Checks of a flow ------------------------------------------------------------------------------------------


def check_flow(flow, x, condition=None, *, tolerance=1e-3):
    """Check each transform, then the flow: round trips, log-determinant against autodiff, log_prob, own weights.

    Args:
        x: samples (N, D), of which the first eight are checked; with condition (N, C) for a conditional flow.
            A fresh coupling is the identity and hides errors: check flows with random or trained weights.
        tolerance: for every error, relative to 1 + the largest value compared.

    Returns:
        A DataFrame with a row for each transform and one for the flow: `round_trip_x` max|backward(forward(x)) − x|,
        `round_trip_z` max|forward(backward(z)) − z|, `log_det_error` max|log_det − log|det J|| in nats.

    Raises:
        AssertionError: names the first transform that fails, and how.
    """
    x = as_matrix(x, flow.input_size, "x", least=1)
    condition = as_condition(condition, flow.condition_size, x)[:8]
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
    log_prob, (z, log_det) = flow.log_prob(x, condition), flow.forward(x, condition)
    if not np.allclose(log_prob, flow.prior.log_prob(z) + log_det, rtol=tolerance, atol=tolerance):
        raise AssertionError("whole flow: log_prob is not the prior's log-density of the code plus log_det")
    return pd.DataFrame.from_dict(rows, orient="index")


def _check_transform(transform, x, condition, name, tolerance):
    z, log_det = transform.forward(x, condition)
    # One copy of a sample for each row of its Jacobian: a single backward pass gives them all, compiling nothing.
    rows, columns = x.shape
    copies = tf.repeat(x, columns, axis=0)
    with tf.GradientTape() as tape:
        tape.watch(copies)
        codes, _ = transform.forward(copies, None if condition is None else tf.repeat(condition, columns, axis=0))
    jacobian = tape.gradient(codes, copies, output_gradients=tf.tile(tf.eye(columns), (rows, 1)))
    autodiff = np.linalg.slogdet(jacobian.numpy().reshape(rows, columns, columns).astype(np.float64))[1]
    # Codes beside those of data: backward may undo forward on the data and nowhere else.
    other = z + tf.random.stateless_normal(z.shape, (1, 2)) * tf.math.reduce_std(z) * 0.1
    z_back, _ = transform.forward(transform.backward(other, condition), condition)
    if np.shape(log_det) != autodiff.shape:
        raise AssertionError(f"{name}: log_det must have shape {autodiff.shape}, got {np.shape(log_det)}")
    x_back = transform.backward(z, condition)
    pairs = {"round_trip_x": (x_back, x), "round_trip_z": (z_back, other), "log_det_error": (log_det, autodiff)}
    errors = {}
    for key, (received, expected) in pairs.items():
        received, expected = np.asarray(received, np.float64), np.asarray(expected, np.float64)
        errors[key] = np.abs(received - expected).max()
        allowed = tolerance * (1 + np.abs(expected).max())
        if not errors[key] <= allowed:
            raise AssertionError(f"{name}: {key} is {errors[key]:.3g}, more than {allowed:.3g}")
    return errors
