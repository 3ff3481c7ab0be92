"""The machinery behind the flows: TensorFlow's quiet start, checks of input, tricks for speed, each epoch's end.

A reader who wants to know flows needs none of it. Each trick stands here with its reason and what it gained on two
cores; without them all results are the same up to rounding, but for the noise that XLA draws.
"""

import contextlib
import os
import sys
import tempfile
import time
from numbers import Real


@contextlib.contextmanager
def _quiet_start():
    """Hold back what TensorFlow's C++ code writes to file descriptor 2; show it after all if the start fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what is really wrong comes as an exception too
    # Off by default on some processors: there convolutions took 1.4 times as long, log_prob of many rows twice.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    try:
        original = os.dup(2)
    except OSError:  # a process without a standard error has nothing to keep quiet
        yield
        return
    if sys.stderr:
        sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
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
    import tensorflow_probability  # noqa: F401  its start is noisy too

    tf.config.list_physical_devices()  # so is the search for a GPU
    tf.function(lambda: tf.zeros(1) + 1, jit_compile=True)()  # and TF 2.20's first use of XLA
tf.get_logger().setLevel("ERROR")  # its warnings of retracing count every new flow as a retrace


# ---- Checks of input -------------------------------------------------------------------------------------------


def as_matrix(values, columns, name, *, least=0):
    """Return `values` as a float32 tensor (N, columns), N ≥ least, or raise a ValueError that says what is wrong."""
    values = values if tf.is_tensor(values) else np.asarray(values)
    dtype = values.dtype
    if not (dtype.is_floating or dtype.is_integer if tf.is_tensor(values) else dtype.kind in "fiu"):
        raise ValueError(f"{name} must be an array of real numbers, got dtype {dtype}")
    if len(values.shape) != 2 or values.shape[1] != columns:
        raise ValueError(f"{name} must have shape (N, {columns}), got {tuple(values.shape)}")
    if least and len(values) < least:
        raise ValueError(
            f"{name} must have at least {'one sample' if least == 1 else f'{least} samples'}, got {len(values)}"
        )
    values = tf.cast(values, tf.float32)
    if hasattr(values, "numpy") and not np.isfinite(values.numpy()).all():  # in a graph there are no values yet
        bad = int((~np.isfinite(values.numpy())).sum())
        raise ValueError(f"{name} must be finite in float32, got {bad} NaN or infinite values")
    return values


def as_sample(x, columns):
    """Return `x` as a matrix to start a flow from; raises a ValueError for no rows, or a spread that float32 loses."""
    values = as_matrix(x, columns, "x", least=1)
    given, kept = (np.asarray(array, np.float64) for array in (x, values))
    lost = np.abs(kept.std(0) - given.std(0)) > 0.1 * given.std(0)
    if (lost & (np.ptp(given, 0) > 0)).any():  # a constant column's deviation may be 1e-17 in place of 0
        raise ValueError("x must keep its spread in float32, got a mean that is too large for it: take the mean off")
    return values


def as_condition(condition, size, values):
    """Return the condition (N, size) of the samples `values`, checked; where size is 0 a matrix without columns."""
    rows = values.shape[0] if values.shape[0] is not None else tf.shape(values)[0]
    if condition is None:
        if size:
            raise ValueError(f"condition must have shape (N, {size}), got None")
        return tf.zeros((rows, 0))
    if not size and tuple(np.shape(condition))[-1:] != (0,):
        raise ValueError(f"condition must be None, as condition_size is 0, got shape {tuple(np.shape(condition))}")
    condition = as_matrix(condition, size, "condition")
    if None not in (condition.shape[0], values.shape[0]) and condition.shape[0] != values.shape[0]:
        raise ValueError(f"condition must have one row for each of {values.shape[0]} samples, got {condition.shape[0]}")
    return condition


def as_integer(name, value, least):
    """Return `value` as an int, or raise a ValueError."""
    if not isinstance(value, Real) or value % 1 or value < least:
        raise ValueError(f"{name} must be an integer ≥ {least}, got {value!r}")
    return int(value)


def check_pixels(x, levels):
    """Raise a ValueError unless x holds whole numbers from 0 to levels − 1; within a graph there is nothing to see."""
    if tf.is_tensor(x) and not hasattr(x, "numpy"):
        return
    values = np.asarray(x)
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    whole = values.dtype.kind in "iu" or (values.dtype.kind == "f" and not (values % 1).any())
    if not whole or not 0 <= low <= high < levels:
        raise ValueError(f"x must be whole numbers 0…{levels - 1}, got {values.dtype} from {low:.4g} to {high:.4g}")


def as_mask(split, columns):
    """Return a coupling's mask (columns,) of booleans as an array and as a list, or raise a ValueError."""
    mask, listed = np.asarray(split), np.asarray(split).tolist()
    if mask.shape != (columns,) or mask.dtype != bool or mask.all() or not mask.any():
        raise ValueError(f"split must be a mask of {columns} booleans, not all the same, got {listed}")
    return mask, listed


