"""What came of it: means and intervals that a slow look at the lines bears out."""

import csv
import statistics

import pytest
from comparison.specs import spec

from melpatch.comparison.plan import plan
from melpatch.comparison.results import Results
from melpatch.comparison.table import collect_cells, draw, markdown, write_csv
from melpatch.comparison.work import score_keys

SCORES = (0.4, 0.6, 0.65)
T_95 = 4.30265272991  # Student's t at 0.975 with 2 degrees of freedom, from a table


@pytest.fixture
def runs(lists):
    found = spec(lists, ("seeds = [0, 1]", "seeds = [0, 1, 2]"), ("[10, 1000000]", "[10]"))
    return plan(found, found.budget("small"))


@pytest.fixture
def results(tmp_path, runs):
    """The random network has one score per seed, the trained one failed in its last seed."""
    known = Results(tmp_path / "results.jsonl")
    for run in runs:
        name, seed = run.method.name, run.seed
        if name == "mine" and seed == 2:
            known.add(run.key, {"run": run.name, "error": "melpatch pretrain: error: a | b"})
            continue
        cost = 10.0 * (seed + 1) if name == "mine" else 0.0
        known.add(
            run.key,
            {"cpu_seconds": cost, "seconds": 2 * cost, "steps": 10, "passes": 0.5, "gpu": None},
        )
        for number, key in enumerate(score_keys(run)):
            value = SCORES[seed] + number / 10
            found = {
                "metric": "accuracy",
                "value": value,
                "interval_95": [value - 0.1, value + 0.2],
                "n": 40 + number,
            }
            heard = seed if name == "mine" and number else 0
            known.add(key, found | {"scored_clips_trained_on": heard})
    return known


def test_a_cell_is_the_mean_over_seeds_with_both_intervals(runs, results):
    birds, words, *mine = collect_cells(runs, results)
    assert (birds.method, birds.task, birds.protocol, birds.n, birds.seeds) == (
        "random",
        "birds",
        "knn",
        40,
        3,
    )
    assert birds.value == pytest.approx(sum(SCORES) / 3)
    assert birds.seeds_std == pytest.approx(statistics.stdev(SCORES))
    assert birds.seeds_95 == pytest.approx(T_95 * statistics.stdev(SCORES) / 3**0.5)
    assert (birds.low, birds.high) == pytest.approx((birds.value - 0.1, birds.value + 0.2))
    assert (words.task, words.n, words.value) == ("words", 41, pytest.approx(birds.value + 0.1))
    assert mine[0].value == pytest.approx(0.5)
    assert mine[0].seeds_95 is None  # two seeds
    assert (mine[0].cpu_seconds, mine[0].seconds, mine[0].seeds) == (15.0, 30.0, 2)
    assert mine[0].error == "melpatch pretrain: error: a | b"


def test_the_table_says_what_is_what(runs, results):
    told = markdown("Two ways", "melpatch compare x", collect_cells(runs, results)).splitlines()
    half = T_95 * statistics.stdev(SCORES) / 3**0.5
    head = "| method | budget | CPU-s | steps | passes "
    heads = "| birds, knn (accuracy, n = 40, 3 seeds) | words, linear C=1.0 (accuracy, n = 41, 3 seeds) |"
    assert told[:3] == ["**Two ways**", "", "`melpatch compare x`"]
    assert told[4] == head + heads
    first = f"0.550 ± {half:.3f} [0.450, 0.750] | 0.650 ± {half:.3f} [0.550, 0.850]"
    assert told[6] == f"| random | none | 0 | 10 | 0.5 | {first} |"
    second = "0.500 [0.400, 0.700] (2 seeds) failed [1] | 0.600 [0.500, 0.800] (2 seeds) failed [1]"
    assert told[7] == f"| mine | 10 steps | 15 | 10 | 0.5 | {second} |"
    assert told[-1] == "- failed [1]: melpatch pretrain: error: a | b"
    assert told[-3] == "- pretrained on: 1 of 41 scored clips of words, by mine, tiny, 10 steps"
    assert sum("pretrained on" in line for line in told) == 1
    assert "Student's t, from 3 seeds on" in told[9]


def test_the_majority_rate_and_the_balanced_accuracy_stand_beside_the_accuracy(
    runs, results, tmp_path, monkeypatch
):
    key = score_keys(runs[0])[0]
    line = results.find(key)
    results.add(key, line | {"balanced_accuracy": 0.3, "majority_rate": 0.7})
    cells = collect_cells(runs, results)
    assert (cells[0].balanced_accuracy, cells[0].majority_rate) == (0.3, 0.7)
    assert (cells[1].balanced_accuracy, cells[1].majority_rate) == (None, None)
    lines = markdown("", "", cells).splitlines()
    assert "birds, knn (accuracy, majority 0.700, n = 40, 3 seeds) | words" in lines[4]
    assert "[0.450, 0.750] balanced 0.300 | 0.650" in lines[6]
    drawn = []
    monkeypatch.setattr("melpatch.comparison.table.budget", lambda *asked: drawn.extend(asked[1]))
    draw(tmp_path / "x.png", "Two ways", cells)
    assert drawn[-1] == ("knn", "birds", "majority class", 0.0, 0.7)


def test_what_is_not_done_yet_is_a_dash_and_what_is_not_begun_no_row(runs, tmp_path):
    known = Results(tmp_path / "few.jsonl")
    known.add(
        runs[1].key, {"cpu_seconds": 1.0, "seconds": 1.0, "steps": 10, "passes": 0.5, "gpu": None}
    )
    rows = markdown("", "", collect_cells(runs, known)).splitlines()[6:]
    assert rows[0] == "| mine | 10 steps | 1 | 10 | 0.5 | - | - |"
    assert rows[1] == ""
    assert collect_cells(runs, Results(tmp_path / "none.jsonl")) == []


def test_the_csv_has_a_line_per_cell_with_everything(runs, results, tmp_path):
    found = collect_cells(runs, results)
    write_csv(tmp_path / "table.csv", found)
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4
    for line, cell in zip(lines, found, strict=True):
        assert line == {
            name: "" if value is None else str(value) for name, value in cell._asdict().items()
        }


def test_the_picture_has_a_row_per_protocol_and_the_time_that_counts(
    runs, results, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr("melpatch.comparison.table.budget", lambda *asked: drawn.append(asked))
    found = collect_cells(runs, results)
    draw(tmp_path / "x.png", "Two ways", found)
    draw(tmp_path / "x.png", "Two ways", [cell._replace(gpu="a GPU") for cell in found])
    (_, points, _, unit, title), (_, clocked, _, by_clock, _) = drawn
    assert title == "Two ways"
    assert (unit, by_clock) == ("CPU seconds", "seconds")
    assert [(point.row, point.task, point.method, point.seconds) for point in points] == [
        ("knn", "birds", "random", 0.0),
        ("linear C=1.0", "words", "random", 0.0),
        ("knn", "birds", "mine", 15.0),
        ("linear C=1.0", "words", "mine", 15.0),
    ]
    assert [point.seconds for point in clocked] == [0.0, 0.0, 30.0, 30.0]
