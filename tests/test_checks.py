"""The checks of the exercises: typical wrong answers are named, right ones pass however they are written."""

import ast
import sys
import tomllib

import nbformat
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "export"))
sys.path.insert(0, str(ROOT / "export/kit"))
import checks
import exercises
import sheets

SHEETS = list(sheets.load())
ALL = {one["name"]: one for sheet in SHEETS for one in exercises.load(sheet)}

with (ROOT / "tests/answers.toml").open("rb") as file:
    ANSWERS = tomllib.load(file)
WRONG = [(name, one["code"], one["says"]) for name, some in ANSWERS.items() for one in some["wrong"]]
RIGHT = [(name, one["code"]) for name, some in ANSWERS.items() for one in some["right"]]


def own_solution(exercise):
    """Return the collection's solution of an exercise."""
    return exercises.solution(exercises.source_of(exercise), exercise["target"])


def nodes_of(source, name):
    """Return the function of a dotted name, or the one that holds it where it stands within a function."""
    first = exercises.find(source, name.partition(".")[0])
    return exercises.find(source, name) if isinstance(first, ast.ClassDef) else first


@pytest.fixture
def solve(monkeypatch):
    """Return a function that puts a solution in place, and returns what `check` needs beside the name."""

    def put_in_place(name, body):
        exercise = ALL[name]
        if exercise["file"].endswith(".py"):
            source = (ROOT / exercise["file"]).read_text(encoding="utf-8")
            module = sys.modules[exercise["file"].removesuffix(".py")]
            changed = exercises.with_solution(source, exercise["target"], body)
            function = nodes_of(changed, exercise["target"])
            names = dict(vars(module))
            exec(compile(ast.Module([function], []), exercise["file"], "exec"), names)
            owner, _, last = exercise["target"].partition(".")
            is_method = isinstance(exercises.find(source, owner), ast.ClassDef)
            place = getattr(module, owner) if is_method else module
            monkeypatch.setattr(place, last if is_method else owner, names[function.name])
            return None
        notebook = nbformat.read(ROOT / f"notebooks/{exercise['file']}.ipynb", as_version=4)
        for cell in notebook.cells:
            if cell.id == exercise["cell"]:
                cell.source = exercises.with_solution(cell.source, exercise["target"], body)
        sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        return checks.definitions(sources)[name.partition(".")[0]]

    return put_in_place


def short(value):
    """Return no label for code: answers are numbered."""
    return None if "\n" in value else value


@pytest.mark.parametrize(("name", "body", "phrase"), WRONG, ids=short)
def test_a_wrong_answer_is_called_by_its_name(solve, name, body, phrase):
    with pytest.raises(checks.Wrong) as wrong:
        checks.check(name, solve(name, body))
    assert phrase in str(wrong.value)
    assert str(wrong.value).startswith(name)


@pytest.mark.parametrize(("name", "body"), RIGHT, ids=short)
def test_a_right_answer_passes_however_it_is_written(solve, capsys, name, body):
    checks.check(name, solve(name, body))
    assert capsys.readouterr().out == f"✓ {name}\n"


@pytest.mark.parametrize("name", ALL)
def test_the_collections_own_solution_passes(solve, name):
    checks.check(name, solve(name, own_solution(ALL[name])))


@pytest.mark.parametrize("name", ALL)
def test_a_missing_answer_is_told_from_a_wrong_one(solve, name):
    number = ALL[name]["number"]
    body = f'raise NotImplementedError("Task {number}, {name}, is not solved yet")'
    with pytest.raises(checks.Wrong, match=rf"^Task {number}, {name}, is not solved yet\.$"):
        checks.check(name, solve(name, body))


@pytest.mark.parametrize(("sheet", "number"), [(s, one["number"]) for s in SHEETS for one in exercises.load(s)])
def test_a_check_needs_earlier_exercises_only(solve, sheet, number):
    listed = exercises.load(sheet)
    for one in listed[number:]:
        if one["file"].endswith(".py"):
            solve(one["name"], exercises.blank(one))
    one = listed[number - 1]
    checks.check(one["name"], solve(one["name"], own_solution(one)))


def test_each_exercise_has_a_check_and_enough_answers_to_try_it():
    assert set(ALL) == set(checks.CHECKS) == set(ANSWERS)
    assert min(len(some["wrong"]) for some in ANSWERS.values()) >= 4
    assert min(len(some["right"]) for some in ANSWERS.values()) >= 2


def test_the_readme_counts_the_answers_right():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())  # wherever its lines break
    assert f"has {len(WRONG)} wrong answers" in readme and f"and {len(RIGHT)} right ones" in readme


def test_an_error_names_its_line():
    def broken(p, q):
        return undefined_name  # noqa: F821

    with pytest.raises(checks.Wrong, match=r"kl_bernoulli stops with NameError.*undefined_name.*test_checks.py"):
        checks.check("kl_bernoulli", broken)


def test_a_name_that_is_no_exercise_is_refused():
    with pytest.raises(ValueError, match="name must be one of .* got 'nothing'"):
        checks.check("nothing")


def test_a_notebook_shows_the_sentence_alone():
    assert checks.Wrong("subtract").args == ("subtract",)
    assert checks.Wrong("subtract")._render_traceback_() == ["✗ subtract"]
