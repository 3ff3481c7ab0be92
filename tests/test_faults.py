"""Processes killed on the way: what is left is whole, and the next run completes. Slow; run by `make test-slow`."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import ROOT
from test_export import make, project  # noqa: F401  the fixture

pytestmark = pytest.mark.slow

TRAIN = """
import sys
sys.path.insert(0, sys.argv[1])
import nice_helpers as nh
import keras, numpy as np

class Say(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        print(epoch, flush=True)

x = np.random.default_rng(0).standard_normal((2000, 2))
flow = nh.RealNVP(2, 16, 2, seed=0)
callbacks = [keras.callbacks.BackupAndRestore(sys.argv[2]), Say()]
nh.train_inn(flow, x, epochs=int(sys.argv[3]), batch_size=100, callbacks=callbacks, verbose=False)
np.savez(sys.argv[2] + ".npz", *flow.get_weights())
"""


def train(folder, epochs):
    command = [sys.executable, "-c", TRAIN, str(ROOT), str(folder), str(epochs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_training_loses_at_most_one_epoch_and_ends_the_same(tmp_path):
    with train(tmp_path / "killed", 10_000) as process:
        for line in process.stdout:
            if int(line) >= 20:
                process.kill()
                break
        reached = [int(line), *map(int, process.stdout)][-1]  # it went on until the signal came
    with train(tmp_path / "killed", reached + 3) as process:
        epochs = [int(line) for line in process.stdout]
    assert process.returncode == 0
    assert reached - 1 <= epochs[0] <= reached
    with train(tmp_path / "undisturbed", reached + 3) as process:
        assert [int(line) for line in process.stdout] == list(range(reached + 3))
    weights = [np.load(tmp_path / f"{name}.npz") for name in ("killed", "undisturbed")]
    for key in weights[0]:
        np.testing.assert_array_equal(weights[0][key], weights[1][key])


def test_builds_killed_at_random_moments_leave_whole_files_and_the_next_one_completes(project):  # noqa: F811
    assert make(project, "export-html").returncode == 0
    build, expected = project / "build", (project / "build/handin-all.zip").read_bytes()
    rng, stopped = random.Random(0), 0
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    for _ in range(20):
        shutil.rmtree(build)
        command = ["make", "-C", str(project), "export-html"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": clean}
        with subprocess.Popen(command, start_new_session=True, **quiet) as process:
            try:
                process.wait(rng.uniform(0.2, 8))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                stopped += 1
        for page in build.glob("default/[!.]*.html"):
            assert page.read_text().rstrip().endswith("</html>")
        for notebook in build.glob("default/[!.]*.ipynb"):
            json.loads(notebook.read_text())
        for archive in build.glob("[!.]*.zip"):
            assert zipfile.ZipFile(archive).testzip() is None
        again = make(project, "export-html")
        assert again.returncode == 0, again.stderr
        assert (build / "handin-all.zip").read_bytes() == expected
    assert stopped >= 10


DOWNLOAD = """
import sys
sys.path.insert(0, sys.argv[1])
import nice_helpers as nh
from pathlib import Path
nh.HERE, nh.DOWNLOAD_URL, nh._SHA256["mnist"] = Path(sys.argv[2]), sys.argv[3], sys.argv[4]
print(sys.stdin.readline())
print(nh.load_images("mnist").source)
"""


def test_two_processes_that_download_at_once_leave_one_whole_file(tmp_path):
    import hashlib
    import http.server
    import threading

    arrays = {"x_train": np.zeros((8, 28, 28), np.uint8), "y_train": np.zeros(8, np.uint8)}
    arrays |= {"x_test": np.ones((4, 28, 28), np.uint8), "y_test": np.ones(4, np.uint8)}
    digest = hashlib.sha256(b"".join(a.tobytes() for a in arrays.values())).hexdigest()
    (tmp_path / "www").mkdir()
    np.savez(tmp_path / "www/mnist.npz", **arrays)
    handler = lambda *args: http.server.SimpleHTTPRequestHandler(*args, directory=tmp_path / "www")  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{httpd.server_address[1]}/"
        command = [sys.executable, "-c", DOWNLOAD, str(ROOT), str(tmp_path), address, digest]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        clean = {k: v for k, v in os.environ.items() if k != "NICE_DATA"}
        processes = [subprocess.Popen(command, env=clean, **pipes) for _ in range(3)]
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [process.communicate()[0].splitlines()[-1] for process in processes]
        httpd.shutdown()
    assert answers == ["full"] * 3
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mnist.npz"]
    with np.load(tmp_path / "data/mnist.npz") as file:
        np.testing.assert_array_equal(file["x_test"], arrays["x_test"])
