"""Data: true densities against their generators, the images in the repository and those that Keras brings."""

import hashlib
from urllib.error import URLError

import nice_data as nd
import nice_evaluation as ne
import nice_figures as nf
import nice_helpers as nh
import nice_images as ni

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import make_moons

TOYS = {
    "parabola": (lambda n: (nd.make_parabola(n, seed=1), None), (-6, 6, -2, 26)),
    "moons": (lambda n: make_moons(n, noise=0.1, random_state=1), (-2, 3, -1.5, 2)),
    "hexagon": (lambda n: nd.make_hexagon(n, seed=1), (-2, 2, -2, 2)),
}


def histogram_and_density(x, distribution, limits, bins=40):
    """Return the share of x in each cell of a grid, and the probability that the density gives the cell."""
    left, right, bottom, top = limits
    counts, _, _ = np.histogram2d(x[:, 0], x[:, 1], bins, [limits[:2], limits[2:]])
    fine = bins * 20
    xs, ys = (a + (np.arange(fine) + 0.5) * (b - a) / fine for a, b in ((left, right), (bottom, top)))
    grid = np.stack(np.meshgrid(xs, ys, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)
    cell = (right - left) * (top - bottom) / fine**2
    log_density = np.concatenate([distribution.log_prob(part) for part in np.array_split(grid, bins)])  # 8 GB at once
    density = np.exp(log_density.astype(np.float64)).reshape(bins, 20, bins, 20) * cell
    return counts / len(x), density.sum((1, 3))


@pytest.mark.parametrize("name", TOYS)
def test_toy_densities_integrate_to_one_and_match_their_generator(name):
    generate, limits = TOYS[name]
    x, _ = generate(200_000)
    share, probability = histogram_and_density(x, nd.toy_distribution(name), limits)
    assert probability.sum() == pytest.approx(1, abs=1e-3)
    # Total variation: 0 for the same density, about 0.02 by chance with this many points and cells.
    assert np.abs(share - probability).sum() / 2 < 0.03


@pytest.mark.parametrize(("name", "label"), [("moons", 0), ("moons", 1), ("hexagon", 4), ("hexagon", [0, 3])])
def test_toy_densities_per_label(name, label):
    generate, limits = TOYS[name]
    x, y = generate(200_000)
    share, probability = histogram_and_density(x[np.isin(y, label)], nd.toy_distribution(name, label), limits)
    assert probability.sum() == pytest.approx(1, abs=1e-3)
    assert np.abs(share - probability).sum() / 2 < 0.04


def test_the_fitted_gaussian_has_the_moments_of_dequantized_pixels():
    rng = np.random.default_rng(0)
    x = np.stack([rng.integers(3, size=300), rng.integers(3, size=300), np.full(300, 2)], 1)
    x[:, 1] = np.minimum(2, x[:, 0] + x[:, 1])
    gaussian = ni.fit_gaussian(x, levels=3)
    drawn = np.concatenate([nh.dequantize(x, seed, levels=3) for seed in range(400)])
    np.testing.assert_allclose(gaussian.mean, drawn.mean(0), atol=2e-3)
    np.testing.assert_allclose(gaussian.cov, np.cov(drawn.T), atol=5e-4)  # without the noise's: 9e-3 less
    same = nh.tfd.MultivariateNormalTriL(gaussian.mean, np.linalg.cholesky(gaussian.cov))
    np.testing.assert_allclose(gaussian.logpdf(drawn[:50]), same.log_prob(drawn[:50].astype(float)), rtol=1e-9)


def test_samples_of_a_toy_distribution_have_its_moments():
    x = nd.toy_distribution("parabola").sample(50_000, seed=(1, 2)).numpy()
    np.testing.assert_allclose(x.mean(0), [0, 1], atol=0.03)
    np.testing.assert_allclose(x.var(0), [1, 2 + 0.01], rtol=0.05)


@pytest.mark.parametrize(
    ("name", "label"), [("circle", None), ("moons", 2), ("moons", 1.0), ("moons", []), ("hexagon", -1), ("parabola", 0)]
)
def test_unknown_toys_and_labels_are_refused(name, label):
    with pytest.raises(ValueError, match="got"):
        nd.toy_distribution(name, label)


def test_the_moons_density_is_exact_down_to_the_least_noise_that_it_takes():
    angles, points = np.linspace(0, np.pi, 100_001), np.linspace(0.01, 3.1, 50)
    arc, x = (np.stack([np.cos(t), np.sin(t)], 1) for t in (angles, points))
    noise = 0.05
    kernel = np.exp(-((x[:, None] - arc) ** 2).sum(2) / (2 * noise**2)) / (2 * np.pi * noise**2)
    truth = np.log(np.trapezoid(kernel, angles) / np.pi)
    received = nd.toy_distribution("moons", 0, noise=noise).log_prob(x.astype(np.float32))
    np.testing.assert_allclose(received, truth, atol=1e-5)
    for name, value in (("moons", 0.04), ("moons", np.nan), ("hexagon", 0.0), ("parabola", -0.1)):
        with pytest.raises(ValueError, match="noise must be at least"):
            nd.toy_distribution(name, noise=value)


def test_generators_are_reproducible():
    np.testing.assert_array_equal(nd.make_parabola(10, seed=3), nd.make_parabola(10, seed=3))
    np.testing.assert_array_equal(nd.make_hexagon(10, seed=3)[0], nd.make_hexagon(10, seed=3)[0])


def test_kl_divergence_against_the_closed_form():
    truth = nh.tfd.MultivariateNormalDiag([0.0, 0.0], [1.0, 1.0])
    flow = nh.Flow([nh.DiagonalScaling(2)])
    flow.transforms[0].mean.assign([0.5, 0.0])  # KL of two unit Gaussians is half the squared distance
    estimate = ne.kl_divergence(truth, flow)
    assert abs(estimate.value - 0.125) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.005


# ---- Images ----------------------------------------------------------------------------------------------------

SHA256 = {  # of the arrays' bytes, in the order of Images
    "mnist": [
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ],
    "fashion_mnist": [
        "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    ],
}


@pytest.mark.parametrize("name", SHA256)
def test_the_images_in_the_repository_are_the_original_ones(name):
    images = nd.load_images(name)
    assert [array.shape for array in images] == [(60_000, 784), (60_000,), (10_000, 784), (10_000,)]
    assert {array.dtype for array in images} == {np.dtype(np.uint8)}
    assert [hashlib.sha256(array.tobytes()).hexdigest() for array in images] == SHA256[name]


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Let data/ be empty, and Keras keep its downloads in an empty folder; return the place of MNIST there."""
    monkeypatch.setattr(nd, "FOLDER", tmp_path / "data")
    path = tmp_path / "cache/mnist.npz"
    path.parent.mkdir()
    whole = keras.src.datasets.mnist.get_file
    ours = {"cache_dir": tmp_path, "cache_subdir": "cache", "file_hash": None}
    monkeypatch.setattr(keras.src.datasets.mnist, "get_file", lambda **options: whole(**options | ours))
    return path


def test_without_the_file_keras_brings_the_images(cache):
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (8, 28, 28), np.uint8),
        "y_train": rng.integers(0, 10, 8, np.uint8),
        "x_test": rng.integers(0, 256, (4, 28, 28), np.uint8),
        "y_test": rng.integers(0, 10, 4, np.uint8),
    }
    np.savez(cache, **arrays)  # as after a download
    for received, expected in zip(nd.load_images("mnist"), arrays.values(), strict=True):
        np.testing.assert_array_equal(received, expected.reshape(len(expected), -1).squeeze())


def test_with_neither_file_nor_network_one_error_names_both_ways(cache, monkeypatch):
    def unreachable(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", unreachable)
    with pytest.raises(OSError, match=r"neither in .*mnist.npz nor .*keras.datasets.mnist.*no network.*Copy the file"):
        nd.load_images("mnist")


def test_8x8_images_are_pillows_lanczos_cropped(monkeypatch, tmp_path):
    monkeypatch.setattr(nd, "FOLDER", tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=images, y_train=np.zeros(3), x_test=images, y_test=np.zeros(3))
    expected = Image.fromarray(images[1]).resize((10, 10), Image.Resampling.LANCZOS).crop((1, 1, 9, 9))
    np.testing.assert_array_equal(nd.load_images("mnist", size=8).x_test[1].reshape(8, 8), np.asarray(expected))


@pytest.mark.parametrize(("arguments", "message"), [(("cifar",), "got 'cifar'"), (("mnist", 14), "28 or 8, got 14")])
def test_unknown_images_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        nd.load_images(*arguments)


# ---- Results ---------------------------------------------------------------------------------------------------


def test_results_are_written_whole_with_versions(monkeypatch, tmp_path):
    import json

    monkeypatch.setattr(nf, "HERE", tmp_path)
    nf.save_results("01_test", profile="default", kl_nats=np.float32(0.5), n_train=3, which="any")
    record = json.loads((tmp_path / "build/results/01_test.json").read_text())
    assert record["kl_nats"] == 0.5
    assert {"profile", "seconds", "cores", "version_tensorflow", "version_keras", "version_numpy"} <= set(record)
    for bad in (np.nan, np.inf, [1, 2], None, np.zeros(3)):
        with pytest.raises(ValueError, match="kl_nats must be a string or a finite number"):
            nf.save_results("01_test", profile="default", kl_nats=bad)
    nf.save_results("01_test", profile="smoke", kl_nats=9.0)  # must not overwrite the real run
    nf.save_results("01_test", profile="full", kl_nats=9.0)  # nor must this
    assert json.loads((tmp_path / "build/results/01_test.json").read_text()) == record
