"""Floors beside the scores of a comparison: means over seeds, and tables that say what is what."""

import csv

import pytest
from comparison.specs import spec

from melpatch.comparison.floors import collect_floors, floor_rows, gain_table, write_floors
from melpatch.comparison.plan import plan
from melpatch.comparison.results import Results
from melpatch.comparison.work import score_keys

COLUMNS = [("birds", "knn"), ("words", "linear C=1.0")]


def floor(name, value, gain, spread=0.1):
    gain_95 = None if spread is None else [gain - spread, gain + spread]
    interval = [value - 0.2, value + 0.2]
    return {"name": name, "value": value, "interval_95": interval, "gain": gain, "gain_95": gain_95}


@pytest.fixture
def floors(lists, tmp_path):
    """Two seeds of one method: floors on birds, and on words a floor without an interval."""
    found = spec(lists, ("[10, 1000000]", "[10]"))
    runs = [run for run in plan(found, found.budget("small")) if run.method.name == "mine"]
    known = Results(tmp_path / "results.jsonl")
    for run in runs:
        birds, words = score_keys(run)
        shift = 0.1 * run.seed
        known.add(
            birds,
            {
                "value": 0.5 + shift,
                "floors": [
                    floor("majority class", 0.25, 0.25 + shift),
                    floor("random weights", 0.45 + shift, 0.05),
                ],
            },
        )
        known.add(words, {"value": 0.3, "floors": [floor("majority class", 0.4, -0.1, None)]})
    return collect_floors(runs, known)


def test_a_floor_is_the_mean_over_seeds(floors):
    majority, random, words = floors
    assert (majority.task, majority.floor, majority.seeds) == ("birds", "majority class", 2)
    assert majority.value == pytest.approx(0.25)
    assert (majority.gain, majority.gain_low, majority.gain_high) == pytest.approx((0.3, 0.2, 0.4))
    assert (random.value, random.low, random.high) == pytest.approx((0.5, 0.3, 0.7))
    assert (words.task, words.gain_low, words.gain_high) == ("words", None, None)


def test_floors_without_a_network_are_rows_beside_the_scores(floors):
    (row,) = floor_rows(floors, COLUMNS, 3)
    assert row == "| majority class | - | - | 0.250 [0.050, 0.450] | 0.400 [0.200, 0.600] |"


def test_the_gains_are_those_over_each_floor(floors):
    head, _, *rows = gain_table(floors, COLUMNS, several_sizes=False)
    assert head == "| method | budget | gain over | birds, knn | words, linear C=1.0 |"
    assert rows == [
        "| mine | 10 steps | majority class | +0.300 [+0.200, +0.400] | -0.100 |",
        "| mine | 10 steps | random weights | +0.050 [-0.050, +0.150] | - |",
    ]


def test_the_csv_has_a_line_per_score_and_floor(floors, tmp_path):
    write_floors(tmp_path / "floors.csv", floors)
    with (tmp_path / "floors.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["task"], row["floor"]) for row in found] == [
        ("birds", "majority class"),
        ("birds", "random weights"),
        ("words", "majority class"),
    ]
    assert float(found[1]["gain"]) == pytest.approx(0.05)


def test_without_floors_there_is_nothing(lists, tmp_path):
    found = spec(lists)
    runs = plan(found, found.budget("small"))
    assert collect_floors(runs, Results(tmp_path / "results.jsonl")) == []
