"""The notebooks for Colab: one file that brings all it needs, and changes nothing else."""

import ast
import os
import subprocess
import sys

import nbformat
import pytest
from conftest import MODULES, ROOT
from IPython.core.inputtransformer2 import TransformerManager

sys.path.insert(0, str(ROOT / "export"))
import to_colab
from exercises import without_markers

NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
FILES = set(MODULES)


def stored(name):
    return nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)


def run_first_cell(name):
    """Run the cell that writes files in the current folder, as IPython would."""
    exec(TransformerManager().transform_cell(to_colab.to_colab(stored(name), to_colab.modules()).cells[1].source), {})


def module(name):
    """Return a module's bytes without the marks of solutions."""
    return without_markers((ROOT / name).read_text(encoding="utf-8")).encode()


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", NAMES)
def test_a_folded_cell_comes_below_the_title_and_the_rest_stays(name):
    notebook = to_colab.to_colab(stored(name), to_colab.modules())
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    title, first, *rest = notebook.cells
    expected = stored(name).cells
    for cell in expected:
        cell.source = without_markers(cell.source)
    assert [title, *rest] == expected
    assert title.source.startswith("# ")
    assert first.metadata == {"cellView": "form"}
    assert first.source.startswith("# @title ")
    assert "accelerator" not in notebook.metadata  # none was ever tried
    assert notebook.metadata.colab.toc_visible is True
    assert notebook.metadata.colab.provenance == []
    assert notebook.metadata.kernelspec.name == "python3"
    code = "\n".join(cell.source for cell in rest if cell.cell_type == "code")
    assert not any(line.lstrip().startswith(("!", "%")) for line in code.splitlines())  # nothing is installed
    imports = [node for node in ast.walk(ast.parse(first.source)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert {getattr(node, "module", None) or node.names[0].name for node in imports} == {"pathlib"}


def test_the_cell_writes_the_modules_byte_by_byte(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_first_cell("05_digits_bottleneck")
    assert files(tmp_path) == FILES
    for file in FILES:
        assert (tmp_path / file).read_bytes() == module(file)


def test_a_students_own_helpers_are_kept_beside(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_first_cell("01_nice_parabola")
    run_first_cell("01_nice_parabola")
    assert files(tmp_path) == FILES
    (tmp_path / "nice_helpers.py").write_text("mine")
    run_first_cell("01_nice_parabola")
    assert (tmp_path / "nice_helpers.py.bak").read_text() == "mine"
    assert (tmp_path / "nice_helpers.py").read_bytes() == module("nice_helpers.py")
    assert capsys.readouterr().out.count("kept as nice_helpers.py.bak") == 1


def test_the_same_notebook_gives_the_same_bytes(tmp_path):
    for output in ("one.ipynb", "two.ipynb"):
        to_colab.export(ROOT / "notebooks/02_nice_mnist.ipynb", tmp_path / output)
    assert (tmp_path / "one.ipynb").read_bytes() == (tmp_path / "two.ipynb").read_bytes()
    assert files(tmp_path) == {"one.ipynb", "two.ipynb"}


@pytest.mark.parametrize("helpers", ["x = '''y'''\n", "x = 1  # \\", "x = ''"])
def test_helpers_that_cannot_be_quoted_stop_the_build(tmp_path, monkeypatch, helpers):
    (tmp_path / "nice_helpers.py").write_text(helpers)
    monkeypatch.setattr(to_colab, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["", str(ROOT / "notebooks/01_nice_parabola.ipynb"), str(tmp_path / "o.ipynb")])
    with pytest.raises(SystemExit, match="01_nice_parabola.ipynb: nice_helpers.py holds '''"):
        to_colab.main()
    assert files(tmp_path) == {"nice_helpers.py"}


def test_one_file_runs_alone_in_an_empty_folder(tmp_path):
    notebook = to_colab.to_colab(stored("01_nice_parabola"), to_colab.modules())
    asked = "from pathlib import Path\nprint(nh.__file__, *(Path(p).resolve() for p in sys.path), sep='\\n')"
    notebook.cells.append(nbformat.v4.new_code_cell(asked, id="asked"))
    folder = tmp_path / "my übung"
    folder.mkdir()
    nbformat.write(notebook, folder / "notebook.ipynb")
    command = [sys.executable, ROOT / "export/run_notebook.py", "notebook.ipynb", tmp_path / "executed.ipynb"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    finished = subprocess.run(
        [*command, "--profile", "smoke"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    used, *path = nbformat.read(tmp_path / "executed.ipynb", as_version=4).cells[-1].outputs[0].text.splitlines()
    assert used == str(folder / "nice_helpers.py")
    assert not {str(ROOT), str(ROOT / "notebooks"), str(ROOT / "export")} & set(path)
    left = {file for file in files(folder) if "__pycache__" not in file}
    assert left == {"notebook.ipynb", "build/smoke/01_nice_parabola.json"} | FILES
