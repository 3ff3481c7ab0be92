"""Fixtures that several test files share."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path.name for path in ROOT.glob("nice_*.py"))
sys.path.insert(0, str(ROOT))

import nice_helpers as nh  # noqa: E402


def make_coupling(kind, size, condition_size=0, *, split="odd-even", swap=False, seed=0):
    """Return a coupling whose weights are all random: fresh ones are the identity, which hides errors."""
    kept, changed = nh.coupling_sizes(size, swap=swap)
    network = nh.mlp(kept + condition_size, changed * kind.outputs_per_column, hidden_size=16, hidden_layers=2)
    layer = kind(size, network, split=split, swap=swap, condition_size=condition_size)
    return randomize(layer, seed)


def randomize(layer, seed=0, scale=0.5):
    """Set all trainable weights of a layer or flow to normal random numbers and return it."""
    rng = np.random.default_rng(seed)
    for weight in layer.trainable_weights:
        weight.assign(scale * rng.standard_normal(weight.shape))
    return layer


def sample_data(n, size, condition_size=0, seed=0):
    """Return normal data (n, size) and a condition (n, condition_size), or None where that is 0."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, size)).astype(np.float32)
    return x, rng.standard_normal((n, condition_size)).astype(np.float32) if condition_size else None


@pytest.fixture
def small_flow():
    """Return a RealNVP over two columns with random weights."""
    return randomize(nh.RealNVP(2, 16, 3, seed=0), scale=0.3)
