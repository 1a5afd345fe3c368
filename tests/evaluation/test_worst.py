"""The worst answers, against a slow obvious search."""

import math

import numpy as np
import pytest

from melpatch.errors import CheckpointError
from melpatch.evaluation.worst import worst_answers

LABELS = ("a", "b", "c")


def write(folder, rows, heads=("path", "start", "end", "label", "predicted", "split", "seed")):
    lines = [",".join([*heads, *LABELS]), *(",".join(map(str, row)) for row in rows)]
    (folder / "predictions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def record(*, multi_label=False):
    metrics = {"mAP": 0.5} if multi_label else {"accuracy": 0.5}
    return {"per_class": [{"label": label} for label in LABELS], "metrics": metrics}


def test_wrong_answers_come_by_their_cross_entropy_each_clip_once(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    expected = {}
    for number in range(40):
        for seed in range(2):
            p = rng.dirichlet(np.ones(3)).round(6)
            true = LABELS[number % 3]
            said = LABELS[int(p.argmax())]
            rows.append([f"{number}.wav", 1.5, 2.5, true, said, "test", seed, *p])
            if said != true:
                loss = -math.log(p[number % 3])
                expected[f"{number}.wav"] = max(loss, expected.get(f"{number}.wav", 0))
    write(tmp_path, rows)
    answers = worst_answers(tmp_path, record(), 5)
    assert [answer.path for answer in answers] == sorted(expected, key=lambda p: -expected[p])[:5]
    assert [answer.loss for answer in answers] == pytest.approx(
        sorted(expected.values(), reverse=True)[:5]
    )
    assert (answers[0].start, answers[0].end, answers[0].split) == (1.5, 2.5, "test")
    assert not any(answer.is_right for answer in answers)


def test_of_several_labels_each_counts(tmp_path):
    rows = [
        ["right.wav", 0, 1, "a;b", "a", "test", 0, 0.9, 0.6, 0.1],
        ["half.wav", 0, 1, "a;b", "a", "test", 0, 0.9, 0.4, 0.1],
        ["none.wav", 0, 1, "", "a", "test", 0, 0.99, 0.4, 0.1],
    ]
    write(tmp_path, rows)
    answers = worst_answers(tmp_path, record(multi_label=True), 9)
    assert [answer.path for answer in answers] == ["none.wav", "half.wav"]
    assert answers[1].predicted == ("a",)
    costs = [-math.log(0.9), -math.log(0.4), -math.log(0.9)]
    assert answers[1].loss == pytest.approx(sum(costs) / 3)


def test_a_class_without_any_probability_costs_much_but_not_infinitely_much(tmp_path):
    write(tmp_path, [["x.wav", 0, 1, "c", "a", "test", 0, 1.0, 0.0, 0.0]])
    (answer,) = worst_answers(tmp_path, record(), 1)
    assert answer.loss == pytest.approx(-math.log(1e-7))


def test_predictions_from_before_ends_were_written_have_none(tmp_path):
    heads = ("path", "start", "label", "predicted", "split", "seed")
    write(tmp_path, [["x.wav", 0, "c", "a", "test", 0, 0.6, 0.3, 0.1]], heads)
    (answer,) = worst_answers(tmp_path, record(), 1)
    assert answer.end is None


@pytest.mark.parametrize("content", ["", "path,start\n", "path,start,label,seed,a\nx,0,a,0\n"])
def test_damaged_predictions_are_told(tmp_path, content):
    (tmp_path / "predictions.csv").write_text(content)
    with pytest.raises(CheckpointError, match=r"predictions.csv: damaged"):
        worst_answers(tmp_path, record(), 1)


def test_missing_predictions_are_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"predictions.csv: cannot be read"):
        worst_answers(tmp_path, record(), 1)
