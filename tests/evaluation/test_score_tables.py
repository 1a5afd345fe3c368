"""The table of scores on terminals of any width."""

import io

import pytest
from rich.console import Console

from melpatch.evaluation.score_tables import against_tables, floor_tables, score_tables

RECORD = {
    "version": 1,
    "settings_changed": ["k"],
    "metric": "balanced_accuracy",
    "value": 0.4032,
    "interval_95": [0.35, 0.457],
    "interval_by": "clip",
    "seeds": [0, 1, 2],
    "seed_std": 0.0123,
    "seconds": 1234.5,
    "embedding_seconds": 33.1,
    "metrics": {
        "balanced_accuracy": 0.41,
        "macro_f1": 0.362,
        "majority_rate": 0.278,
        "mAP": 0.468,
        "mAUC": None,
    },
}
NUMBERS = [
    "0.403",
    "0.278",
    "0.350 to 0.457",
    "3 (±0.012)",
    "0.410",
    "0.362",
    "0.468",
    "1234.5 (33.1)",
]
PROTOCOLS = ("knn", "linear", "attentive", "as_trained")


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize("protocols", [PROTOCOLS[:1], PROTOCOLS])
def test_no_number_is_cut_or_wrapped(columns, protocols):
    console = Console(width=columns, file=io.StringIO())
    for table in score_tables(dict.fromkeys(protocols, RECORD), "runs/b on fsdd", console):
        console.print(table)
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= columns
    for text in NUMBERS:
        assert shown.count(text) == len(protocols)
    for name in protocols:
        assert f"{name} 1 *" in shown
    assert shown.count("runs/b on fsdd") == 1


def test_a_wide_terminal_has_a_row_per_protocol_with_whole_names():
    (table,) = score_tables({"knn": RECORD, "linear": RECORD}, "", Console(width=160))
    assert table.row_count == 2
    assert "balanced accuracy" in [column.header for column in table.columns]


def test_an_interval_by_group_is_named_so():
    console = Console(width=200, file=io.StringIO())
    record = RECORD | {"interval_by": "group"}
    for table in score_tables({"knn": record}, "", console):
        console.print(table)
    assert "0.350 to 0.457 (by group)" in console.file.getvalue()


AGAINST = {
    "run": "runs/a",
    "value": 0.35,
    "balanced_accuracy": 0.3,
    "difference": 0.0532,
    "difference_95": [-0.02, 0.12],
    "by": "clip",
    "p_value": 0.173,
    "clips_needed": 1830,
}


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_number_of_a_difference_is_cut(columns):
    console = Console(width=columns, file=io.StringIO())
    records = dict.fromkeys(PROTOCOLS, RECORD | {"run": "runs/b", "against": AGAINST})
    for table in against_tables(records, console):
        console.print(table)
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= columns
    for text in (*PROTOCOLS, "+0.053", "-0.020 to +0.120", "1,830 clips", "0.410 / 0.300"):
        assert shown.count(text) == (1 if text in PROTOCOLS else len(PROTOCOLS))


def test_a_difference_stands_with_its_test_and_what_it_takes_to_see_it():
    wide = Console(width=160)
    (table,) = against_tables({"knn": RECORD | {"run": "runs/b", "against": AGAINST}}, wide)
    cells = [next(iter(column.cells)) for column in table.columns]
    assert cells[:-1] == [
        "knn", "0.403", "0.350", "+0.053", "-0.020 to +0.120", "0.17", "1,830 clips"
    ]  # fmt: skip
    assert cells[-1] == "0.410 / 0.300"
    assert against_tables({"knn": RECORD | {"against": None}}, wide) == []


def test_floors_have_their_balanced_accuracy_beside_their_accuracy():
    floor = {
        "name": "majority class",
        "value": 0.7,
        "balanced_accuracy": 0.333,
        "gain": 0.1,
        "gain_95": [-0.1, 0.3],
    }
    record = RECORD | {"metric": "accuracy", "value": 0.8, "floors": [floor]}
    (table,) = floor_tables({"knn": record})
    assert [[*column.cells] for column in table.columns][1] == ["0.800", "0.700"]
    assert [[*column.cells] for column in table.columns][-1] == ["0.410", "0.333"]
    (table,) = floor_tables({"knn": record | {"metric": "mAP"}})
    assert "balanced" not in [column.header for column in table.columns]
