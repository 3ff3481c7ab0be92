"""Write a sheet as an nbgrader course: `python to_nbgrader.py FOLDER SHEET`.

FOLDER gets nbgrader_config.py and source/SHEET with the solved notebooks, in which nbgrader finds what to clear, to
check and to grade by hand, and the modules without their solutions, since nbgrader clears notebooks only. Students hand
in the modules beside the notebooks; the configuration keeps autograde from overwriting those.
"""

import re
import shutil
import sys
from pathlib import Path

import exercises
import nbformat
import sheets
import to_kit

CONFIG = '''"""nbgrader's configuration: run its commands in this folder."""

c = get_config()
c.CourseDirectory.course_id = "normalizing-flows"
c.Autograde.exclude_overwriting = {modules}  # students write in these modules
c.ClearSolutions.code_stub = {{"python": "raise NotImplementedError()"}}
c.ExecutePreprocessor.timeout = 600  # seconds for a cell
c.ExecutePreprocessor.allow_errors = True
'''


def course_notebook(notebook, name, listed):
    """Return a solved notebook with nbgrader's metadata: exercises, locked checks, answers to be graded by hand."""
    points = {one["name"]: one["points"] for one in listed}
    solved = to_kit.kit_notebook(notebook, name, listed, solved=None)
    for cell in solved.cells:
        if cell.cell_type == "code" and not cell.source.startswith("%"):
            cell.source = exercises.without_conditions(cell.source)
        tags = cell.metadata.get("tags", [])
        if "check" in tags:
            mark(cell, grade=True, locked=True, points=points[re.match(r'check\("([^"]+)"', cell.source)[1]])
        elif exercises.BEGIN in cell.source:
            mark(cell, solution=True)
        elif "parameters" in tags:  # autograde puts it back, whatever budget a student has tried
            cell.source = cell.source.replace('PROFILE = "default"', 'PROFILE = "smoke"', 1)
            mark(cell, locked=True)
        elif cell.cell_type == "code" and exercises.answer_call(cell.source):
            before, blank = exercises.without_answer(cell.source)
            first, last, item = exercises.answer_call(cell.source)
            answer = cell.source.splitlines()[first : last + 1]
            form = f'{blank.splitlines()[0]}\n# nf.answer("{item}", f"…", holds=None)'
            cell.source = "\n".join([*filter(None, [before]), form, exercises.BEGIN, *answer, exercises.END])
            mark(cell, grade=True, solution=True, points=to_kit.QUESTION_POINTS)
    return solved


def mark(cell, *, grade=False, solution=False, locked=False, points=None):
    """Give a cell nbgrader's metadata."""
    about = {"schema_version": 3, "grade_id": cell.id, "grade": grade, "solution": solution, "locked": locked}
    cell.metadata["nbgrader"] = about | {"task": False} | ({"points": points} if grade else {})


def write(folder, sheet):
    """Write the course; what stood in its source folder before is replaced."""
    listed, names = exercises.load(sheet), sheets.load()[sheet]["notebooks"]
    edited = {
        key: sorted({o["file"] for o in exercises.load(key) if o["file"].endswith(".py")}) for key in sheets.load()
    }
    source = folder / "source" / sheet
    shutil.rmtree(source, ignore_errors=True)
    for name, content in to_kit.members(sheet).items():
        if name.startswith(("nice_", "data/")) or name == "checks.py":
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for name in names:
        stored = nbformat.read(exercises.ROOT / f"notebooks/{name}.ipynb", as_version=4)
        nbformat.write(course_notebook(stored, name, listed), source / f"{name}.ipynb")
    (folder / "nbgrader_config.py").write_text(CONFIG.format(modules=edited), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
