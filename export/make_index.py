"""Write index.html and modules.html beside the pages: `python make_index.py FOLDER SHEET NAME…`.

The index has the sheet's items in order, each with the first sentence of its answer and a link to it; the other page
has the code of the modules.
"""

import sys
from pathlib import Path

import nbformat
import sheets
from convert import write_whole
from exercises import without_markers
from to_html import PageExporter

ROOT = Path(__file__).resolve().parent.parent


def index(folder, sheet, names):
    """Return the Markdown of the index of the notebooks `names` of one sheet, or of all."""
    chosen = sheets.load() if sheet == "all" else {sheet: sheets.load()[sheet]}
    executed = {name: nbformat.read(folder / f"{name}.ipynb", as_version=4) for name in names}
    found = {a.item: (name, a) for name, notebook in executed.items() for a in sheets.answers(notebook)}
    title = "Normalizing flows" if sheet == "all" else chosen[sheet]["title"]
    lines = [f"# {title}: questions and answers"]
    for key, one in chosen.items():
        own = [name for name in one["notebooks"] if name in names]
        if not own:
            continue
        lines += ["", f"## Sheet *{key}*: {one['title']}" if sheet == "all" else "## Answers"]
        rows = [(item, *found[item["id"]]) for item in one.get("items", []) if item["id"] in found]
        if rows:
            lines += ["", "| item | question | answer |", "|---|---|---|"]
        for item, name, answer in rows:
            link = f"[{answer.first_sentence}]({name}.html#answer-{item['id']})"
            lines.append(f"| {item['id']} | {item['question']} | {link}{mark(answer, executed[name])} |")
        lines += ["", "Pages: " + " · ".join(f"[{heading(name, executed[name])}]({name}.html)" for name in own)]
    others = [name for name in names if not any(name in one["notebooks"] for one in chosen.values())]
    if others:
        lines += ["", "## More", "", *(f"- [{heading(name, executed[name])}]({name}.html)" for name in others)]
    lines += ["", "The code that the notebooks import: [the modules](modules.html)."]
    return "\n".join(lines)


def heading(name, notebook):
    """Return a notebook's title, or its name where it has none."""
    first = notebook.cells[0].source if notebook.cells else ""
    return first.splitlines()[0].removeprefix("# ") if first.startswith("# ") else name


def mark(answer, notebook):
    """Return what marks an answer that the run's numbers do not support."""
    return " **(not supported by this run)**" if sheets.is_contradicted(answer, notebook) else ""


def modules():
    """Return the Markdown of the page with the modules' code."""
    paths = sorted(ROOT.glob("nice_*.py"), key=lambda path: (path.stem != "nice_helpers", path.name))
    sources = {path.name: without_markers(path.read_text(encoding="utf-8", errors="replace")) for path in paths}
    parts = [f"## {name}\n\n```python\n{source}```" for name, source in sources.items()]
    return "\n\n".join(["# The modules that the notebooks import", *parts])


def page(markdown, output):
    """Write a page of Markdown."""
    cells = [nbformat.v4.new_markdown_cell(part, id=f"cell-{i}") for i, part in enumerate(markdown.split("\n\n## "))]
    for cell in cells[1:]:
        cell.source = "## " + cell.source
    notebook = nbformat.v4.new_notebook(cells=cells)
    html, _ = PageExporter().from_notebook_node(notebook, {"metadata": {"name": output.stem}})
    write_whole(output, lambda path: path.write_text(html, encoding="utf-8"))


def main(folder, sheet, *names):
    """Write both pages."""
    folder = Path(folder)
    page(index(folder, sheet, names), folder / "index.html")
    page(modules(), folder / "modules.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