def sizes_of(transforms):
    """Return a chain's input size and condition size; raises a ValueError if its transforms don't agree."""
    if not transforms:
        raise ValueError("transforms must name at least one layer, got none")
    sizes = [t.input_size for t in transforms]
    if len(set(sizes)) > 1:
        raise ValueError(f"transforms must agree in input_size, got {sizes}")
    conditions = {t.condition_size for t in transforms} - {0}
    if len(conditions) > 1:
        raise ValueError(f"transforms must agree in condition_size, got {sorted(conditions)}")
    return sizes[0], max(conditions, default=0)


def spread_of(prior, columns):
    """Return a prior's standard deviations (columns,); raises a ValueError for one of another shape or without them."""
    shape = tuple(prior.batch_shape) + tuple(prior.event_shape)
    if tuple(prior.event_shape) != shape or shape != (columns,) or prior.dtype != tf.float32:
        raise ValueError(f"prior must be over ({columns},) in float32, got {prior}")
    try:
        spread = prior.stddev().numpy()
    except NotImplementedError:
        spread = np.nan
    if not np.isfinite(spread).all():
        raise ValueError(f"prior must have a finite standard deviation, which adapt needs, got {prior}")
    return spread


# ---- Tricks for speed ------------------------------------------------------------------------------------------


def xla_pays(samples):
    """Return whether XLA is worth its compilation of one to two seconds for so many samples, epochs counted.

    Measured on two cores: that was repaid after 30,000 samples by wide networks on images, after up to a million by
    narrow ones.
    """
    return samples >= 30_000


@keras.saving.register_keras_serializable("nice_backend")
class FusedAdam(keras.optimizers.Adam):
    """Keras' Adam with one operation for each weight in place of 15: a small flow compiles a second sooner."""

    def apply(self, grads, trainable_variables):
        """Take one step (Kingma and Ba 2015, algorithm 1)."""
        step = tf.cast(self.iterations + 1, tf.float32)
        settings = {"lr": self.learning_rate, "beta1": self.beta_1, "beta2": self.beta_2, "epsilon": self.epsilon}
        settings |= {"beta1_power": self.beta_1**step, "beta2_power": self.beta_2**step}
        settings = {name: tf.convert_to_tensor(value, tf.float32) for name, value in settings.items()}
        for w in trainable_variables if self.weight_decay else []:
            if len(w.shape) > 1:  # as usual, no decay of biases and scales
                w.assign(w.value * (1 - settings["lr"] * self.weight_decay))
        for w, m, v, gradient in zip(trainable_variables, self._momentums, self._velocities, grads, strict=True):
            handles = {"var": w.value.handle, "m": m.value.handle, "v": v.value.handle}
            tf.raw_ops.ResourceApplyAdam(**handles, **settings, grad=gradient)
        self.iterations.assign_add(1)


@keras.saving.register_keras_serializable("nice_backend")
class TwoColumns(keras.layers.Dense):
    """A Dense layer of two columns, what every affine coupling of the plane ends in.

    Its gradients are sums: as matrix products they took a quarter of a training step, since XLA is slow at products
    with two columns (at one or four it is not).
    """

    def call(self, x, training=None):
        """Return x @ kernel + bias."""
        return _product_of_two_columns(x, tf.convert_to_tensor(self.kernel)) + self.bias


@tf.custom_gradient
def _product_of_two_columns(x, w):
    def gradient(upstream):
        columns = tf.split(upstream, 2, axis=1)
        by_x = columns[0] * w[:, 0] + columns[1] * w[:, 1]
        by_w = tf.stack([tf.reduce_sum(x * column, 0) for column in columns], 1)
        return by_x, by_w

    return x @ w, gradient


