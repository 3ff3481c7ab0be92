"""The form of an answer: one for each item of the manifest, in order, with a condition, marked where it fails."""

import ast
import re
import subprocess
import sys
import zipfile

import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from test_export import make, project, write_notebook  # noqa: F401  the fixture

sys.path.insert(0, str(ROOT / "export"))
import make_index
import merge
import sheets
import to_html

ITEMS = sheets.items()
ANSWERING = sorted({item["notebook"] for item in ITEMS.values()})


def calls(name):
    """Return the calls of nf.answer in a stored notebook, and after how many of its code lines the last one ends."""
    cells = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4).cells
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    found = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "nf.answer"]
    return sorted(found, key=lambda call: call.lineno), len(source.splitlines())


def answered(text, holds, item="N1"):
    """Return a code cell that has shown an answer, as nice_figures.answer does."""
    data = {"text/markdown": f"> **{item}** · {text}", "text/plain": text}
    outputs = [new_output("display_data", data=data, metadata={"answer": {"item": item, "holds": holds}})]
    if holds is False:
        outputs.append(new_output("display_data", data={"text/markdown": "> no"}, metadata={"mark": item}))
    return new_code_cell("nf.answer(…)", outputs=outputs)


def page(*cells, profile="default"):
    parameters = new_code_cell(f'PROFILE = "{profile}"', metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[new_markdown_cell("# A title\n\nand a sentence."), parameters, *cells])
    html, _ = to_html.PageExporter().from_notebook_node(notebook, {"metadata": {"name": "a"}})
    return BeautifulSoup(html, "html.parser")


@pytest.mark.parametrize("name", ANSWERING)
def test_each_item_has_one_answer_in_its_notebook_in_order(name):
    found, _ = calls(name)
    assert [call.args[0].value for call in found] == [i["id"] for i in ITEMS.values() if i["notebook"] == name]


@pytest.mark.parametrize("name", ANSWERING)
def test_a_condition_speaks_of_the_runs_variables(name):
    for call in calls(name)[0]:
        (holds,) = [keyword.value for keyword in call.keywords if keyword.arg == "holds"]
        pure_theory = isinstance(holds, ast.Constant) and holds.value is None
        names = {node.id for node in ast.walk(holds) if isinstance(node, ast.Name)}
        assert pure_theory or names - {"np", "abs", "min", "max"}, ast.unparse(call)[:80]


@pytest.mark.parametrize("name", ANSWERING)
def test_no_bookkeeping_after_the_last_answer(name):
    found, lines = calls(name)
    beyond = re.search(r"^## Beyond the sheet", "\n".join(prose(name)), re.MULTILINE)
    assert beyond or lines - found[-1].end_lineno <= 0.03 * lines


def prose(name):
    cells = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "markdown"]


@pytest.mark.parametrize("name", ANSWERING)
def test_the_smoke_run_gives_the_answers(name):
    executed = nbformat.read(ROOT / f"build/smoke/{name}.ipynb", as_version=4)  # `make smoke` has made it
    assert [a.item for a in sheets.answers(executed)] == [i["id"] for i in ITEMS.values() if i["notebook"] == name]
    assert sheets.is_smoke(executed)


def test_the_makefiles_lists_are_the_manifests():
    makefile = (ROOT / "Makefile").read_text()
    lists = {key: numbers.split() for key, numbers in re.findall(r"^SHEET_(\w+) +:= (.*)$", makefile, re.MULTILINE)}
    assert lists == {key: [name[:2] for name in sheet["notebooks"]] for key, sheet in sheets.load().items()}
    assert all(ITEMS[item]["notebook"] in sheets.load()["nice"]["notebooks"] for item in ITEMS if item[0] == "N")
    stored = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {name for sheet in sheets.load().values() for name in sheet["notebooks"]} <= stored


def test_an_answer_stands_out_and_is_linked_from_the_table_at_the_top():
    html = page(answered("Yes, by **1.5** `nats`. More text.", True))
    (section,) = html.select("section.answer")
    assert section["data-item"] == "N1" and section["id"] == "answer-N1"
    assert "unsupported" not in section["class"] and html.select_one(".mark") is None
    (row,) = html.select("table.glance tbody tr")
    assert [link["href"] for link in row.select("a")] == ["#answer-N1", "#answer-N1"]
    assert row.get_text(" ", strip=True).endswith("Yes, by 1.5 nats.")
    assert ITEMS["N1"]["question"] in row.get_text()
    assert html.select_one("table.glance").find_previous("h1") and html.select_one(".banner") is None


@pytest.mark.parametrize(
    ("holds", "profile", "marked"),
    [(False, "default", True), (None, "default", False)] + [(False, "smoke", False), (True, "default", False)],
)
def test_only_an_answer_that_the_numbers_contradict_is_marked(holds, profile, marked):
    html = page(answered("Yes.", holds), profile=profile)
    assert bool(html.select("section.unsupported .mark")) == marked
    assert bool(html.select(".banner")) == (profile == "smoke")
    assert "> no" not in html.get_text()


