"""What labels decide: weights of classes, and which metric chooses the weights that are kept."""

from dataclasses import replace
from pathlib import Path

import pytest

from melpatch.data.clip import Clip
from melpatch.data.corpus import Corpus
from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.objectives.classify import Classify
from melpatch.training.config import RunConfig
from melpatch.workflows.label_settings import (
    class_weights,
    resolved,
    selection_metric,
    unevenness,
)


def corpus(text, labels="abc", multi_label=False):
    """A corpus of one clip per word, whose letters are its labels."""
    clips = tuple(
        Clip(Path(f"{number}.wav"), number, 0.0, 1.0, tuple(word))
        for number, word in enumerate(text.split())
    )
    return Corpus("made up", clips, tuple(labels), multi_label)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b c", 0.0),
        ("a b", 0.0),  # c has no clip
        ("a a a b", 0.25),
        ("a a a a a a a a a b", 0.4),
        ("a a a a b c", 2 / 3 - 1 / 3),
    ],
)
def test_unevenness_is_the_share_of_clips_that_would_have_to_be_of_another_class(text, expected):
    assert unevenness(corpus(text)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("asked", "text", "chosen"),
    [
        ("auto", "a b c", "accuracy"),
        ("auto", "a a a b b", "accuracy"),
        ("auto", "a a a b", "balanced_accuracy"),
        ("standard", "a a a b", "accuracy"),
        ("accuracy", "a a a b", "accuracy"),
        ("macro_f1", "a b c", "macro_f1"),
        ("mAP", "a b c", "mAP"),
    ],
)
def test_uneven_classes_are_judged_by_balanced_accuracy_unless_another_is_asked_for(
    asked, text, chosen
):
    assert selection_metric(Classify.Config(select_by=asked), corpus(text)) == chosen


@pytest.mark.parametrize("asked", ["auto", "standard", "mAP"])
def test_several_labels_are_judged_by_map(asked):
    objective = Classify.Config(select_by=asked, multi_label=True)
    assert selection_metric(objective, corpus("a a a b", multi_label=True)) == "mAP"


def test_several_labels_have_no_accuracy():
    with pytest.raises(ConfigError, match="select_by"):
        Classify.Config(select_by="accuracy", multi_label=True)


@pytest.mark.parametrize(("kind", "power"), [("balanced", 1), ("sqrt", 0.5)])
def test_weights_fall_with_the_number_of_clips_and_are_one_on_average(kind, power):
    clips = corpus("a a a a a a a a a b b b b").clips
    weights = class_weights(kind, clips, ("a", "b", "c"))
    assert weights[1] / weights[0] == pytest.approx((9 / 4) ** power, rel=1e-5)
    assert (9 * weights[0] + 4 * weights[1]) / 13 == pytest.approx(1, rel=1e-5)
    assert weights[2] == 0  # of which there is no clip


def test_labels_are_counted_where_a_clip_has_several():
    weights = class_weights("balanced", corpus("ab a a abc").clips, tuple("abc"))
    assert weights == pytest.approx([7 / 3 / 4, 7 / 3 / 2, 7 / 3], rel=1e-5)


def test_a_classifier_gets_its_weights_and_its_metric_from_the_data():
    train = corpus("a a a b")
    val = corpus("a a a a b")
    settings = Classify.Config(select_by="auto", loss_weights="balanced")
    training = RunConfig(encoder=ViT.Config.of_size("nano"), objective=settings)
    objective = resolved(training, train, train, 0, val).objective
    assert objective.select_by == "balanced_accuracy"
    assert objective.class_weights == pytest.approx([4 / 6, 2, 0], rel=1e-5)
    without = resolved(training, train, train, 0).objective
    assert without.select_by == "auto"
    given = replace(training, objective=replace(training.objective, class_weights=(1.0, 1.0, 1.0)))
    with pytest.raises(ConfigError, match="which sets them"):
        resolved(given, train, train, 0)
