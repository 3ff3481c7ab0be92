"""The build: running a notebook, naming what fails, and zipping."""

import os
import subprocess
import sys
import zipfile

import nbformat
import pytest
from conftest import MODULES, ROOT

sys.path.insert(0, str(ROOT / "export"))
import make_zip


def write_notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


def run_notebook(notebook, output, *options, **environment):
    command = [sys.executable, ROOT / "export/run_notebook.py", notebook, output, *options]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def test_a_notebook_runs_with_its_profile_and_leaves_no_trace_of_the_run(tmp_path):
    notebook = write_notebook(
        tmp_path / "a b ü.ipynb", 'PROFILE = "default"', "import sys; print(PROFILE, sys.executable)"
    )
    outputs = [tmp_path / "one.ipynb", tmp_path / "two.ipynb"]
    for output in outputs:
        finished = run_notebook(notebook, output, "--profile", "smoke")
        assert finished.returncode == 0, finished.stderr
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    executed = nbformat.read(outputs[0], as_version=4)
    assert executed.cells[-1].outputs[0].text == f"smoke {sys.executable}\n"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_kernels_that_start_at_once_share_no_port(tmp_path):
    look = "connection = get_connection_info(unpack=True); print(connection['transport'], connection['ip'])"
    notebook = write_notebook(tmp_path / "a.ipynb", "from ipykernel.connect import get_connection_info", look)
    assert run_notebook(notebook, tmp_path / "out.ipynb").returncode == 0
    transport, folder = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs[0].text.split()
    assert transport == "ipc" and not os.path.exists(os.path.dirname(folder))


def test_another_users_kernel_of_the_same_name_is_not_used(tmp_path):
    kernel = tmp_path / "jupyter/kernels/python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text('{"argv": ["false"], "display_name": "broken", "language": "python"}')
    makefile = (ROOT / "Makefile").read_text()
    for setting in ("JUPYTER_PREFER_ENV_PATH=1", "JUPYTER_PATH= ", 'JUPYTER_DATA_DIR="$(CURDIR)/build'):
        assert setting in makefile
    notebook = write_notebook(tmp_path / "a.ipynb", "1")
    environment = {"JUPYTER_DATA_DIR": str(tmp_path / "jupyter"), "JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_PATH": ""}
    finished = run_notebook(notebook, tmp_path / "out.ipynb", **environment)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("1 / 0", [], "bad.ipynb, cell [2]: ZeroDivisionError: division by zero\n1 / 0"),
        ("import sys; sys.exit()", [], "bad.ipynb, cell [2]: SystemExit: \nimport sys"),
        ("raise SystemExit(0)", [], "bad.ipynb, cell [2]: SystemExit: 0"),
        ("%tensorflow_version 2.x", [], "bad.ipynb, cell [2]: UsageError: Line magic function `%tensorflow_version`"),
        ("while True: pass", ["--timeout", "2"], "bad.ipynb: a cell took longer than 2 s"),
        ("import os; os._exit(1)", [], "bad.ipynb: the kernel died"),
    ],
)
def test_a_failing_notebook_is_named_and_leaves_no_output(tmp_path, source, options, message):
    notebook = write_notebook(tmp_path / "bad.ipynb", 'PROFILE = "default"', source)
    finished = run_notebook(notebook, tmp_path / "out.ipynb", *options)
    assert finished.returncode != 0
    assert message in finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.ipynb"]


def test_a_cell_that_may_fail_does_not_stop_the_run(tmp_path):
    write_notebook(tmp_path / "a.ipynb", 'PROFILE = "default"', "1 / 0", "print('on')")
    notebook = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    notebook.cells[1].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, tmp_path / "a.ipynb")
    finished = run_notebook(tmp_path / "a.ipynb", tmp_path / "out.ipynb")
    assert finished.returncode == 0, finished.stderr
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert executed.cells[1].outputs[0].ename == "ZeroDivisionError" and executed.cells[2].outputs[0].text == "on\n"
    assert len(executed.cells) == 3


