"""The README's table is the one that results.json gives."""

import json
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "results"))
import collect


def read():
    files = ("results/results.json", "results/bench.json")
    return (ROOT / "README.md").read_text(), *(json.loads((ROOT / file).read_text()) for file in files)


def test_the_readmes_tables_and_the_results_files_agree():
    readme, results, bench = read()
    assert collect.with_tables(readme, results, bench) == readme
    assert {record["profile"] for record in results.values()} == {"default"}


def test_a_changed_number_shows():
    readme, results, bench = read()
    changed = {**results, "01_nice_parabola": results["01_nice_parabola"] | {"kl_nats": 1.0}}
    assert collect.with_tables(readme, changed, bench) != readme
    assert collect.with_tables(readme, results, bench | {"moons_ours_train": 1.0}) != readme


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ValueError, match="markers"):
        collect.with_tables("# nothing", {}, {})


def test_every_picture_in_the_readme_exists():
    import re

    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / path).exists(), path
