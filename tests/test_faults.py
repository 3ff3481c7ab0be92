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
import nice_data as nd
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
