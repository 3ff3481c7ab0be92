"""The README's table is the one that results.json gives."""

import json
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "results"))
import collect


def test_the_readmes_table_and_the_results_file_agree():
    results = json.loads((ROOT / "results/results.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert collect.with_table(readme, results) == readme
    assert {record["profile"] for record in results.values()} == {"default"}


def test_a_changed_number_shows():
    results = json.loads((ROOT / "results/results.json").read_text())
    results["01_nice_parabola"]["kl_nats"] += 1
    readme = (ROOT / "README.md").read_text()
    assert collect.with_table(readme, results) != readme


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ValueError, match="markers"):
        collect.with_table("# nothing", {})


def test_every_picture_in_the_readme_exists():
    import re

    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / path).exists(), path
