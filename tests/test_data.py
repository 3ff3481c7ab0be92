"""Data: true densities against their generators, image files accepted, refused, downloaded and kept."""

import hashlib
import http.server
import resource
import threading

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import make_moons

import nice_helpers as nh

TOYS = {
    "parabola": (lambda n: (nh.make_parabola(n, seed=1), None), (-6, 6, -2, 26)),
    "moons": (lambda n: make_moons(n, noise=0.1, random_state=1), (-2, 3, -1.5, 2)),
    "hexagon": (lambda n: nh.make_hexagon(n, seed=1), (-2, 2, -2, 2)),
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


class Trap:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", TOYS)
def test_toy_densities_integrate_to_one_and_match_their_generator(name):
    generate, limits = TOYS[name]
    x, _ = generate(200_000)
    share, probability = histogram_and_density(x, nh.toy_distribution(name), limits)
    assert probability.sum() == pytest.approx(1, abs=1e-3)
    # Total variation: 0 for the same density, about 0.02 by chance with this many points and cells.
    assert np.abs(share - probability).sum() / 2 < 0.03


@pytest.mark.parametrize(("name", "label"), [("moons", 0), ("moons", 1), ("hexagon", 4), ("hexagon", [0, 3])])
def test_toy_densities_per_label(name, label):
    generate, limits = TOYS[name]
    x, y = generate(200_000)
    share, probability = histogram_and_density(x[np.isin(y, label)], nh.toy_distribution(name, label), limits)
    assert probability.sum() == pytest.approx(1, abs=1e-3)
    assert np.abs(share - probability).sum() / 2 < 0.04


def test_the_fitted_gaussian_has_the_moments_of_dequantized_pixels():
    rng = np.random.default_rng(0)
    x = np.stack([rng.integers(3, size=300), rng.integers(3, size=300), np.full(300, 2)], 1)
    x[:, 1] = np.minimum(2, x[:, 0] + x[:, 1])
    gaussian = nh.fit_gaussian(x, levels=3)
    drawn = np.concatenate([nh.dequantize(x, seed, levels=3) for seed in range(400)])
    np.testing.assert_allclose(gaussian.mean, drawn.mean(0), atol=2e-3)
    np.testing.assert_allclose(gaussian.cov, np.cov(drawn.T), atol=5e-4)  # without the noise's: 9e-3 less
    same = nh.tfd.MultivariateNormalTriL(gaussian.mean, np.linalg.cholesky(gaussian.cov))
    np.testing.assert_allclose(gaussian.logpdf(drawn[:50]), same.log_prob(drawn[:50].astype(float)), rtol=1e-9)


def test_samples_of_a_toy_distribution_have_its_moments():
    x = nh.toy_distribution("parabola").sample(50_000, seed=(1, 2)).numpy()
    np.testing.assert_allclose(x.mean(0), [0, 1], atol=0.03)
    np.testing.assert_allclose(x.var(0), [1, 2 + 0.01], rtol=0.05)


@pytest.mark.parametrize(("name", "label"), [("circle", None), ("moons", 2), ("hexagon", -1), ("parabola", 0)])
def test_unknown_toys_and_labels_are_refused(name, label):
    with pytest.raises(ValueError, match="got"):
        nh.toy_distribution(name, label)


def test_generators_are_reproducible():
    np.testing.assert_array_equal(nh.make_parabola(10, seed=3), nh.make_parabola(10, seed=3))
    np.testing.assert_array_equal(nh.make_hexagon(10, seed=3)[0], nh.make_hexagon(10, seed=3)[0])


def test_kl_divergence_against_the_closed_form():
    truth = nh.tfd.MultivariateNormalDiag([0.0, 0.0], [1.0, 1.0])
    flow = nh.Flow([nh.DiagonalScaling(2)])
    flow.transforms[0].mean.assign([0.5, 0.0])  # KL of two unit Gaussians is half the squared distance
    estimate = nh.kl_divergence(truth, flow)
    assert abs(estimate.value - 0.125) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.005


# ---- Images ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Let a set of 12 random images pass for MNIST, in an empty project folder without network."""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (8, 28, 28), np.uint8),
        "y_train": rng.integers(0, 10, 8, np.uint8),
        "x_test": rng.integers(0, 256, (4, 28, 28), np.uint8),
        "y_test": rng.integers(0, 10, 4, np.uint8),
    }
    digest = hashlib.sha256(b"".join(a.tobytes() for a in arrays.values())).hexdigest()
    monkeypatch.setitem(nh._SHA256, "mnist", digest)
    monkeypatch.setattr(nh, "HERE", tmp_path)
    monkeypatch.setattr(nh, "DOWNLOAD_URL", "http://127.0.0.1:9/")
    monkeypatch.delenv("NICE_DATA", raising=False)
    return arrays


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_bundled_subsets_are_whole_and_balanced(name, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(nh, "DOWNLOAD_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("NICE_DATA", str(tmp_path))
    monkeypatch.setattr(nh, "_download_images", lambda name: (_ for _ in ()).throw(OSError("no network")))
    here = tmp_path / "project"
    here.mkdir()
    (here / "data").symlink_to(nh.HERE / "data")
    for full in (nh.HERE / "data").glob(f"{name}.npz"):
        pytest.fail(f"remove {full.name} from data/ before running the tests")
    images = nh.load_images(name)
    assert images.source == "bundled subset"
    assert images.x_train.shape == (4000, 784)
    assert images.x_test.shape == (1000, 784)
    assert np.bincount(images.y_train).tolist() == [400] * 10
    assert np.bincount(images.y_test).tolist() == [100] * 10
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "bundled subset" in line
    assert "no network" in line


def test_a_faithful_copy_is_accepted_from_nice_data(tiny, monkeypatch, tmp_path, capsys):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    np.savez(folder / "mnist.npz", **tiny)
    monkeypatch.setenv("NICE_DATA", str(folder))
    images = nh.load_images("mnist")
    assert images.source == "full"
    np.testing.assert_array_equal(images.x_train.reshape(8, 28, 28), tiny["x_train"])
    assert "full, 8 training and 4 test images" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage", ["a changed pixel", "a truncated file", "another dtype", "pickled objects", "no file"]
)
def test_damaged_copies_are_refused(tiny, damage, tmp_path):
    path = tmp_path / "data" / "mnist.npz"
    path.parent.mkdir()
    if damage == "a changed pixel":
        tiny["x_test"][0, 0, 0] ^= 1
    if damage == "another dtype":
        tiny["y_test"] = tiny["y_test"].astype(np.int64)
    if damage == "pickled objects":
        tiny["y_test"] = np.array([Trap(tmp_path / "trapped")], object)
    np.savez_compressed(path, **tiny)
    if damage == "a truncated file":
        path.write_bytes(path.read_bytes()[:-100])
    if damage == "no file":
        path.unlink()
        with pytest.raises(OSError, match="Copy mnist.npz there, or set NICE_DATA"):
            nh.load_images("mnist")
        return
    with pytest.raises(ValueError, match=r"mnist.npz.* is damaged.*Delete it and run again"):
        nh.load_images("mnist")
    assert not (tmp_path / "trapped").exists()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve a folder on a free port of this machine."""
    folder = tmp_path / "www"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        monkeypatch.setattr(nh, "DOWNLOAD_URL", f"http://127.0.0.1:{httpd.server_address[1]}/")
        yield folder
        httpd.shutdown()


def test_a_download_is_checked_and_kept(tiny, server, tmp_path, capsys):
    np.savez(server / "mnist.npz", **tiny)
    assert nh.load_images("mnist").source == "full"
    (server / "mnist.npz").unlink()
    assert nh.load_images("mnist").source == "full"
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["mnist.npz"]
    assert capsys.readouterr().out.count("\n") == 2


def test_a_wrong_download_leaves_nothing_behind(tiny, server, tmp_path):
    tiny["x_train"][0] = 0
    np.savez(server / "mnist.npz", **tiny)
    with pytest.raises(OSError, match="mnist could not be downloaded .*damaged"):
        nh.load_images("mnist")
    assert not list((tmp_path / "data").glob("**/*")) if (tmp_path / "data").exists() else True


@pytest.mark.parametrize("fault", ["not found", "truncated", "another page", "stalled"])
def test_a_faulty_server_leaves_nothing_behind(tiny, fault, tmp_path, monkeypatch):
    finished = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if fault == "not found":
                self.send_error(404)
                return
            self.send_response(200)
            body = b"<html>please log in</html>" if fault == "another page" else b"PK" * 50
            self.send_header("Content-Length", str(len(body) if fault == "another page" else 10_000))
            self.end_headers()
            self.wfile.write(body)
            if fault == "stalled":
                self.wfile.flush()
                finished.wait()

        def log_message(self, *args):
            pass

    monkeypatch.setattr(nh, "DOWNLOAD_TIMEOUT", 0.5)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        monkeypatch.setattr(nh, "DOWNLOAD_URL", f"http://127.0.0.1:{httpd.server_address[1]}/")
        with pytest.raises(OSError, match="could not be downloaded .*set NICE_DATA"):
            nh.load_images("mnist")
        finished.set()
        httpd.shutdown()
    assert not list(tmp_path.glob("data/**/*"))


@pytest.mark.parametrize("file_in_the_way", [True, False])
def test_images_are_used_where_no_copy_can_be_kept(tiny, server, tmp_path, monkeypatch, capsys, file_in_the_way):
    np.savez(server / "mnist.npz", **tiny)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if file_in_the_way:
        (tmp_path / "data").write_text("not a folder")
    else:  # a disk that is full once the download is there
        write = nh._write_whole

        def write_on_a_full_disk(path, content):
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
            write(path, content)

        monkeypatch.setattr(nh, "_write_whole", write_on_a_full_disk)
    try:
        assert nh.load_images("mnist").source == "full"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "no copy kept in data/" in capsys.readouterr().out
    assert not list(tmp_path.glob("data/*"))


def test_8x8_images_are_pillows_lanczos_cropped(tiny, server):
    np.savez(server / "mnist.npz", **tiny)
    images = nh.load_images("mnist", size=8)
    expected = Image.fromarray(tiny["x_test"][1]).resize((10, 10), Image.Resampling.LANCZOS).crop((1, 1, 9, 9))
    np.testing.assert_array_equal(images.x_test[1].reshape(8, 8), np.asarray(expected))


@pytest.mark.parametrize(("arguments", "message"), [(("cifar",), "got 'cifar'"), (("mnist", 14), "28 or 8, got 14")])
def test_unknown_images_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        nh.load_images(*arguments)


# ---- Results ---------------------------------------------------------------------------------------------------


def test_results_are_written_whole_with_versions(monkeypatch, tmp_path):
    import json

    monkeypatch.setattr(nh, "HERE", tmp_path)
    nh.save_results("01_test", profile="default", kl_nats=np.float32(0.5), n_train=3, data_source="full")
    record = json.loads((tmp_path / "build/results/01_test.json").read_text())
    assert record["kl_nats"] == 0.5
    assert {"profile", "seconds", "cores", "version_tensorflow", "version_keras", "version_numpy"} <= set(record)
    for bad in (np.nan, np.inf, [1, 2], None):
        with pytest.raises(ValueError, match="kl_nats must be a string or a finite number"):
            nh.save_results("01_test", profile="default", kl_nats=bad)
    nh.save_results("01_test", profile="smoke", kl_nats=9.0)  # must not overwrite the real run
    nh.save_results("01_test", profile="full", kl_nats=9.0)  # nor must this
    assert json.loads((tmp_path / "build/results/01_test.json").read_text()) == record
