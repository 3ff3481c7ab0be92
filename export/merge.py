"""Merge executed notebooks into one: `python merge.py OUTPUT SHEET NOTEBOOK…`; headings move one level down."""

import re
import sys
from pathlib import Path

import nbformat
import sheets
from convert import write_whole


def one_level_down(markdown):
    """Return Markdown whose headings have one more #; lines of code blocks stay."""
    parts = re.split(r"(^```.*?^```)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(p if p.startswith("```") else re.sub(r"^(#{1,5}) ", r"#\1 ", p, flags=re.MULTILINE) for p in parts)


def merge(title, notebooks):
    """Return one notebook from a dict of names and notebooks; what sets up all alike stands there once."""
    cells = [nbformat.v4.new_markdown_cell(f"# {title}", id="title")]
    seen = set()
    for name, notebook in notebooks.items():
        for cell in notebook.cells:
            if "import nice_helpers" in cell.source and cell.source in seen:
                continue
            seen.add(cell.source)
            if cell.cell_type == "markdown":
                cell.source = one_level_down(cell.source)
            cell.id = f"{name[:2]}-{cell.id}"[:64]
            cells.append(cell)
    return nbformat.v4.new_notebook(cells=cells, metadata=next(iter(notebooks.values())).metadata)


def main(output, sheet, *paths):
    """Write the merged notebook, whole or not at all; its title is the sheet's."""
    title = "Normalizing flows" if sheet == "all" else sheets.load()[sheet]["title"]
    merged = merge(title, {Path(path).stem: nbformat.read(path, as_version=4) for path in paths})
    nbformat.validate(merged)
    write_whole(Path(output), lambda path: nbformat.write(merged, path))


if __name__ == "__main__":
    main(*sys.argv[1:])
