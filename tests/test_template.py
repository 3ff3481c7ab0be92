"""The students' template: exercises without solutions, everything else as it is, tests that tell right from wrong."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "export"))
import to_template

SOURCE = '''"""A module."""

# before
class A:
    def f(self, x):
        """Keep this.

        And this.
        """

        # the trick
        y = (
            x + 1  # why
        )
        return y

    # between
    def g(self, x):  # aside
        return x


def outer(a):
    b = a  # ü

    def inner(c):
        # the solution
        if c:
            return b
        return c

    return inner  # after
'''
EXPECTED = '''"""A module."""

# before
class A:
    def f(self, x):
        """Keep this.

        And this.
        """
        raise NotImplementedError("Add one.")

    # between
    def g(self, x):  # aside
        return x


def outer(a):
    b = a  # ü

    def inner(c):
        raise NotImplementedError("Return b.")

    return inner  # after
'''


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """Return the zip of all notebooks."""
    archive = tmp_path_factory.mktemp("template") / "template.zip"
    command = [sys.executable, ROOT / "export/to_template.py", archive, *sorted((ROOT / "notebooks").glob("*.ipynb"))]
    subprocess.run(command, check=True)
    return archive


def test_only_the_bodies_are_replaced():
    assert to_template.without_solutions(SOURCE, {"A.f": "Add one.", "outer.inner": "Return b."}) == EXPECTED


def test_a_long_text_is_broken_and_comes_out_whole():
    text = " ".join(f"word{i}" for i in range(60))
    changed = to_template.without_solutions(SOURCE, {"outer.inner": text})
    assert max(map(len, changed.splitlines())) <= 120
    names = {}
    exec(changed, names)
    with pytest.raises(NotImplementedError, match=f"^{text}$"):
        names["outer"](1)(2)


@pytest.mark.parametrize("name", to_template.EXERCISES)
def test_each_exercise_keeps_its_docstring_and_loses_its_body(name):
    source = (ROOT / f"{to_template.ELSEWHERE.get(name, 'nice_helpers')}.py").read_text(encoding="utf-8")
    template = to_template.without_solutions(source, {name: to_template.EXERCISES[name]})
    original, exercise = (to_template.find(ast.parse(text), name) for text in (source, template))
    assert ast.get_docstring(exercise) == ast.get_docstring(original)
    assert ast.dump(exercise.args) == ast.dump(original.args)
    statement = exercise.body[-1]
    assert len(exercise.body) == (1 if ast.get_docstring(original) is None else 2)
    assert statement.exc.func.id == "NotImplementedError"
    assert statement.exc.args[0].value == to_template.EXERCISES[name]
    assert re.search(r"NICE|RealNVP|INN|Gretton", to_template.EXERCISES[name])  # says where to read


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "no module has nothing: correct EXERCISES in to_template.py"),
        ("A.nothing", "no module has A.nothing"),
        ("outer.nothing", "no module has outer.nothing"),
        ("inner", "no module has inner"),
        ("A", "A in EXERCISES is a class"),
        ("short", "short in EXERCISES has no body of its own"),
        ("empty", "empty in EXERCISES has no body of its own"),
    ],
)
def test_a_name_that_is_no_exercise_stops_the_build(name, message):
    source = SOURCE + 'def short(x): return x\n\n\ndef empty():\n    """Nothing."""\n'
    with pytest.raises(ValueError, match=message):
        to_template.without_solutions(source, {name: "Do it."})


def test_a_renamed_function_leaves_no_zip(tmp_path, monkeypatch):
    monkeypatch.setitem(to_template.EXERCISES, "Flow.log_likelihood", "Renamed since.")
    monkeypatch.setattr(sys, "argv", ["to_template.py", str(tmp_path / "template.zip")])
    with pytest.raises(SystemExit, match="no module has Flow.log_likelihood"):
        to_template.main()
    assert not list(tmp_path.iterdir())


def test_the_zip_has_what_students_need_and_is_the_same_each_time(archive, tmp_path):
    names = {name.removeprefix("template/") for name in zipfile.ZipFile(archive).namelist()}
    notebooks = {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks < names
    assert {"README.md", "requirements.txt", "pyproject.toml", "nice_helpers.py", "data/mnist.npz"} < names
    assert {"tests/conftest.py", "tests/test_flows.py", "tests/test_training.py"} < names
    assert not [name for name in names if name.startswith(("export", "results", "build"))]
    to_template.write_zip(tmp_path / "again.zip", to_template.members(sorted((ROOT / "notebooks").glob("*.ipynb"))))
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    assert {member.date_time for member in zipfile.ZipFile(archive).infolist()} == {(2000, 1, 1, 0, 0, 0)}
    assert [path.name for path in tmp_path.iterdir()] == ["again.zip"]


def test_students_checks_fail_with_the_task_and_pass_with_the_solution(archive, tmp_path):
    zipfile.ZipFile(archive).extractall(tmp_path)
    folder = tmp_path / "template"

    def check():
        command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "tests/test_inpainting.py"]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"COLUMNS": "1000"}
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True).stdout

    begun = check()
    failures = re.findall(r"^FAILED .*? - (.*)", begun, re.MULTILINE)
    assert failures and all(failure.startswith("NotImplementedError: ") for failure in failures), begun
    assert any(to_template.EXERCISES["inpaint.step"] in failure for failure in failures)
    assert not re.search(r"^ERROR", begun, re.MULTILINE)
    shutil.copy(ROOT / "nice_images.py", folder)
    shutil.copy(ROOT / "nice_helpers.py", folder)
    solved = check()
    assert re.search(r"\d+ passed", solved) and not re.search("failed|error", solved), solved
