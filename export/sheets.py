"""The manifest sheets.toml, and the answers that executed notebooks give to its items.

`python sheets.py FOLDER NAME…` lists the answers that the numbers of a run do not support, and what pages can't show.
"""

import re
import sys
import tomllib
from html import unescape
from pathlib import Path
from typing import NamedTuple

import nbformat


class Answer(NamedTuple):
    """An answer as `nice_figures.answer` has shown it; `holds` is None for pure theory."""

    item: str
    text: str
    holds: bool | None

    @property
    def first_sentence(self):
        """Return the text up to its first full stop that a space follows, without Markdown's marks."""
        return re.match(r".+?[.!?](?=\s|$)|.+|$", re.sub(r"[*$`]", "", self.text), re.DOTALL)[0]


def load():
    """Return the manifest as a dict of sheets, each with its title, notebooks and items."""
    with (Path(__file__).resolve().parent / "sheets.toml").open("rb") as file:
        return tomllib.load(file)


def items():
    """Return a dict of all items by id."""
    return {item["id"]: item for sheet in load().values() for item in sheet.get("items", [])}


def answers(notebook):
    """Return the answers in a notebook's outputs, in order."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [found for output in outputs if (found := as_answer(output))]


def as_answer(output):
    """Return an output as an Answer, or None if it is something else."""
    told = output.get("metadata", {}).get("answer", {})
    if not re.fullmatch(r"[A-Z]\d+(\.\d+|[a-z])?", told.get("item", "")):
        return None
    text = re.sub("^> ?", "", output.data.get("text/markdown", ""), flags=re.MULTILINE)
    text = text.removeprefix(f"**{told['item']}** · ")
    return Answer(told["item"], text, told.get("holds"))


def is_smoke(notebook):
    """Return whether a notebook was run in the profile that only checks that all cells run."""
    tags = ("parameters", "injected-parameters")
    sources = [cell.source for cell in notebook.cells if set(tags) & set(cell.metadata.get("tags", []))]
    chosen = re.findall(r'^PROFILE = "(\w+)"', "\n".join(sources), re.MULTILINE)
    return chosen[-1:] == ["smoke"]


def is_contradicted(answer, notebook):
    """Return whether the run's numbers do not support an answer; in smoke nothing is claimed."""
    return answer.holds is False and not is_smoke(notebook)


def main(folder, *names):
    """Say which answers of these executed notebooks their numbers do not support, and what their pages can't show."""
    found = []
    for name in names:
        notebook = nbformat.read(Path(folder) / f"{name}.ipynb", as_version=4)
        found += [f"{answer.item} ({name})" for answer in answers(notebook) if is_contradicted(answer, notebook)]
    if found:
        print("not supported by the numbers of this run: " + ", ".join(found))
    for name in names:
        page = Path(folder) / f"{name}.html"
        for remark in re.findall(r' data-remark="([^"]*)"', page.read_text(encoding="utf-8") if page.exists() else ""):
            print(f"{name}, {unescape(remark)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