def test_a_notebook_without_metadata_runs(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(6 * 7)")])
    nbformat.write(notebook, tmp_path / "a.ipynb")
    finished = run_notebook(tmp_path / "a.ipynb", tmp_path / "out.ipynb", "--profile", "smoke")
    assert finished.returncode == 0, finished.stderr
    assert nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs[0].text == "42\n"


@pytest.mark.parametrize("content", ["", "[]", "no JSON"])
def test_what_is_no_notebook_is_one_line(tmp_path, content):
    (tmp_path / "a.ipynb").write_text(content)
    finished = run_notebook(tmp_path / "a.ipynb", tmp_path / "out.ipynb")
    assert finished.returncode == 1 and finished.stderr.startswith("a.ipynb: not a notebook: ")
    assert finished.stderr.count("\n") == 1


def test_a_long_path_for_temporary_files_is_no_obstacle(tmp_path):
    long = tmp_path / ("t" * 100)
    long.mkdir()
    notebook = write_notebook(tmp_path / "a.ipynb", "1")
    finished = run_notebook(notebook, tmp_path / "out.ipynb", TMPDIR=str(long))
    assert finished.returncode == 0, finished.stderr


def test_zips_of_the_same_files_are_the_same_bytes(tmp_path):
    for name in ("b.html", "a.ipynb"):
        (tmp_path / name).write_text(name * 100)
    archives = []
    for i, order in enumerate((("b.html", "a.ipynb"), ("a.ipynb", "b.html"))):
        archive = tmp_path / f"{i}.zip"
        make_zip.make_zip(archive, [tmp_path / name for name in order])
        os.utime(tmp_path / "b.html", (i, i))
        archives.append(archive.read_bytes())
    assert archives[0] == archives[1]
    assert zipfile.ZipFile(tmp_path / "0.zip").namelist() == ["a.ipynb", "b.html"]


def make(project, *arguments, **environment):
    command = ["make", "-C", str(project), *arguments]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, capture_output=True, text=True, env=clean | environment)


@pytest.fixture
def project(tmp_path):
    """Return a copy of the build in a folder with a space and an umlaut, with two trivial notebooks."""
    folder = tmp_path / "my übung"
    (folder / "notebooks").mkdir(parents=True)
    for name in ("Makefile", *MODULES, "export", "requirements.txt", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / ".venv" / "bin" / "python").chmod(0o755)
    (folder / ".venv" / "installed").touch()
    for name in ("01_one", "02_two"):
        write_notebook(folder / "notebooks" / f"{name}.ipynb", 'PROFILE = "default"', f"print('{name}', PROFILE)")
    return folder


def test_make_builds_the_hand_in_once(project):
    first = make(project, "export-html", "HANDIN=ex03")
    assert first.returncode == 0, first.stderr
    assert "[1/2] 01_one" in first.stdout and "[2/2] 02_two" in first.stdout
    archive = project / "build/ex03.zip"
    names = ["01_one.html", "01_one.ipynb", "02_two.html", "02_two.ipynb", "index.html", "modules.html", *MODULES]
    assert zipfile.ZipFile(archive).namelist() == names
    before = archive.read_bytes()
    again = make(project, "export-html", "HANDIN=ex03")
    assert "[" not in again.stdout  # nothing changed, nothing ran
    (project / "notebooks/01_one.ipynb").touch()
    third = make(project, "export-html", "HANDIN=ex03")
    assert "[1/2] 01_one" in third.stdout and "02_two" not in third.stdout
    assert archive.read_bytes() == before


def test_the_hand_in_is_that_of_the_profile_and_outlives_a_smoke_run(project):
    assert make(project, "export-html").returncode == 0
    first = (project / "build/handin-all.zip").read_bytes()
    assert make(project, "smoke").returncode == 0
    assert (project / "build/handin-all.zip").read_bytes() == first
    assert make(project, "export-html", "PROFILE=full").returncode == 0
    assert (project / "build/handin-all.zip").read_bytes() != first
    assert make(project, "export-html").returncode == 0
    assert (project / "build/handin-all.zip").read_bytes() == first


def test_make_runs_two_notebooks_at_once(project):
    os.mkfifo(project / "meet")  # either end of a pipe waits for the other to be opened
    for name, mode in (("01_one", "r"), ("02_two", "w")):
        write_notebook(project / f"notebooks/{name}.ipynb", 'PROFILE = "default"', f"open('../meet', '{mode}').close()")
    assert make(project, "export-html", "JOBS=1", "TIMEOUT=2").returncode != 0
    result = make(project, "export-html", "TIMEOUT=60")
    assert result.returncode == 0, result.stderr


def test_make_with_a_failing_notebook_builds_the_others_and_no_zip(project):
    write_notebook(project / "notebooks/01_one.ipynb", 'PROFILE = "default"', "raise RuntimeError('planted')")
    result = make(project, "export-html", "-k", "-j2")
    assert result.returncode != 0
    assert "01_one.ipynb, cell [2]: RuntimeError: planted" in result.stderr
    assert (project / "build/default/02_two.html").exists(), result.stderr
    assert not (project / "build/default/01_one.ipynb").exists()
    assert not list((project / "build").glob("*.zip"))


