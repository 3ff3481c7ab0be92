"""What all competitors share: settings from the command line, data, the clock, and one line of JSON as output."""

import functools
import json
import os
import statistics
import sys
import time

import numpy as np

SETTINGS = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}


def data():
    """Return training points (N, D) and their condition (N, C) or None; two moons where D is 2."""
    from sklearn.datasets import make_moons

    n, dimensions, size = SETTINGS["points"], SETTINGS["dimensions"], SETTINGS["condition"]
    if dimensions == 2:
        x, label = make_moons(n, noise=0.1, random_state=0)
    else:
        x = np.random.default_rng(0).standard_normal((n, dimensions))
        label = (x[:, 0] > 0).astype(int)
    return x.astype(np.float32), np.eye(size, dtype=np.float32)[label] if size else None


def moons_log_prob(x):
    """Return the log-density (nats) of make_moons with noise 0.1: normal noise integrated along the two arcs."""
    t = (np.arange(2000) + 0.5) * np.pi / 2000
    arcs = np.concatenate([np.stack([np.cos(t), np.sin(t)], 1), np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1)])
    squared = ((x[:, None] - arcs) ** 2).sum(2)
    return np.log(np.exp(-squared / 0.02).mean(1) / (2 * np.pi * 0.01))


@functools.cache
def _true_moons():
    """Return 4,000 points and their mean true log-density; it costs more than a small model's."""
    from sklearn.datasets import make_moons

    x = make_moons(4000, noise=0.1, random_state=1)[0].astype(np.float32)
    return x, float(np.mean(moons_log_prob(x.astype(np.float64))))


def kl(log_prob):
    """Return the KL divergence in nats of the two moons from a model, over 4,000 points."""
    x, true = _true_moons()
    return true - float(np.mean(np.asarray(log_prob(x))))


def seconds_since_start():
    """Return the seconds since the driver started this process."""
    return time.time() - float(os.environ["BENCH_STARTED"])


def per_second(function, count, repeats=5):
    """Return the median of count / seconds over calls of function(), after one call that does not count."""
    function()
    values = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        values.append(count / (time.perf_counter() - started))
    return statistics.median(values)


def matmul_ceiling(multiply, a):
    """Return GFLOP/s of multiply(a, a) for a square matrix."""
    return per_second(lambda: multiply(a, a), 2 * len(a) ** 3 / 1e9, repeats=9)


def report(**numbers):
    """Print the numbers as the line that the driver reads."""
    print("RESULT " + json.dumps(numbers))
