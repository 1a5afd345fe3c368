"""mAP, mAUC, d' and arg-max accuracy against the official statistics function of SSAST, and where we differ from it."""

import json

import numpy as np
import pytest
from places import shared

from melpatch.evaluation.metrics import accuracy, compute_metrics

LABELS = [f"class{i}" for i in range(21)]


@pytest.fixture(scope="module")
def golden():
    block = json.loads(shared("golden/ssast/metrics.json").read_text())["float64"]
    return block | {"scores": np.array(block["scores"]), "labels": np.array(block["labels"])}


@pytest.fixture(scope="module")
def ours(golden):
    return compute_metrics(golden["scores"], golden["labels"], LABELS[:20], multi_label=True)


@pytest.mark.parametrize("name", ["mAP", "mAUC", "d_prime"])
def test_means_are_the_official_ones(golden, ours, name):
    assert ours[name] == pytest.approx(golden[name], abs=1e-9)


@pytest.mark.parametrize("name", ["AP", "AUC"])
def test_every_class_is_as_in_the_official_code(golden, ours, name):
    assert [row[name] for row in ours["per_class"]] == pytest.approx(golden[name], abs=1e-9)
    assert [row["positives"] for row in ours["per_class"]] == golden["positives"]


def test_accuracy_takes_the_first_of_several_labels_as_the_official_code_does(golden):
    assert accuracy(golden["scores"], golden["labels"]) == pytest.approx(
        golden["acc_argmax"], abs=1e-12
    )


@pytest.mark.parametrize(
    ("label", "named"), [(0, "classes_without_positives"), (1, "classes_without_negatives")]
)
def test_a_class_that_cannot_be_ranked_is_named_and_changes_no_mean(golden, ours, label, named):
    """The official code returns nan for mAUC and d' here, and another mAP."""
    more = np.pad(golden["scores"], ((0, 0), (0, 1)), constant_values=0.5)
    targets = np.pad(golden["labels"], ((0, 0), (0, 1)), constant_values=label)
    extended = compute_metrics(more, targets, LABELS, multi_label=True)
    assert extended[named] == ["class20"]
    assert {name: extended[name] for name in ("mAP", "mAUC", "d_prime")} == {
        name: ours[name] for name in ("mAP", "mAUC", "d_prime")
    }
    assert extended["per_class"][20] == {
        "label": "class20",
        "positives": 200 * label,
        "predicted": 200,  # at a probability of 0.5
        "AP": None,
        "AUC": None,
    }
