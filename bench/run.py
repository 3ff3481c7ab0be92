"""Compare training, evaluation, sampling and inpainting with what a user would pick instead; write results/bench.json.

Every measurement is a process of its own. Competitors take turns, several times over; a figure is the median over
the turns, and *_spread is the largest minus the smallest. Ratios are ours by theirs: above 1 we are faster.
Run by `make bench`, with nothing else running; `bench/run.py main_job` and the like run one part again.
"""

import contextlib
import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
EAGER = ("FrEIA", "normflows", "nflows", "zuko")
SCRIPTS = {"ours": "ours.py", "jax": "jax_scan.py"}  # the others are in torch_peers.py
FLOW = {"work": "realnvp", "dimensions": 2, "hidden": 128, "blocks": 8, "batch": 256, "condition": 0}
MOONS = FLOW | {"points": 50_000, "epochs": 4, "evaluate": True}


def measure(library, **settings):
    """Run one competitor once; return the numbers that it reports."""
    command = [
        sys.executable,
        HERE / SCRIPTS.get(library, "torch_peers.py"),
        json.dumps({"library": library} | settings),
    ]
    environment = os.environ | {"BENCH_STARTED": str(time.time())}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise RuntimeError(f"{library} failed at {settings}:\n{done.stderr[-2000:]}")
    print(f"{library:10} {lines[-1][7:]}", flush=True)
    return json.loads(lines[-1][7:])


def in_turns(prefix, libraries, record, turns=3, **settings):
    """Let the libraries take turns; put medians and spreads into the record and return the medians."""
    runs = {library: [] for library in libraries}
    for _ in range(turns):
        for library in libraries:
            runs[library].append(measure(library, **settings))
    medians = {}
    for library, values in runs.items():
        medians[library] = {key: statistics.median(v[key] for v in values) for key in values[0]}
        for key, value in medians[library].items():
            record[f"{prefix}_{library}_{key}"] = value
            record[f"{prefix}_{library}_{key}_spread"] = max(v[key] for v in values) - min(v[key] for v in values)
    return medians


def against(medians, key, peers):
    """Return ours divided by the best of the peers."""
    return medians["ours"][key] / max(medians[peer][key] for peer in peers)


def two_moons(record):
    """Work 1 and 2: RealNVP on two moons, plain and conditional."""
    medians = in_turns("moons", ("ours", *EAGER, "torch.compile", "jax"), record, **MOONS)
    record["train_vs_best_eager"] = against(medians, "train", EAGER)
    record["train_vs_torch_compile"] = against(medians, "train", ("torch.compile",))
    for key in ("train", "log_prob", "sample"):
        record[f"{key}_vs_jax"] = against(medians, key, ("jax",))
    record["log_prob_vs_best_eager"] = against(medians, "log_prob", EAGER)
    record["sample_vs_best_eager"] = against(medians, "sample", EAGER)
    conditional = MOONS | {"condition": 2, "evaluate": False}
    medians = in_turns("conditional", ("ours", "FrEIA", "zuko", "jax"), record, **conditional)
    record["conditional_train_vs_best_eager"] = against(medians, "train", ("FrEIA", "zuko"))
    record["conditional_train_vs_jax"] = against(medians, "train", ("jax",))


def time_to_kl(record):
    """Work 1: seconds from a process's start to a KL divergence of 0.05 nats."""
    kl = in_turns("to_kl", ("ours", "FrEIA", "zuko"), record, **MOONS | {"work": "to_kl"})
    record["seconds_to_kl_005"] = kl["ours"]["seconds"]


def mnist(record):
    """Work 3 and 4: NICE's training steps and inpainting."""
    for width in (1000, 256):
        settings = {"work": "nice", "hidden": width, "batch": 512, "points": 5120, "epochs": 4}
        medians = in_turns(f"nice{width}", ("ours", "torch"), record, **settings)
        # Each weight takes part in a product once forward and twice backward, 2 operations each.
        weights = 4 * (2 * 392 * width + 4 * width**2)
        for library in medians:
            record[f"nice{width}_{library}_gflops"] = medians[library]["train"] * 6 * weights / 1e9
        if width == 1000:
            record["nice_vs_torch"] = against(medians, "train", ("torch",))
            ceiling = max(m["matmul_gflops"] for m in medians.values())
            record["nice_ceiling_fraction"] = record["nice1000_ours_gflops"] / ceiling
    medians = in_turns("inpaint", ("ours", "torch"), record, work="inpaint", images=500)
    record["inpaint_vs_torch"] = against(medians, "images", ("torch",))


def growth(record):
    """Work 5: training speed over batch size, dimensions and blocks; one run each."""
    for key, values in (("batch", (64, 1024, 16384)), ("dimensions", (2, 64, 784)), ("blocks", (2, 8, 32))):
        for value in values:
            settings = FLOW | {"points": 16384, "epochs": 3, key: value}
            in_turns(f"growth_{key}_{value}", ("ours", "jax", "FrEIA"), record, turns=1, **settings)


def timed(*command, cwd):
    """Run a command; return its seconds and the largest memory, in GB, that it and its children held at one time."""
    started, peak = time.perf_counter(), 0
    with psutil.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            held = 0
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    held += each.memory_info().rss
            peak = max(peak, held)
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(0.5)
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed")
    return time.perf_counter() - started, peak / 1e9


def main_job(record):
    """Work 6: import of the helper; then in a fresh clone the environment, `make export-html`, and the same once more.

    What the clone made replaces build/default and build/results here: `make results` shows the run that was timed.
    """
    imports = {"ours": "import nice_helpers", "bare": "import tensorflow, tensorflow_probability"}
    seconds = {name: [] for name in imports}
    for _ in range(5):
        for name, code in imports.items():
            seconds[name].append(timed(sys.executable, "-c", code, cwd=ROOT)[0])
    record.update({f"import_{name}_seconds": statistics.median(values) for name, values in seconds.items()})
    record["import_ratio"] = record["import_ours_seconds"] / record["import_bare_seconds"]
    clone = ROOT / "build" / "bench"
    shutil.rmtree(clone, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    record["setup_seconds"], _ = timed("make", "setup", cwd=clone)
    record["export_seconds"], record["export_peak_gb"] = timed("make", "export-html", cwd=clone)
    record["export_noop_seconds"], _ = timed("make", "export-html", cwd=clone)
    for path in (clone / "build" / "results").glob("*.json"):
        record[f"export_{path.stem}_seconds"] = json.loads(path.read_text())["seconds"]
    for folder in ("default", "results"):
        shutil.rmtree(ROOT / "build" / folder, ignore_errors=True)
        shutil.copytree(clone / "build" / folder, ROOT / "build" / folder)


def main(*names):
    """Run the works named, or all, writing what is known after each; what other works have measured stays."""
    works = {work.__name__: work for work in (two_moons, time_to_kl, mnist, growth, main_job)}
    path = ROOT / "results" / "bench.json"
    record = json.loads(path.read_text()) if names else {}
    packages = ("torch", "FrEIA", "normflows", "nflows", "zuko", "jax", "tensorflow", "keras")
    record |= {f"version_{name}": importlib.metadata.version(name) for name in packages} | {"cores": os.cpu_count()}
    for name in names or works:
        works[name](record)
        path.with_suffix(".partial").write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".partial").replace(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
