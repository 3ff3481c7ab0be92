"""The checks of all exercises, in their order: `pytest`, or `pytest -k NAME` for one of them."""

import json
from pathlib import Path

import pytest
from checks import Wrong, check, written_in

EXERCISES = json.loads(Path(__file__).with_name("exercises.json").read_text(encoding="utf-8"))["exercises"]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise["name"])
def test_exercise(exercise):
    """Check an exercise; what it says stands alone, without a traceback."""
    said = ""
    try:
        check(exercise["name"], written_in(exercise))
    except Wrong as wrong:
        said = str(wrong)
    if said:
        pytest.fail(said, pytrace=False)
