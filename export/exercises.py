"""The exercises of exercises.toml, and the solutions that stand between markers in modules and notebooks."""

import ast
import re
import textwrap
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
NOT_ANSWERED = "Not answered yet."


def load(sheet):
    """Return a sheet's exercises in order, each a dict with its `number` and its `target`, the function's name."""
    with (ROOT / "export/exercises.toml").open("rb") as file:
        listed = tomllib.load(file)[sheet]
    return [{"target": one["name"], **one, "number": number} for number, one in enumerate(listed, 1)]


def source_of(exercise):
    """Return the source that holds an exercise's solution: a module's, or its notebook's cell."""
    if exercise["file"].endswith(".py"):
        return (ROOT / exercise["file"]).read_text(encoding="utf-8")
    stored = nbformat.read(ROOT / f"notebooks/{exercise['file']}.ipynb", as_version=4)
    return next(cell.source for cell in stored.cells if cell.id == exercise["cell"])


def without_markers(source):
    """Return code without the lines that mark solutions."""
    return re.sub(rf"^ *({BEGIN}|{END})\n?", "", source, flags=re.MULTILINE)


def find(source, name):
    """Return the function or class of a dotted name in a module's source.

    Raises:
        ValueError: for a name that the source doesn't have.
    """
    node = ast.parse(source)
    for part in name.split("."):
        inner = (n for n in ast.iter_child_nodes(node) if isinstance(n, (ast.FunctionDef, ast.ClassDef)))
        node = next((n for n in inner if n.name == part), None)
        if node is None:
            raise ValueError(f"{name} is not there: correct exercises.toml")
    return node


def region(source, name):
    """Return the numbers (from 0) of the lines that mark a function's solution.

    Raises:
        ValueError: for a function that is not there or has not just one solution.
    """
    node, lines = find(source, name), source.splitlines()
    inside = range(node.lineno - 1, node.end_lineno + 1)  # an end mark may follow the last statement
    begins, ends = ([i for i in inside if i < len(lines) and lines[i].strip() == mark] for mark in (BEGIN, END))
    if len(begins) != 1 or len(ends) != 1:
        raise ValueError(
            f"{name} must have one solution between markers, got {len(begins)} beginnings, {len(ends)} ends"
        )
    return begins[0], ends[0]


def solution(source, name):
    """Return a function's solution, without indentation."""
    first, last = region(source, name)
    return textwrap.dedent("\n".join(source.splitlines()[first + 1 : last]))


def with_solution(source, name, body):
    """Return a module's source with other code in place of a function's solution; the markers stay."""
    lines = source.splitlines()
    first, last = region(source, name)
    indent = re.match(" *", lines[first])[0]
    lines[first + 1 : last] = textwrap.indent(body.strip("\n"), indent).splitlines()
    return "\n".join(lines) + "\n"


def blank(exercise):
    """Return what students find in place of a solution: its bug, or an error that says what is missing."""
    title = f"Task {exercise['number']}, {exercise['name']}, is not solved yet"
    return exercise.get("bug") or f'raise NotImplementedError("{title}")'


def handed_out(source, exercises):
    """Return a module's or a cell's source as students get it."""
    for exercise in exercises:
        source = with_solution(source, exercise["target"], blank(exercise))
    return without_markers(source)


def answer_call(source):
    """Return the first and last line (from 0) of a cell's nf.answer(…) and its item, or None."""
    for statement in ast.parse(source).body if "nf.answer(" in source else ():
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "nf.answer":
            return statement.lineno - 1, statement.end_lineno - 1, call.args[0].value
    return None


def without_conditions(source):
    """Return a cell's source without a list named `supported`: the conditions of an answer."""
    lines = source.splitlines()
    for statement in reversed(ast.parse(source).body if "supported = " in source else []):
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "supported":
            del lines[statement.lineno - 1 : statement.end_lineno]
    return "\n".join(lines)


def without_answer(source):
    """Return what a cell computes besides its answer, and the blank answer."""
    first, last, item = answer_call(source)
    lines = source.splitlines()
    blank_answer = [
        "# First the answer, in a sentence that could be said aloud; then the number that proves it; what it means.",
        f'nf.answer("{item}", "{NOT_ANSWERED}", holds=None)',
    ]
    return "\n".join(lines[:first] + lines[last + 1 :]).strip(), "\n".join(blank_answer)