def permuted(x, order):
    """Return the columns of x (N, D) in another order, as tf.gather does.

    Its gradient is the other permutation. That of tf.gather adds up in a scatter: a convolutional flow took a seventh
    longer for it.
    """
    back = np.argsort(order)

    @tf.custom_gradient
    def gather(values):
        return tf.gather(values, order, axis=1), lambda upstream: tf.gather(upstream, back, axis=1)

    return gather(x)


@keras.saving.register_keras_serializable("nice_backend")
class Permutation(keras.layers.Layer):
    """Put the columns of (N, D) in another order, a list of integers."""

    def __init__(self, order, **kwargs):
        super().__init__(**kwargs)
        self.order = order

    def call(self, x):
        """Return them."""
        return permuted(x, self.order)


# ---- After each epoch ------------------------------------------------------------------------------------------


class EveryEpoch(keras.callbacks.Callback):
    """For train_inn: draw the order of the samples before each epoch; after it validate, record, and stop at a NaN.

    Args:
        order: a variable (steps, batch size) for the rows' numbers.
        epoch: a variable for the epoch's number.
        count: how many rows there are.
        seed: of the order.
        validation: (x, condition) to evaluate after each epoch, or None.
        verbose: keep one line of a notebook or a terminal up to date.
    """

    def __init__(self, order, epoch, count, seed, validation, verbose):
        super().__init__()
        self.order, self.epoch, self.count, self.seed, self.validation = order, epoch, count, seed, validation
        self.records, self.best, self.started = [], None, time.perf_counter()
        self.show = progress_line() if verbose else lambda line, last=False: None

    def on_epoch_begin(self, epoch, logs=None):
        """Draw the order; it depends on seed and epoch alone, so a resumed training goes on as it would have."""
        if self.best is None:  # BackupAndRestore has loaded its weights by now
            self.best = (np.fmax(self.validate(), -np.inf), epoch, self.model.get_weights())
        drawn = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        self.order.assign(np.resize(drawn, self.order.shape))  # repeats from the start to fill the last row
        self.epoch.assign(epoch)

    def on_epoch_end(self, epoch, logs):
        """Add `val_loss` to the logs, for the callbacks that come after this one, and a row to the records."""
        record = {"epoch": epoch + 1, "nats": float(logs["nats"])}
        if self.validation:
            record["validation_nats"] = self.validate()
            logs["val_loss"] = -record["validation_nats"]
        if "extra_loss" in logs:
            record["extra_loss"] = float(logs["extra_loss"])
        losses = {name: logs[name] for name in ("loss", "val_loss") if name in logs}
        if not np.isfinite(list(losses.values())).all():
            self.model.set_weights(self.best[2])
            became = ", ".join(f"{name} became {value:.4g}" for name, value in losses.items())
            raise FloatingPointError(
                f"{became} in epoch {epoch + 1}; the weights of epoch {self.best[1]} are restored. Try a smaller "
                "learning_rate, flow.adapt(x) first, or bounded scales."
            )
        score = record.get("validation_nats", record["nats"])
        if score > self.best[0]:
            weights = self.model.get_weights()
            self.best = (score, epoch + 1, weights) if all(np.isfinite(w).all() for w in weights) else self.best
        self.records.append({**record, "seconds": time.perf_counter() - self.started})
        self.line = f"epoch {epoch + 1}/{self.params['epochs']} · train {record['nats']:.4g} nats"
        self.line += f" · validation {score:.4g} nats" if self.validation else ""
        left = (self.params["epochs"] - epoch - 1) * self.records[-1]["seconds"] / len(self.records)
        self.show(f"{self.line} · {left:.0f} s left")

    def validate(self):
        """Return the validation data's mean log-likelihood in nats; NaN where there are none."""
        return float(tf.reduce_mean(self.model.log_prob(*self.validation))) if self.validation else np.nan

    def on_train_end(self, logs=None):
        """Leave the last line with the time that all took."""
        if self.records:
            self.show(f"{self.line} · {self.records[-1]['seconds']:.0f} s", last=True)


def progress_line():
    """Return show(line, last=False), which keeps one line of a notebook or a terminal up to date."""
    from IPython import get_ipython
    from IPython.display import display

    notebook = getattr(get_ipython(), "kernel", None) is not None
    handle, shown = None, 0.0

    def show(line, last=False):
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
