"""What must hold for flows of any shape and for data of any size, over drawn examples."""

import nice_helpers as nh

import numpy as np
import pytest
from conftest import randomize, sample_data
from hypothesis import given, settings
from hypothesis import strategies as st

# The same examples in each run; building and tracing a flow takes longer than Hypothesis' deadline allows.
settings.register_profile("flows", max_examples=15, deadline=None, derandomize=True, database=None)
settings.load_profile("flows")

SCALES = st.sampled_from([1e-6, 1e-3, 1.0, 30.0])
SEEDS = st.integers(0, 1000)


def check(flow, x, condition):
    """Check both directions, the log-determinants, and that nothing becomes NaN, up to inputs of 1,000."""
    z, log_det = flow.forward(x, condition)
    back = flow.backward(z, condition)
    size = 1 + max(np.abs(x).max(), np.abs(z).max())
    assert np.abs(back - x).max() <= 1e-3 * size
    np.testing.assert_allclose(flow.prior.log_prob(z) + log_det, flow.log_prob(x, condition), rtol=1e-5, atol=1e-3)
    nh.check_flow(flow, x[:2], None if condition is None else condition[:2], tolerance=5e-3)
    large = 1000 * x / np.abs(x).max()
    assert np.isfinite(flow.log_prob(large, condition)).all()


@given(
    size=st.integers(2, 64),
    couplings=st.integers(1, 12),
    split=st.sampled_from(["odd-even", "half"]),
    prior=st.sampled_from(["gaussian", "logistic"]),
    rows=st.integers(1, 1000),
    scale=SCALES,
    seed=SEEDS,
)
def test_nice_of_any_shape(size, couplings, split, prior, rows, scale, seed):
    flow = randomize(nh.NICE(size, 8, 1, couplings, prior, split, seed=seed), seed, scale=0.2)
    check(flow, scale * sample_data(rows, size, seed=seed)[0], None)


@given(
    size=st.integers(2, 64),
    blocks=st.integers(1, 12),
    condition_size=st.integers(0, 10),
    rows=st.integers(1, 1000),
    scale=SCALES,
    seed=SEEDS,
)
def test_realnvp_of_any_shape(size, blocks, condition_size, rows, scale, seed):
    flow = randomize(nh.RealNVP(size, 8, blocks, condition_size, seed=seed), seed, scale=0.1)
    x, condition = sample_data(rows, size, condition_size, seed)
    check(flow, scale * x, condition)


@pytest.mark.parametrize("build", [lambda: nh.NICE(5, 16, 1, seed=0), lambda: nh.RealNVP(5, 16, 3, seed=0)])
def test_trained_flows_pass_the_checks_too(build):
    flow = build()
    x = sample_data(500, 5)[0] ** 3  # far from normal, so that training moves the scales
    flow.adapt(x)
    before = flow.get_weights()
    nh.train_inn(flow, x, epochs=10, batch_size=50, learning_rate=1e-2, verbose=False)
    assert max(np.abs(a - b).max() for a, b in zip(before, flow.get_weights(), strict=True)) > 0.1
    check(flow, x[:100], None)


@pytest.mark.parametrize("x", [np.zeros((1, 4)), np.tile([1.0, 2.0, 3.0, 4.0], (20, 1))])
def test_one_sample_and_constant_columns_train(x):
    flow = nh.NICE(4, 8, 1, seed=0)
    flow.adapt(x)
    history = nh.train_inn(flow, x, epochs=3, batch_size=8, verbose=False)
    assert np.isfinite(history["nats"]).all()