def test_an_answer_may_go_on_in_paragraphs_and_points():
    html = page(answered("Yes.\n> \n> Why: a.\n> \n> - **One** point.\n> \n> - Two.", True))
    (section,) = html.select("section.answer")
    assert [part.get_text(" ", strip=True) for part in section.select("p, li > p")][1:] == [
        "Yes.",
        "Why: a.",
        "One point.",
        "Two.",
    ]
    assert len(section.select("li")) == 2 and ">" not in section.get_text()
    assert html.select_one("table.glance tbody tr").get_text(" ", strip=True).endswith("Yes.")


SHELL = """
from IPython.testing.globalipapp import start_ipython
from IPython.utils.capture import capture_output
shell = start_ipython()
shell.display_formatter.active_types = shell.display_formatter.format_types
with capture_output() as captured:
    shell.run_cell("import nice_figures as nf; nf.answer('N2', 'Two\\\\n   lines.', 1 > 2); nf.source(nf.show)")
    shell.run_cell("nf.answer('N3', 'Yes,\\\\n 3.\\\\n\\\\n  - One\\\\n point.\\\\n - Two.', None)")
for output in captured.outputs:
    print(output.metadata, output.data.get("text/markdown"))
"""


def test_nf_answer_shows_what_the_exporter_reads():
    out = subprocess.run([sys.executable, "-c", SHELL], capture_output=True, text=True, cwd=ROOT).stdout
    assert "{'answer': {'item': 'N2', 'holds': False}} > **N2** · Two lines." in out
    assert "{'mark': 'N2'}" in out
    assert "> **N3** · Yes, 3.\n> \n> - One point.\n> \n> - Two.\n" in out
    assert "```python\n# nice_figures.py, from line" in out and "def show(figure, alt):" in out


# ---- The hand-in -----------------------------------------------------------------------------------------------


def test_the_index_has_the_items_in_order_and_names_what_is_not_supported(tmp_path, capsys):
    for name in sheets.load()["nice"]["notebooks"]:
        items = [i["id"] for i in ITEMS.values() if i["notebook"] == name]
        cells = [new_markdown_cell(f"# {name}"), *(answered(f"It is {i}. Really.", i != "N7", i) for i in items)]
        nbformat.write(new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    make_index.main(tmp_path, "nice", *sheets.load()["nice"]["notebooks"])
    assert capsys.readouterr().out == ""
    sheets.main(tmp_path, *sheets.load()["nice"]["notebooks"])
    assert capsys.readouterr().out == "not supported by the numbers of this run: N7 (02_nice_mnist)\n"
    html = BeautifulSoup((tmp_path / "index.html").read_text(), "html.parser")
    rows = html.select("table tbody tr")
    assert [row.td.get_text() for row in rows] == [f"N{n}" for n in range(1, 11)]
    assert [row.a["href"] for row in rows][6:8] == ["02_nice_mnist.html#answer-N7", "07_inpainting.html#answer-N8"]
    assert [row.a.get_text() for row in rows][0] == "It is N1."
    assert "not supported" in rows[6].get_text() and html.get_text().count("not supported") == 1
    modules = (tmp_path / "modules.html").read_text()
    assert modules.count("<h2") == len(list(ROOT.glob("nice_*.py"))) and "AffineCoupling" in modules


def test_merged_notebooks_keep_their_order_one_level_down():
    setup = "import nice_helpers as nh"
    one = new_notebook(cells=[new_markdown_cell("# One\n\n## A\n\n```sh\n# no heading\n```"), new_code_cell(setup)])
    two = new_notebook(cells=[new_markdown_cell("# Two"), new_code_cell(setup), new_code_cell("1", id="x")])
    merged = merge.merge("NICE", {"01_one": one, "02_two": two})
    nbformat.validate(merged)
    texts = [cell.source for cell in merged.cells]
    assert texts == ["# NICE", "## One\n\n### A\n\n```sh\n# no heading\n```", setup, "## Two", "1"]
    assert merged.cells[-1].id == "02-x"


def test_one_page_under_a_name_is_all_that_the_zip_holds(project):  # noqa: F811
    result = make(project, "export-html", "SHEET=nice", "ONE=normalizing-flows", "HANDIN=ex02")
    assert result.returncode == 0, result.stderr
    archive = zipfile.ZipFile(project / "build/ex02.zip")
    assert archive.namelist() == ["normalizing-flows.html", "normalizing-flows.ipynb"]
    html = archive.read("normalizing-flows.html").decode()
    assert "<title>NICE</title>" in html and "01_one" in html and "02_two" in html
