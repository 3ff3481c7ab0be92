"""mmd, bits_per_dim and code_report on cases whose answer is known."""

import nice_evaluation as ne
import nice_helpers as nh

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics.pairwise import rbf_kernel


def gaussian_mmd2(shift, bandwidth, dimensions):
    """Return MMD² of N(0, I) and N(shift, I) under one Gaussian kernel, in closed form (a Gaussian integral)."""
    b2 = bandwidth**2
    return 2 * (b2 / (b2 + 2)) ** (dimensions / 2) * (1 - np.exp(-np.sum(np.square(shift)) / (2 * (b2 + 2))))


@pytest.mark.parametrize("shift", [[0.0, 0.0], [1.0, -0.5]])
def test_mmd_against_the_closed_form(shift):
    rng, count = np.random.default_rng(3), 50
    pairs = rng.standard_normal((count, 2, 300, 2)) + np.array([np.zeros(2), shift])[:, None]
    values = [ne.mmd(x, y, bandwidths=[0.5, 2.0]) for x, y in pairs]
    expected = np.mean([gaussian_mmd2(shift, b, 2) for b in (0.5, 2.0)])
    assert abs(np.mean(values) - expected) < 4 * np.std(values) / np.sqrt(count)
    assert np.std(values) / np.sqrt(count) < 3e-3


def test_mmd_is_unbiased():
    rng = np.random.default_rng(0)
    values = [ne.mmd(rng.standard_normal((20, 2)), rng.standard_normal((20, 2)), bandwidths=[1.0]) for _ in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 20
    assert min(values) < 0


@pytest.mark.parametrize(("rows", "tolerance"), [(20, 1e-6), (2000, 2e-9)])
def test_mmd_agrees_with_scikit_learns_kernel(rows, tolerance):
    rng = np.random.default_rng(0)
    x, y = [rng.standard_normal((n, 3)).astype(np.float32).astype(float) for n in (rows + 10, rows)]
    kernel = lambda a, b: rbf_kernel(a, b, gamma=1 / (2 * 0.7**2))  # noqa: E731
    within = [kernel(a, a)[~np.eye(len(a), dtype=bool)].mean() for a in (x, y)]
    assert ne.mmd(x, y, bandwidths=[0.7]) == pytest.approx(sum(within) - 2 * kernel(x, y).mean(), abs=tolerance)


def test_the_floor_is_where_real_against_real_falls():
    rng = np.random.default_rng(0)
    floors = []
    for real in rng.standard_normal((8, 1000, 2)):
        bandwidths = ne.median_bandwidths(real)
        floors.append(ne.mmd_floor(real, 250, bandwidths=bandwidths))
    floor = floors[-1]
    fresh = [ne.mmd(*rng.standard_normal((2, 250, 2)), bandwidths=bandwidths) for _ in range(100)]
    assert abs(np.mean([one.mean for one in floors])) < 2e-4  # one set's deviates by 1.3e-4
    assert floor.quantile95 == pytest.approx(np.quantile(fresh, 0.95), rel=0.5)
    shifted = ne.mmd(real[:250] + 0.5, real[250:500], bandwidths=bandwidths)
    assert shifted > 3 * floor.quantile95


def test_median_bandwidths():
    line = np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    np.testing.assert_allclose(ne.median_bandwidths(line), [0.5, 1, 2, 4])


def test_bad_samples_are_refused():
    with pytest.raises(ValueError, match="at least 2 samples each, got 1 and 5"):
        ne.mmd(np.zeros((1, 2)), np.zeros((5, 2)), bandwidths=[1.0])
    with pytest.raises(ValueError, match=r"y must have shape \(N, 2\), got \(5, 3\)"):
        ne.mmd(np.zeros((4, 2)), np.zeros((5, 3)), bandwidths=[1.0])
    with pytest.raises(ValueError, match="at least 2 × 3 samples, got 5"):
        ne.mmd_floor(np.zeros((5, 2)), 3, bandwidths=[1.0])
    with pytest.raises(ValueError, match="num_samples must be an integer ≥ 2, got 1"):
        ne.mmd_floor(np.zeros((5, 2)), 1, bandwidths=[1.0])


def test_quality_card_on_sets_whose_answer_is_known():
    rng = np.random.default_rng(5)
    labels = rng.integers(2, size=1200)
    x = rng.standard_normal((1200, 4)) + 3 * labels[:, None]
    forest = RandomForestClassifier(50, random_state=0).fit(x[:400], labels[:400])
    card = ne.quality_card(x[400:800], {"same": x[800:], "shifted": x[800:] + 4}, forest)
    same, shifted = card.loc["same"], card.loc["shifted"]
    assert same["mmd2"] < 2 * same["mmd2_floor95"]
    assert same["c2st_accuracy"] == pytest.approx(0.5, abs=0.1)
    assert same["confidence"] > 0.95
    assert shifted["mmd2"] > 5 * shifted["mmd2_floor95"]
    assert shifted["c2st_accuracy"] > 0.9


def test_bits_per_dim_of_known_densities():
    assert nh.bits_per_dim(0.0, 784) == 8  # uniform on [0, 1)
    assert nh.bits_per_dim(784 * np.log(256), 784) == pytest.approx(0)  # all mass in one cell
    assert nh.bits_per_dim(64 * np.log(17), 64, levels=17) == pytest.approx(0)


def identity_flow(size):
    return nh.Flow([nh.DiagonalScaling(size)])


def test_code_report_accepts_normal_codes():
    for size in (2, 50):
        report = ne.code_report(identity_flow(size), np.random.default_rng(1).standard_normal((2000, size)))
        assert report["normal"].all(), report


@pytest.mark.parametrize(
    ("change", "row"),
    [
        (lambda z: z + np.eye(5)[0] * 0.3, "mean"),
        (lambda z: z * (1 + 0.2 * np.eye(5)[1]), "deviation"),
        (lambda z: z / np.linalg.norm(z, axis=1, keepdims=True) * np.sqrt(5), "radius"),
        (lambda z: np.sign(z) * np.abs(z) ** 0.5, "projection"),
    ],
)
def test_code_report_finds_what_is_wrong(change, row):
    report = ne.code_report(identity_flow(5), change(np.random.default_rng(2).standard_normal((3000, 5))))
    assert not report.loc[row, "normal"]


def test_code_report_needs_a_gaussian_prior():
    with pytest.raises(ValueError, match="Gaussian prior, got logistic"):
        ne.code_report(nh.NICE(2, 4, 1), np.zeros((5, 2)))
