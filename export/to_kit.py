"""Write a sheet's kit for students: `python to_kit.py ARCHIVE SHEET [--solution] [--colab]`.

The zip has one folder: the sheet's notebooks with blanks, the modules of which only what the sheet asks for is blank,
the checks, and all that makes the hand-in. Its twin, --solution, is solved and answered. With --colab each notebook is
one file, with the modules in cells. It is made from the collection's own files, so it can't drift; the same files give
the same bytes.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import exercises
import nbformat
import sheets
import to_colab
from make_zip import write_zip

ROOT = exercises.ROOT
KIT = ROOT / "export/kit"
QUESTION_POINTS = 2  # for each written answer; they are graded by hand
# What makes pages and the hand-in of executed notebooks; a pattern each.
TOOLS = ["convert.py", "exercises.py", "make_index.py", "make_zip.py", "page.css", "run_notebook.py", "sheets.py"]
TOOLS += ["to_html.py", "fonts/*", "template/*"]
SETUP = "%load_ext autoreload\n%autoreload 2\n\n"  # a changed module is read again before each cell
HINTS = ["a question", "where it stands", "the formula"]


def task(exercise):
    """Return the Markdown of an exercise's task, with its hints folded."""
    here = not exercise["file"].endswith(".py")
    where = "in the code cell below" if here else f"in [{exercise['file']}](../{exercise['file']})"
    if "bug" in exercise:
        where = "in the modules"
    title = f"### Task {exercise['number']}: `{exercise['name']}`"
    points = f"{exercise['points']} point{'s' if exercise['points'] > 1 else ''}"
    lines = [f"{title} ({points}, about {exercise['minutes']} minutes)", "", exercise["task"], ""]
    lines += [f"{'Mend' if 'bug' in exercise else 'Write'} it {where}, then run the check."]
    for number, (kind, hint) in enumerate(zip(HINTS, exercise["hints"], strict=True), 1):
        lines += ["", f"<details><summary>Hint {number}: {kind}</summary>", "", hint, "", "</details>"]
    return "\n".join(lines)


def task_cells(exercise):
    """Return the cells with an exercise's task and its check."""
    name, number = exercise["name"], exercise["number"]
    thing = "" if exercise["file"].endswith(".py") else f", {name.partition('.')[0]}"
    told = nbformat.v4.new_markdown_cell(task(exercise), id=f"task-{number:02}", metadata={"tags": ["task"]})
    code = nbformat.v4.new_code_cell(f'check("{name}"{thing})', id=f"check-{number:02}", metadata={"tags": ["check"]})
    return told, code


def kit_notebook(notebook, name, listed, *, solved=False):
    """Return a notebook with tasks and checks; unless solved, without its solutions and answers.

    Where `solved` is None, all stays as it is, the marks of solutions too.
    """
    cells = []
    for cell in notebook.cells:
        if "solution" in cell.metadata.get("tags", []) and not solved:
            continue  # it gives an exercise or an answer away
        here = [one for one in listed if (one["notebook"], one["cell"]) == (name, cell.id)]
        inside = [one for one in here if one["file"] == name]
        if cell.cell_type == "code":
            if "import nice_helpers as nh" in cell.source:
                cell.source = f"{SETUP}{cell.source.rstrip()}\nfrom checks import check"
            elif solved:
                cell.source = exercises.without_markers(cell.source)
            elif solved is None:
                pass
            else:
                cell.source = exercises.without_conditions(exercises.handed_out(cell.source, inside)).rstrip("\n")
                if exercises.answer_call(cell.source):
                    cells += before_answer(cell)
        elif cell.source.startswith("## What I would tell a friend") and not solved:
            cell.source = "## What I would tell a friend\n\nThree sentences of your own."
        told = [task_cells(one) for one in here]
        cells += (
            [*(t for t, _ in told), cell, *(c for _, c in told)] if inside else [cell, *(c for p in told for c in p)]
        )
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def before_answer(cell):
    """Leave a cell with its blank answer alone; return a cell with what it computes before, in case that fails."""
    before, cell.source = exercises.without_answer(cell.source)
    return [nbformat.v4.new_code_cell(before, id=f"{cell.id}-before")] if before else []


def notebooks(sheet, *, solved=False):
    """Return a dict of a sheet's notebooks by name, as the kit has them."""
    names, listed = sheets.load()[sheet]["notebooks"], exercises.load(sheet)
    stored = {name: nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4) for name in names}
    return {name: kit_notebook(notebook, name, listed, solved=solved) for name, notebook in stored.items()}


def modules(sheet, *, solved=False):
    """Return a dict of the modules' names and sources, as the kit has them."""
    result, listed = {}, [] if solved else exercises.load(sheet)
    for path in sorted(ROOT.glob("nice_*.py")):
        own = [one for one in listed if one["file"] == path.name]
        result[path.name] = exercises.handed_out(path.read_text(encoding="utf-8"), own)
    return result


