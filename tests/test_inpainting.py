"""inpaint against closed forms: the flow is a rotation and a scaling, so its density is a known Gaussian."""

import nice_helpers as nh
import nice_images as ni

import keras
import numpy as np
import pytest
from conftest import randomize, sample_data
from scipy.stats import multivariate_normal

KNOWN = np.array([True, False, True, False])
START = np.zeros(4, np.float32)


@pytest.fixture
def gaussian():
    """Return a flow over 4 columns, and the mean and covariance of its density."""
    flow = nh.Flow([nh.OrthogonalMixing(4, seed=1), nh.DiagonalScaling(4)])
    flow.transforms[1].log_scale.assign([0.0, 0.7, -0.5, 0.3])
    flow.transforms[1].mean.assign([1.0, -1.0, 0.5, 0.0])
    rotation, deviation = flow.transforms[0].matrix.numpy(), np.exp(-flow.transforms[1].log_scale.numpy())
    return flow, rotation @ flow.transforms[1].mean.numpy(), rotation @ np.diag(deviation**2) @ rotation.T


def conditional_mean(x, known, mean, covariance):
    gain = covariance[np.ix_(~known, known)] @ np.linalg.inv(covariance[np.ix_(known, known)])
    return mean[~known] + (x[:, known] - mean[known]) @ gain.T


def test_the_fixture_is_the_gaussian_it_says(gaussian):
    flow, mean, covariance = gaussian
    x = sample_data(5, 4)[0]
    np.testing.assert_allclose(flow.log_prob(x), multivariate_normal(mean, covariance).logpdf(x), rtol=1e-5)


def test_it_finds_the_conditional_mode_and_keeps_known_values_bit_by_bit(gaussian):
    flow, mean, covariance = gaussian
    x = sample_data(6, 4)[0]
    restored = ni.inpaint(flow, x, KNOWN, START, steps=400, space="real")
    np.testing.assert_array_equal(restored.x[:, KNOWN], x[:, KNOWN])
    np.testing.assert_allclose(restored.x[:, ~KNOWN], conditional_mean(x, KNOWN, mean, covariance), atol=2e-3)


@pytest.mark.parametrize("space", ["logit", "clip"])
def test_the_bounded_spaces_find_the_mode_within_the_bounds(space):
    flow = nh.Flow([nh.DiagonalScaling(2)])
    flow.transforms[0].mean.assign([0.5, 0.3])
    x, known = np.array([[0.9, 0.0]], np.float32), np.array([True, False])
    inside = ni.inpaint(flow, x, known, [0.5, 0.8], steps=400, space=space)
    np.testing.assert_allclose(inside.x, [[0.9, 0.3]], atol=2e-3)
    flow.transforms[0].mean.assign([0.5, 1.7])  # the mode lies beyond the bound
    outside = ni.inpaint(flow, x, known, [0.5, 0.8], steps=400, space=space)
    assert 0.98 < outside.x[0, 1] <= 1