@pytest.mark.parametrize(
    ("source", "message"),
    [("import os; os._exit(1)", "the kernel died"), ("while True: pass", "a cell took longer than 3 s")],
)
def test_make_names_a_notebook_that_dies_or_never_ends(project, source, message):
    write_notebook(project / "notebooks/01_one.ipynb", 'PROFILE = "default"', source)
    result = make(project, "export-html", "-k", "TIMEOUT=3")
    assert result.returncode != 0
    assert f"01_one.ipynb: {message}" in result.stderr
    assert (project / "build/default/02_two.html").exists(), result.stderr
    assert not list((project / "build").glob("*.zip"))


@pytest.mark.parametrize("usable", [True, False])
def test_make_neither_needs_nor_changes_the_home(project, usable):
    home = project / "home"
    home.mkdir() if usable else home.touch()  # in a file nothing can be written, by root either
    result = make(project, "export-html", "SHEET=nice", HOME=str(home))
    assert result.returncode == 0, result.stderr
    assert (project / "build/handin-nice.zip").exists()
    assert not usable or list(home.iterdir()) == []


def test_make_knows_the_sheets_and_refuses_others(project):
    write_notebook(project / "notebooks/09_diary.ipynb", 'PROFILE = "default"', "1")
    result = make(project, "export-html", "SHEET=diary")
    assert "[1/1] 09_diary" in result.stdout
    assert (project / "build/handin-diary.zip").exists()
    assert "SHEET must be" in make(project, "export-html", "SHEET=nise").stderr


def test_make_alone_prints_the_help(project):
    text = make(project).stdout
    targets = "setup lab smoke export-html submission colab colab-check template solution grade nbgrader"
    for target in f"{targets} test test-browser test-nbgrader lint bench results clean".split():
        assert f"make {target} " in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PROFILE=Full"], "PROFILE must be smoke, default or full, got 'Full'"),
        (["HANDIN=Mueller Max"], "HANDIN and ONE must be names without spaces, got 'Mueller Max'"),
        (["ONE=my page", "SHEET=nice"], "HANDIN and ONE must be names without spaces"),
        (["SHEET=inn"], "there is no notebook of the sheet 'inn'"),
    ],
)
def test_make_refuses_settings_that_lead_nowhere(project, arguments, message):
    result = make(project, "export-html", *arguments)
    assert result.returncode != 0 and message in result.stderr
    assert not (project / "build").exists()


def test_make_names_a_notebook_with_a_space_and_builds_the_rest(project):
    write_notebook(project / "notebooks/01 (1).ipynb", "1")
    result = make(project, "export-html")
    assert result.returncode == 0, result.stderr
    assert "rename what has a space in its name: 01 (1).ipynb" in result.stderr
    assert "02_two.html" in zipfile.ZipFile(project / "build/handin-all.zip").namelist()


def test_a_notebooks_own_module_is_zipped_and_its_change_runs_the_notebook_again(project):
    (project / "notebooks/my_layers.py").write_text("size = 1")
    write_notebook(project / "notebooks/01_one.ipynb", 'PROFILE = "default"', "import my_layers; print(my_layers.size)")
    assert make(project, "export-html").returncode == 0
    assert "my_layers.py" in zipfile.ZipFile(project / "build/handin-all.zip").namelist()
    (project / "notebooks/my_layers.py").write_text("size = 23")
    assert make(project, "export-html").returncode == 0
    assert ">23" in (project / "build/default/01_one.html").read_text()


def test_make_clears_what_could_lead_a_run_astray(project, tmp_path):
    (tmp_path / "numpy.py").write_text("raise RuntimeError('another NumPy')")
    plot = "import numpy, matplotlib.pyplot as plt; plt.plot([1]); plt.show()"
    write_notebook(project / "notebooks/01_one.ipynb", 'PROFILE = "default"', plot)
    result = make(project, "export-html", PYTHONPATH=str(tmp_path), MPLBACKEND="Agg", KERAS_BACKEND="torch")
    assert result.returncode == 0, result.stderr
    assert "data:image/png" in (project / "build/default/01_one.html").read_text()
    assert "01_one, cell 2: a figure without a description" in result.stdout


def test_an_environment_whose_python_is_gone_is_made_anew(project):
    assert "-m venv" not in make(project, "-n", "setup").stdout
    (project / ".venv/bin/python").unlink()
    (project / ".venv/bin/python").symlink_to("/nowhere/python")
    assert "-m venv --clear .venv" in make(project, "-n", "setup").stdout
