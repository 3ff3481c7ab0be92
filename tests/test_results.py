"""The README's tables are those that results.json and bench.json give."""

import json
import re
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
    stored = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}  # a newcomer's own may be among them
    assert {name for name, *_ in collect.NOTEBOOKS} <= stored
    assert all(results[name]["profile"] == "default" for name, *_ in collect.NOTEBOOKS)


def test_a_changed_number_shows():
    readme, results, bench = read()
    changed = {**results, "01_nice_parabola": results["01_nice_parabola"] | {"kl_nats": 1.0}}
    assert collect.with_tables(readme, changed, bench) != readme
    assert collect.with_tables(readme, results, bench | {"moons_ours_train": 1.0}) != readme


def test_a_run_of_the_profile_full_stands_beside_that_of_default():
    _, results, _ = read()
    full = results["01_nice_parabola"] | {"profile": "full", "kl_nats": 0.0123, "kl_nats_sd": 0.0045}
    rows = collect.results_table({**results, "01_nice_parabola (full)": full}).splitlines()
    (row,) = (row for row in rows if row.startswith("| 01 |"))
    assert "| 0.0123 ± 0.0045 | one Gaussian" in row and row.count("|") == rows[1].count("|")


def test_what_full_compares_with_stands_in_brackets_where_it_differs():
    compared = [("paper", "2.0"), ("mixture", "{kl:.2f}")]
    assert collect.beside(compared, {"kl": 0.5}, {"kl": 0.25}) == "paper: 2.0 · mixture: 0.50 (`full`: 0.25)"
    assert collect.beside(compared, {"kl": 0.5}, {"kl": 0.5}) == "paper: 2.0 · mixture: 0.50"
    assert collect.beside(compared, {"kl": 0.5}, None) == "paper: 2.0 · mixture: 0.50"


def test_a_single_training_gets_its_deviation_from_a_run_with_another_seed():
    assert collect.numbers({"nats": 3.0}, ["nats"], ".2f", {"nats": 5.0}) == "3.00 ± 1.41"
    assert collect.numbers({"nats": 3.0, "nats_sd": 0.5}, ["nats"], ".2f", {"nats": 5.0}) == "3.00 ± 0.50"
    assert collect.numbers({"train_seconds": 3.0}, ["train_seconds"], ".2f", {"train_seconds": 5.0}) == "3"


def test_a_readme_without_markers_is_refused():
    _, results, bench = read()
    with pytest.raises(ValueError, match="markers"):
        collect.with_tables("# nothing", results, bench)


def test_every_picture_and_page_that_the_readme_links_exists():
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r'\]\(([^)#:]+)\)|src="([^"]+)"', readme)
    assert len(links) > 20
    for path in (a or b for a, b in links):
        assert (ROOT / path).exists(), path
