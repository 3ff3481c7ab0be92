"""Our side of the comparison: nice_helpers."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import nice_helpers as nh  # noqa: I001  first, so that TensorFlow starts quietly
import nice_images as ni
import common
import keras
import numpy as np
import tensorflow as tf

S = common.SETTINGS


class Epochs(keras.callbacks.Callback):
    """Keep the time of each epoch's end; stop where `until` says so."""

    def __init__(self, until=lambda: False):
        super().__init__()
        self.times, self.until = [], until

    def on_epoch_end(self, epoch, logs=None):
        """Look at the clock."""
        self.times.append(time.perf_counter())
        self.model.stop_training = self.until()


def realnvp():
    """Train, evaluate and sample RealNVP; samples per second of each, and the seconds until the first epoch's end."""
    x, c = common.data()
    flow = nh.RealNVP(S["dimensions"], S["hidden"], S["blocks"], S["condition"], seed=0)
    epochs, started = Epochs(), time.perf_counter()
    nh.train_inn(flow, x, c, epochs=S["epochs"], batch_size=S["batch"], callbacks=[epochs], verbose=False)
    numbers = {"first_epoch_seconds": epochs.times[0] - started}
    numbers["train"] = len(x) / float(np.median(np.diff(epochs.times)))
    if S.get("evaluate"):
        many = np.resize(x, (100_000, S["dimensions"]))
        numbers["log_prob"] = common.per_second(lambda: flow.log_prob(many).numpy(), len(many))
        numbers["sample"] = common.per_second(lambda: flow.sample(len(many), seed=1).numpy(), len(many))
    common.report(**numbers)


def to_kl():
    """Train until the KL divergence is at most 0.05 nats; seconds since the process started."""
    x, _ = common.data()
    flow = nh.RealNVP(2, S["hidden"], S["blocks"], seed=0)
    reached = Epochs(lambda: common.kl(flow.log_prob) <= 0.05)
    nh.train_inn(flow, x, epochs=40, batch_size=S["batch"], callbacks=[reached], verbose=False)
    common.report(seconds=common.seconds_since_start(), epochs=len(reached.times))


def nice():
    """Train NICE on random images; samples per second, and the matrix product's GFLOP/s."""
    x = np.random.default_rng(0).integers(0, 256, (S["points"], 784), dtype=np.uint8)
    flow, epochs = nh.NICE(784, S["hidden"], 5, seed=0), Epochs()
    options = {"epochs": S["epochs"], "batch_size": S["batch"], "augment": nh.dequantize, "callbacks": [epochs]}
    nh.train_inn(flow, x, verbose=False, **options)
    multiply = tf.function(tf.matmul)
    ceiling = common.matmul_ceiling(lambda a, b: multiply(a, b).numpy(), tf.random.normal((2048, 2048)))
    common.report(train=len(x) / float(np.median(np.diff(epochs.times))), matmul_gflops=ceiling)


def inpaint():
    """Fill in lower halves; images per second over 500 steps, compilation included."""
    flow, known = nh.NICE(784, 512, 1, seed=0), np.arange(784) < 392
    x = np.random.default_rng(0).uniform(size=(S["images"], 784)).astype(np.float32)
    started = time.perf_counter()
    ni.inpaint(flow, x, known, x.mean(0), steps=500)
    common.report(images=len(x) / (time.perf_counter() - started))


globals()[S["work"]]()
