"""Make the hand-in: `python handin.py`, finished or not.

All notebooks run; what fails is marked on its page, and the rest is there. The zip has the pages, the executed
notebooks, the modules, and how many exercises are solved.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "export"))

import make_index  # noqa: E402
import sheets  # noqa: E402
import to_html  # noqa: E402
from exercises import NOT_ANSWERED  # noqa: E402
from make_zip import make_zip  # noqa: E402

TOLD = json.loads((HERE / "exercises.json").read_text(encoding="utf-8"))
RUN = HERE / "build"


def environment():
    """Return the environment variables for kernels: this Python's own kernel, whatever others the user has."""
    home = {f"JUPYTER_{kind}_DIR": str(RUN / "home") for kind in ("DATA", "CONFIG", "RUNTIME")}
    home |= {"JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_PATH": "", "IPYTHONDIR": str(RUN / "home/ipython")}
    kept = {key: value for key, value in os.environ.items() if key not in ("MPLBACKEND", "PYTHONPATH", "KERAS_BACKEND")}
    return {**kept, **home, "PYDEVD_DISABLE_FILE_VALIDATION": "1", "PYTHONUTF8": "1"}


def check_all():
    """Return a dict of the exercises and what their checks say, an empty text for one that is solved."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checks.json"
        command = [sys.executable, HERE / "checks.py", path]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, cwd=HERE, env=environment(), stdout=subprocess.DEVNULL, check=False, timeout=300)
        told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    lost = "its check did not end: does each module import, and does every loop end?"
    return {one["name"]: told.get(one["name"], lost) for one in TOLD["exercises"]}


def run(name, profile):
    """Run a notebook; return the line that says why, if it could not be run at all."""
    (RUN / f"{name}.ipynb").unlink(missing_ok=True)
    command = [sys.executable, HERE / "export/run_notebook.py", HERE / f"notebooks/{name}.ipynb"]
    command += [RUN / f"{name}.ipynb", "--profile", profile, "--keep-going", "--timeout", "1800"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    why = (done.stderr.strip() or f"ended with status {done.returncode}") if done.returncode else ""
    print(f"{name}: {why or 'has run'}", flush=True)
    return why


def marked(notebook, messages):
    """Return an executed notebook with a line at its top, and marks in place of errors."""
    numbers = {one["name"]: one["number"] for one in TOLD["exercises"]}
    cells = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "task" in tags:  # hints are for the student
            cell.source = re.sub(r"\n*<details>.*?</details>", "", cell.source, flags=re.DOTALL)
        name = re.match(r'check\("([^"]+)"', cell.source) if "check" in tags else None
        for i, output in enumerate(cell.get("outputs", [])):
            if output.output_type == "error":
                cell.outputs[i] = mark(output, name and name[1], numbers, messages)
        cells.append(cell)
    cells.insert(1, nbformat.v4.new_markdown_cell(summary(messages), id="solved"))
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def mark(error, name, numbers, messages):
    """Return the output that stands for an error: what is not solved, or why a cell did not run."""
    told = f"{error.ename}: {error.evalue}" if error.ename != "Wrong" else error.evalue
    text = f"This cell did not run. {told}"
    if name in numbers and messages.get(name):
        why = messages[name]
        text = f"Task {numbers[name]}: not solved." + ("" if why.endswith("is not solved yet.") else f" {why}")
    text = " ".join(text.split())[:500]
    shown = re.sub(r"([*_$<>`\[\]\\|])", r"\\\1", text)
    return nbformat.v4.new_output("display_data", {"text/markdown": f"> ⚠ **{shown}**", "text/plain": text})


def summary(messages):
    """Return the sentence that says how much is solved."""
    missing = [f"{one['number']}" for one in TOLD["exercises"] if messages.get(one["name"], "missing")]
    count = len(TOLD["exercises"])
    text = f"**{count - len(missing)} of {count} exercises solved.**"
    return text + (f" Not solved: task{'s' if len(missing) > 1 else ''} {', '.join(missing)}." if missing else "")


def main():
    """Check, run, write the pages and the zip."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="default", choices=["smoke", "default", "full"])
    parser.add_argument("--name", default=f"handin-{TOLD['sheet']}", help="of the zip, without its ending")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks that run at once")
    options = parser.parse_args()
    if not re.fullmatch(r"[\w.-]+", options.name):
        sys.exit(f"--name must be of letters, digits, dots and dashes, got '{options.name}'")
    (RUN / "home/ipython").mkdir(parents=True, exist_ok=True)
    messages = check_all()
    print(summary(messages).replace("*", ""), flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        failed = dict(
            zip(TOLD["notebooks"], pool.map(lambda n: run(n, options.profile), TOLD["notebooks"]), strict=True)
        )
    names = [name for name, why in failed.items() if not why]
    answers = []
    for name in names:
        path = RUN / f"{name}.ipynb"
        executed = marked(nbformat.read(path, as_version=4), messages)
        nbformat.write(executed, path)
        answers += sheets.answers(executed)
        try:
            to_html.export(path, RUN / f"{name}.html")
        except Exception as error:  # the executed notebook is handed in all the same
            print(f"{name}: no page, {error}")
    written = sum(bool(answer.text) and answer.text != NOT_ANSWERED for answer in answers)
    print(f"{written} of {len(sheets.load()[TOLD['sheet']]['items'])} questions answered")
    title, _, rest = make_index.index(RUN, TOLD["sheet"], names).partition("\n")
    smoke = "\n\nA run in the profile `smoke`: its numbers mean nothing." if options.profile == "smoke" else ""
    make_index.page(f"{title}\n\n{summary(messages)}{smoke}\n{rest}", RUN / "index.html")
    make_index.page(make_index.modules(), RUN / "modules.html")
    (RUN / "checks.json").write_text(json.dumps(messages, indent=1), encoding="utf-8")
    files = [RUN / f"{name}.{kind}" for name in names for kind in ("ipynb", "html")]
    # A notebook that can't be run is handed in as it is.
    files += [HERE / f"notebooks/{name}.ipynb" for name in failed if name not in names]
    files += [RUN / "index.html", RUN / "modules.html", RUN / "checks.json", *sorted(HERE.glob("*.py"))]
    files = [
        file for file in files if file.exists() and file.name not in ("handin.py", "checks.py", "test_exercises.py")
    ]
    archive = HERE / f"{options.name}.zip"
    make_zip(archive, files)
    print(f"hand in {archive.name}")


if __name__ == "__main__":
    main()
