"""nbgrader's round trip: generate, hand in, autograde, write feedback. Run by `make test-nbgrader`."""

import os
import shutil
import sqlite3
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "export"))
import exercises
import to_nbgrader

NBGRADER = ROOT / ".venv-nbgrader/bin/nbgrader"
SHEET = "nice"
LISTED = exercises.load(SHEET)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Return a course whose assignment is generated, handed in three times, graded and commented."""
    folder = tmp_path_factory.mktemp("course")
    to_nbgrader.write(folder, SHEET)
    nbgrader(folder, "generate_assignment")
    for student in ("right", "wrong_sign", "unsolved"):
        shutil.copytree(folder / "release" / SHEET, folder / "submitted" / student / SHEET)
    for student in ("right", "wrong_sign"):
        solve(folder / "submitted" / student / SHEET)
    module = folder / "submitted/wrong_sign" / SHEET / "nice_helpers.py"
    text = module.read_text(encoding="utf-8")
    right = "changed - self._network(kept, condition, False)"
    assert right in text
    module.write_text(text.replace(right, right.replace("-", "+")), encoding="utf-8")
    nbgrader(folder, "autograde")
    nbgrader(folder, "generate_feedback")
    return folder


def nbgrader(folder, command):
    """Run a command of nbgrader on the assignment; its environment's own kernel runs the notebooks."""
    path = f"{NBGRADER.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_PATH": ""}
    done = subprocess.run(
        [NBGRADER, command, SHEET], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def solve(folder):
    """Write the solutions into a handed-out assignment, as a student would."""
    for name in {one["file"] for one in LISTED if one["file"].endswith(".py")}:
        shutil.copy(ROOT / name, folder)
    for name in {one["file"] for one in LISTED if not one["file"].endswith(".py")}:
        solved = {c.id: c.source for c in nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4).cells}
        notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
        for cell in notebook.cells:
            if cell.id in {one["cell"] for one in LISTED if one["file"] == name}:
                cell.source = exercises.without_markers(solved[cell.id])
        nbformat.write(notebook, folder / f"{name}.ipynb")


def scores(course):
    """Return a dict of students and what autograde gave them for all checks."""
    query = """
        select student.id, sum(grade.auto_score) from grade
        join submitted_notebook on grade.notebook_id = submitted_notebook.id
        join submitted_assignment on submitted_notebook.assignment_id = submitted_assignment.id
        join student on submitted_assignment.student_id = student.id group by student.id"""
    with sqlite3.connect(course / "gradebook.db") as connection:
        return dict(connection.execute(query).fetchall())


@pytest.mark.nbgrader
def test_points_are_those_of_the_solved_exercises(course):
    points = {one["name"]: one["points"] for one in LISTED}
    most = sum(points.values())
    assert scores(course) == {"right": most, "wrong_sign": most - points["AdditiveCoupling.backward"], "unsolved": 0}


@pytest.mark.nbgrader
def test_what_is_handed_out_has_no_solution(course):
    for name in {one["file"] for one in LISTED}:
        suffix = "" if name.endswith(".py") else ".ipynb"
        text = (course / "release" / SHEET / f"{name}{suffix}").read_text(encoding="utf-8")
        assert exercises.BEGIN not in text
        assert "NotImplementedError" in text


@pytest.mark.nbgrader
def test_the_students_modules_are_graded_as_they_are(course):
    graded = (course / "autograded/wrong_sign" / SHEET / "nice_helpers.py").read_text(encoding="utf-8")
    assert "changed + self._network(kept, condition, False)" in graded
    page = course / "feedback/wrong_sign" / SHEET / "01_nice_parabola.html"
    assert "off by twice m(a): subtract where forward adds" in page.read_text(encoding="utf-8")