def test_a_mask_for_each_sample_and_the_batch_as_one_by_one(gaussian):
    flow, x = gaussian[0], sample_data(3, 4)[0]
    known = np.array([[True, False, True, False], [False, True, True, True], [False, False, False, True]])
    together = ni.inpaint(flow, x, known, START, space="real").x
    alone = [ni.inpaint(flow, x[i : i + 1], known[i], START, space="real").x[0] for i in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_array_equal(together[known], x[known])


def test_nothing_unknown_changes_nothing_and_nothing_known_finds_the_mode(gaussian):
    flow, mean, _ = gaussian
    x = sample_data(3, 4)[0]
    unchanged = ni.inpaint(flow, x, np.ones(4, bool), START, steps=5, space="real")
    np.testing.assert_array_equal(unchanged.x, x)
    np.testing.assert_allclose(unchanged.log_prob, np.tile(flow.log_prob(x), (6, 1)), rtol=1e-5)
    everything = ni.inpaint(flow, x, np.zeros(4, bool), START, steps=400, space="real")
    np.testing.assert_allclose(everything.x, np.tile(mean, (3, 1)), atol=2e-3)


def test_the_trajectory_begins_at_the_start_and_ends_at_the_result(gaussian):
    flow, x = gaussian[0], sample_data(3, 4)[0]
    restored = ni.inpaint(flow, x, KNOWN, START, steps=7, space="real")
    assert restored.log_prob.shape == (8, 3)
    np.testing.assert_allclose(restored.log_prob[0], flow.log_prob(np.where(KNOWN, x, START)), rtol=1e-5)
    np.testing.assert_allclose(restored.log_prob[-1], flow.log_prob(restored.x), rtol=1e-5)


def test_gradient_ascent_step_by_step(gaussian):
    flow, mean, covariance = gaussian
    x = sample_data(2, 4)[0]
    restored = ni.inpaint(flow, x, KNOWN, START, steps=1, optimizer=keras.optimizers.SGD(0.1), space="real")
    begin = np.where(KNOWN, x, START)
    uphill = (mean - begin) @ np.linalg.inv(covariance)  # the gradient of a Gaussian's log-density
    np.testing.assert_allclose(restored.x, np.where(KNOWN, x, begin + 0.1 * uphill), atol=1e-5)


def test_noise_is_reproducible_and_spares_known_values(gaussian):
    flow, x = gaussian[0], sample_data(2, 4)[0]
    options = {"steps": 5, "noise": 1.0, "space": "real"}
    runs = [ni.inpaint(flow, x, KNOWN, START, seed=seed, **options).x for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2])[:, ~KNOWN].all()
    np.testing.assert_array_equal(runs[2][:, KNOWN], x[:, KNOWN])


def test_a_conditional_flow_climbs_its_own_density():
    flow = randomize(nh.RealNVP(2, 8, 2, condition_size=1, seed=0), scale=0.3)
    x, known = np.zeros((2, 2), np.float32), np.array([True, False])
    restored = ni.inpaint(flow, x, known, [0.0, 0.0], condition=[[0.0], [3.0]], space="real")
    grid = np.stack([np.zeros(2001), np.linspace(-5, 5, 2001)], 1)
    for value, condition in zip(restored.x[:, 1], (0.0, 3.0), strict=True):
        best = grid[np.argmax(flow.log_prob(grid, np.full((2001, 1), condition))), 1]
        assert value == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"known": np.ones(3, bool)}, r"known must have shape \(4,\) or \(2, 4\), got \(3,\)"),
        ({"known": np.ones((1, 4), bool)}, r"known must have shape .* got \(1, 4\)"),
        ({"known": np.ones(4)}, "known must be of dtype bool, got float64"),
        ({"start": np.zeros((2, 3))}, r"start must have shape .* got \(2, 3\)"),
        ({"start": np.full(4, 2.0), "space": "logit"}, r"start must lie in \[0, 1\]"),
        ({"start": np.full(4, np.nan), "space": "clip"}, r"start must lie in \[0, 1\]"),
        ({"steps": -1}, "steps must be an integer ≥ 0, got -1"),
        ({"steps": 2.5}, "steps must be an integer ≥ 0, got 2.5"),
        ({"space": "sigmoid"}, 'space must be "logit", "clip" or "real"'),
        ({"x": np.full((2, 4), np.nan)}, "x must be finite"),
        ({"condition": np.zeros((2, 1))}, "condition must be None"),
    ],
)
def test_unusable_input_is_refused(gaussian, change, message):
    arguments = {"x": sample_data(2, 4)[0], "known": KNOWN, "start": START, "space": "real"} | change
    with pytest.raises(ValueError, match=message):
        ni.inpaint(gaussian[0], arguments.pop("x"), arguments.pop("known"), arguments.pop("start"), **arguments)


def test_a_divergent_climb_is_an_error(gaussian):
    with pytest.raises(FloatingPointError, match="smaller rate"):
        ni.inpaint(gaussian[0], np.zeros((1, 4)), KNOWN, START, optimizer=keras.optimizers.SGD(1e9), space="real")
