"""Scores by protocol: a dict that JSON takes, a table and columns."""

import json

from test_markup import Reader

from melpatch.evaluation.scores import Scores


def record(value, interval, **metrics):
    return {
        "corpus": "<birds>",
        "metric": "accuracy",
        "value": value,
        "interval_95": interval,
        "n": 100,
        "metrics": metrics,
    }


def test_scores_are_a_dict_with_columns_and_a_table():
    scores = Scores(
        knn=record(0.5, [0.4, 0.6], accuracy=0.5, mAP=0.25), linear=record(None, None, mAP=0.75)
    )
    assert json.loads(json.dumps(scores)) == scores
    assert scores.columns() == {
        "protocol": ["knn", "linear"],
        "corpus": ["<birds>", "<birds>"],
        "metric": ["accuracy", "accuracy"],
        "value": [0.5, None],
        "low_95": [0.4, None],
        "high_95": [0.6, None],
        "clips": [100, 100],
        "accuracy": [0.5, None],
        "mAP": [0.25, 0.75],
    }
    page = Reader(scores._repr_html_())
    assert "<birds>" in page.text
    assert "0.400" in page.text


def test_no_scores_are_an_empty_table():
    assert Scores().columns()["protocol"] == []
    assert "<table>" in Scores()._repr_html_()