def readme(sheet, form):
    """Return the kit's README: what to do, in which order, for which points, and how to hand in."""
    entry, listed = sheets.load()[sheet], exercises.load(sheet)
    rows = ["| task | what | where | notebook | points | minutes |", "|---|---|---|---|---|---|"]
    for one in listed:
        where = "the modules" if "bug" in one else one["file"] if one["file"].endswith(".py") else "the notebook"
        cells = (one["number"], f"`{one['name']}`", where, one["notebook"][:2], one["points"], one["minutes"])
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    asked = ["| item | question | notebook | points |", "|---|---|---|---|"]
    asked += [f"| {i['id']} | {i['question']} | {i['notebook'][:2]} | {QUESTION_POINTS} |" for i in entry["items"]]
    told = {
        "TITLE": entry["title"],
        "SHEET": sheet,
        "FIRST": f"{entry['notebooks'][0]}.ipynb",
        "TASKS": "\n".join(rows),
        "QUESTIONS": "\n".join(asked),
        "POINTS": str(sum(one["points"] for one in listed)),
        "WORD": f'"{listed[-1]["name"]}"' if "bug" not in listed[-1] else '"bug and 6"',
        "TASKCOUNT": str(len(listed)),
        "QUESTIONCOUNT": str(len(entry["items"])),
        "QUESTIONPOINTS": str(QUESTION_POINTS * len(entry["items"])),
        "HOURS": f"{sum(one['minutes'] for one in listed) / 60:.1f}",
    }
    text = (KIT / f"{form}.md").read_text(encoding="utf-8")
    return re.sub(r"\{([A-Z]+)\}", lambda m: told[m[1]], text)


def told_of(sheet):
    """Return what the kit's programs need to know of the exercises: no hints, no bugs."""
    keys = ("number", "name", "file", "notebook", "points")
    listed = [{key: one[key] for key in keys} for one in exercises.load(sheet)]
    return json.dumps({"sheet": sheet, "notebooks": sheets.load()[sheet]["notebooks"], "exercises": listed}, indent=1)


def data_of(name):
    """Return the paths of a data set and of what is said about it."""
    return [ROOT / f"data/{name}.npz", ROOT / "data/README.md", *(ROOT / "data/licenses").glob(f"{name}.*")]


def members(sheet, *, solved=False):
    """Return the names and bytes of the files in a kit's folder."""
    files = {path.name: path.read_bytes() for path in KIT.iterdir() if path.suffix in (".py", ".ini")}
    files["Makefile"] = (KIT / "Makefile").read_bytes()
    files["constraints.txt"] = (ROOT / "constraints.txt").read_bytes()
    files |= {name: text.encode() for name, text in modules(sheet, solved=solved).items()}
    own = notebooks(sheet, solved=solved)
    files |= {f"notebooks/{name}.ipynb": nbformat.writes(nb).encode() + b"\n" for name, nb in own.items()}
    sources = "\n".join(cell.source for nb in own.values() for cell in nb.cells)
    data = [path for name in ("mnist", "fashion_mnist") if f'"{name}"' in sources for path in data_of(name)]
    files |= {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in data}
    for pattern in TOOLS:
        paths = sorted((ROOT / "export").glob(pattern))
        files |= {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}
    manifest = re.split(r"(?m)^(?=\[\w+\]$)", (ROOT / "export/sheets.toml").read_text(encoding="utf-8"))
    files["export/sheets.toml"] = next(part for part in manifest if part.startswith(f"[{sheet}]")).encode()
    tools = [r for r in (ROOT / "requirements-dev.txt").read_text().splitlines() if r.startswith("pytest>")]
    files["requirements.txt"] = "\n".join([(ROOT / "requirements.txt").read_text().strip(), *tools, ""]).encode()
    files |= {"README.md": readme(sheet, "README").encode(), "exercises.json": told_of(sheet).encode()}
    return files


def colab_members(sheet, *, solved=False):
    """Return the files of the kit for Colab: each notebook with the modules in cells."""
    written = modules(sheet, solved=solved)
    edited = [one["file"] for one in exercises.load(sheet) if one["file"].endswith(".py")]
    written["checks.py"] = (KIT / "checks.py").read_text(encoding="utf-8")
    files = {"README.md": readme(sheet, "README_colab").encode()}
    for name, notebook in notebooks(sheet, solved=solved).items():
        content = to_colab.to_colab(notebook, written, list(dict.fromkeys(edited)))
        nbformat.validate(content)
        files[f"{name}.ipynb"] = nbformat.writes(content).encode() + b"\n"
    return files


def main():
    """Write the zip, or say in one line what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("sheet", choices=list(sheets.load()))
    parser.add_argument("--solution", action="store_true", help="the solved and answered twin")
    parser.add_argument("--colab", action="store_true", help="one file for each notebook")
    options = parser.parse_args()
    try:
        files = (colab_members if options.colab else members)(options.sheet, solved=options.solution)
        write_zip(options.archive, {f"{options.archive.stem}/{name}": content for name, content in files.items()})
    except ValueError as error:
        sys.exit(f"{Path(__file__).name}: {error}")


if __name__ == "__main__":
    main()
