"""Scores of what predict decides: against a slow version clip by clip, and what stands where nothing is known."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation.made_trials import NAMES, clip_of
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from melpatch.evaluation.intervals import wilson
from melpatch.evaluation.own_decisions import decisions_entry, describe_decisions
from melpatch.evaluation.trials import TrialResult
from melpatch.inference.label_rule import LabelRule

RULE = LabelRule(True, np.array([0.3, 0.6, 2.0], np.float32), "f1", 0.2, 40)


def drawn(seed, clips=30, multi_label=True, split="test", first=0, groups=0):
    """Return a trial of coarse probabilities and novelties."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(clips):
        labels = [NAMES[random.integers(2)]]
        if multi_label:
            labels = [name for name in NAMES if random.uniform() < 0.3]
        group = f"{random.integers(groups)}" if groups else ""
        made.append(clip_of(first + number, labels, group))
    probabilities = random.integers(0, 11, size=(clips, 3)) / 10
    return TrialResult(split, 0, tuple(made), probabilities, {}, random.uniform(size=clips))


def slow(trials, rule):
    """Return the labels of each clip, and whether it is none of the classes, one by one."""
    for trial in trials:
        for clip, row, novelty in zip(trial.clips, trial.probabilities, trial.novelty, strict=True):
            unlike = novelty >= 1 - rule.false_alarms
            reached = {n for n, p, t in zip(NAMES, row, rule.thresholds, strict=True) if p >= t}
            if not rule.multi_label:
                reached &= {NAMES[list(row).index(max(row))]}
            yield clip, set() if unlike else reached, unlike


@given(st.integers(0, 500), st.booleans())
def test_counts_and_scores_are_those_of_a_slow_version(seed, multi_label):
    rule = replace(RULE, multi_label=multi_label)
    # Coarse values must not stand at a threshold, where float32 decides.
    rule = replace(rule, thresholds=np.array([0.35, 0.65, 2.0], np.float32))
    trials = [
        drawn(seed, multi_label=multi_label),
        drawn(seed + 1, 20, multi_label, split="val", first=30),
    ]
    entry = decisions_entry(trials, NAMES, rule)
    clips = [*slow(trials, rule)]
    assert entry["clips"] == len(clips)
    assert entry["without_label"] == sum(not labels for _, labels, _ in clips)
    assert entry["none_of_these"]["clips"] == sum(unlike for *_, unlike in clips)
    low, high = wilson(entry["none_of_these"]["share"], float(len(clips)))
    assert entry["none_of_these"]["interval_95"] == pytest.approx([low, high])
    columns = {"precision": [], "recall": [], "F1": []}
    for row in entry["per_class"]:
        name = row["label"]
        true = np.array([name in clip.labels for clip, *_ in clips])
        guessed = np.array([name in labels for _, labels, _ in clips])
        assert (row["positives"], row["given"]) == (true.sum(), guessed.sum())
        expected = precision_recall_fscore_support(
            true, guessed, pos_label=True, average="binary", zero_division=0
        )
        for column, value in zip(columns, expected[:3], strict=True):
            known = guessed.any() if column == "precision" else true.any()
            assert row[column] == (pytest.approx(value) if known else None)
            if known and true.any():
                columns[column].append(value)
        alarms = [unlike for clip, _, unlike in clips if name in clip.labels]
        assert (row["none_of_these"] is None) == (not alarms)
        if alarms:
            assert row["none_of_these"]["share"] == pytest.approx(np.mean(alarms))
            low, high = wilson(np.mean(alarms), float(len(alarms)))
            assert row["none_of_these"]["interval_95"] == pytest.approx([low, high])
    for column, values in columns.items():
        expected = pytest.approx(np.mean(values)) if values else None
        assert entry["macro"][column] == expected


