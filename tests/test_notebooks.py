"""The stored notebooks: no outputs, one setup cell for all, the sections a reader expects, cells of readable size."""

import re

import nbformat
import numpy as np
import pytest
from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def setup_cell(notebook):
    return next(c.source for c in notebook.cells if "import nice_helpers as nh" in c.source)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    """Return each stored notebook in turn."""
    stored = nbformat.read(request.param, as_version=nbformat.NO_CONVERT)
    nbformat.validate(stored)
    return stored


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_nothing_of_a_run_is_stored(notebook):
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        folded = "fold" in cell.metadata.get("tags", [])  # folded on the page and in JupyterLab
        assert set(cell.metadata) <= {"tags", "jupyter"}
        assert cell.metadata.get("jupyter", {}) == ({"source_hidden": True} if folded else {})
        assert not cell.get("outputs") and cell.get("execution_count") is None, cell.source


def test_cell_ids_are_unique(notebook):
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


def test_the_setup_cell_is_the_same_everywhere(notebook):
    assert setup_cell(notebook) == setup_cell(nbformat.read(NOTEBOOKS[0], as_version=4))


def test_one_parameters_cell_with_a_budget_for_each_profile(notebook):
    tagged = [c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert tagged[0].startswith('PROFILE = "default"\n')
    values = {}
    exec(tagged[0], values)
    assert set(values["BUDGETS"]) == {"smoke", "default", "full"}
    keys = {frozenset(budget) for budget in values["BUDGETS"].values()}
    assert len(keys) == 1


def test_the_sections_a_reader_expects(notebook):
    prose = [c.source for c in notebook.cells if c.cell_type == "markdown"]
    headings = [line for source in prose for line in source.splitlines() if line.startswith("## ")]
    assert prose[0].startswith("# ")
    assert headings[-1] == "## References"
    if any("nf.answer(" in cell.source for cell in notebook.cells):  # the others get their answers one after the other
        assert headings[-2] == "## What I would tell a friend"
    else:
        assert headings[0] == "## Question" and headings[-2] == "## Findings"


def test_prose_before_code_and_cells_of_readable_size(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    lines = sorted(len(cell.source.splitlines()) for cell in code)
    assert lines[-1] <= 25
    assert lines[len(lines) // 2] <= 9
    words = sum(len(c.source.split()) for c in notebook.cells if c.cell_type == "markdown")
    assert 300 <= words <= 2000


def test_no_notebook_takes_the_name_of_the_kits_check(notebook):
    source = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    assert not re.search(r"^\s*check\b *=|\bfor check\b|\bdef check\(", source, re.MULTILINE)


def test_results_are_saved_under_the_notebooks_name():
    for path in NOTEBOOKS:
        source = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
        assert re.search(rf'nf.save_results[(,]\s*"{path.stem}", ', source.replace("\n", " ")), path.name


def test_every_figure_has_a_description(notebook):
    source = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    assert "plt.show()" not in source
    assert source.count("plt.subplots(") <= source.count("nf.show(")


def test_a_run_writes_nothing_to_standard_error():
    """Warnings would stand in the hand-in."""
    for path in NOTEBOOKS:
        executed = nbformat.read(ROOT / "build/smoke" / path.name, as_version=4)  # `make smoke` has made it
        outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
        assert [output.text for output in outputs if output.get("name") == "stderr"] == [], path.stem


def test_the_outlier_threshold_never_sees_test_data():
    path = ROOT / "notebooks" / "08_outlier_detection.ipynb"
    cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    (chosen,) = [source for source in cells if re.search(r"^threshold = ", source, re.MULTILINE)]
    functions = {"np": np}
    exec(next(source for source in cells if "def choose_threshold(" in source), functions)
    names = {
        "choose_threshold": functions["choose_threshold"],
        "nices": ["flow"],
        "log_prob": lambda flow, x: -np.asarray(x, float),
    }
    lines = chosen[: chosen.index("\n", chosen.index("threshold = "))]
    exec(lines, names | {"VALIDATION": {"mnist": range(101)}}, found := {})  # anything else would be a NameError
    assert found["threshold"] == -95
    assert sum("threshold =" in source for source in cells) == 1
    split = next(source for source in cells if "VALIDATION = {" in source)
    train, validation = (re.search(rf"^{name} = .*", split, re.MULTILINE)[0] for name in ("TRAIN", "VALIDATION"))
    assert ".x_train[:cut]" in train and ".x_train[cut :" in validation