def test_the_settings_stand_beside_the_scores():
    entry = decisions_entry([drawn(0)], NAMES, RULE)
    assert entry["threshold_rule"] == "f1"
    assert (entry["false_alarms"], entry["novelty_clips"]) == (0.2, 40)
    assert [row["threshold"] for row in entry["per_class"]] == pytest.approx([0.3, 0.6, 2.0])
    assert entry["per_class"][2]["given"] == 0
    assert entry["per_class"][2]["precision"] is None
    best = decisions_entry([drawn(0, multi_label=False)], NAMES, LabelRule(False, None))
    assert [row["threshold"] for row in best["per_class"]] == [None] * 3


def test_seeds_answer_the_same_clips_and_count_once():
    trial = drawn(0)
    again = replace(trial, seed=1)
    assert decisions_entry([trial, again], NAMES, RULE) == decisions_entry([trial], NAMES, RULE)


def test_clips_of_one_group_are_no_independent_evidence():
    """False alarms that come by speaker have a wider interval."""
    trial = drawn(0, 60, groups=6)
    alarms = np.array([float(clip.group) < 2 for clip in trial.clips], float)
    alone = replace(trial, clips=tuple(replace(clip, group="") for clip in trial.clips))
    by_group, by_clip = (
        decisions_entry([replace(one, novelty=alarms)], NAMES, RULE)["none_of_these"]
        for one in (trial, alone)
    )
    assert (by_group["interval_by"], by_clip["interval_by"]) == ("group", "clip")
    assert np.ptp(by_group["interval_95"]) > 1.5 * np.ptp(by_clip["interval_95"])
    assert by_group["share"] == by_clip["share"] == pytest.approx(alarms.mean())


@pytest.mark.parametrize(
    "changes", [{"novelty_clips": None}, {"novelty_clips": 3}, {"false_alarms": 0.0}]
)
def test_a_rate_that_is_not_known_is_none(changes):
    trial = drawn(0)
    if changes.get("novelty_clips", 40) is None:
        trial = replace(trial, novelty=None)
    entry = decisions_entry([trial], NAMES, replace(RULE, **changes))
    assert entry["none_of_these"] is None
    assert {row["none_of_these"] for row in entry["per_class"]} == {None}


def test_sentences_say_what_predict_does():
    entry = decisions_entry([drawn(0)], NAMES, RULE)
    macro = entry["macro"]
    labels, alarms = describe_decisions("runs/a", entry)
    assert labels == (
        f"as predict gives labels (thresholds: f1): precision {macro['precision']:.3f}, recall "
        f"{macro['recall']:.3f}, F1 {macro['F1']:.3f}, means over classes; "
        f"{entry['without_label']} of 30 clips without a label"
    )
    number = entry["none_of_these"]["clips"]
    low, high = wilson(number / 30, 30.0)
    assert alarms == (
        f"{number} of 30 clips of the known classes are called none of these: {number / 30:.3f} "
        f"(95 %: {low:.3f} to {high:.3f}), where --false-alarms allows 0.2"
    )


def test_more_false_alarms_than_allowed_are_said_to_be():
    trial = replace(drawn(0), novelty=np.ones(30))
    _, alarms = describe_decisions("runs/a", decisions_entry([trial], NAMES, RULE))
    assert alarms.endswith("they are less like the training clips than the validation clips were")


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"novelty_clips": 3}, "nothing is called none of these: runs/a was calibrated on 3 clips"),
        ({"novelty_clips": 3, "false_alarms": 0.0}, None),
        ({"novelty_clips": None}, None),
    ],
)
def test_why_no_rate_is_known_is_said(changes, start):
    trial = replace(drawn(0), novelty=None)
    entry = decisions_entry([trial], NAMES, replace(RULE, **changes))
    _, *more = describe_decisions("runs/a", entry)
    assert len(more) == (start is not None)
    assert all(sentence.startswith(start) for sentence in more)


def test_what_is_not_defined_is_not_zero():
    never = replace(RULE, thresholds=np.full(3, 2.0, np.float32))
    entry = decisions_entry([drawn(0)], NAMES, never)
    assert entry["macro"] == {"precision": None, "recall": 0.0, "F1": 0.0}
    labels, _ = describe_decisions("runs/a", entry)
    assert "precision not defined, recall 0.000" in labels
