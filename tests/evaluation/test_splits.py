"""Rounds: nobody is learnt from, chosen by and scored at once, whatever the splits are called and whoever chooses."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melpatch.data.clip import Clip
from melpatch.data.corpus import Corpus
from melpatch.data.leaks import shared_groups
from melpatch.errors import DataError
from melpatch.evaluation.splits import (
    ValidationSource,
    describe_split_rule,
    evaluation_splits,
    labelled_clips,
    select_split,
)

CHOICES = get_args(ValidationSource)


def corpus(*clips):
    """A corpus of (labels, split) pairs; the clips' keys are their numbers."""
    made = tuple(
        Clip(Path(f"{key}.wav"), key, 0.0, 1.0, tuple(labels.split()), split)
        for key, (labels, split) in enumerate(clips)
    )
    labels = tuple(sorted({label for clip in made for label in clip.labels}))
    return Corpus("birds", made, labels, any(len(clip.labels) > 1 for clip in made))


def of(*splits, each=20):
    """A corpus with so many clips of two classes in each split."""
    return corpus(*(("ab"[number % 2], split) for split in splits for number in range(each)))


def keys(part):
    return set() if part is None else {clip.key for clip in part.clips}


def splits(part):
    return None if part is None else {clip.split for clip in part.clips}


def told(found):
    return [(one.name, splits(one.train), splits(one.val), splits(one.test)) for one in found]


T = ["train", "val", "test"]
F = ["1", "2", "3"]


@pytest.mark.parametrize(
    ("there", "scored", "choice", "expected"),
    [
        (T, [], "none", [("test", {"train"}, None, {"test"})]),
        (T, [], "val", [("test", {"train"}, {"val"}, {"test"})]),
        (T, [], "next fold", [("test", {"train"}, {"val"}, {"test"})]),
        (T, [], "held out", [("test", {"train"}, {"val"}, {"test"})]),
        ([*T, "more"], [], "val", [("test", {"train"}, {"val"}, {"test"})]),
        (T, ["val"], "val", [("val", {"train"}, None, {"val"})]),
        (["train", "test"], [], "val", [("test", {"train"}, None, {"test"})]),
        (["train", "test"], [], "next fold", [("test", {"train"}, {"train"}, {"test"})]),
        (["train", "test"], [], "held out", [("test", {"train"}, {"train"}, {"test"})]),
        (
            F,
            [],
            "none",
            [
                ("1", {"2", "3"}, None, {"1"}),
                ("2", {"1", "3"}, None, {"2"}),
                ("3", {"1", "2"}, None, {"3"}),
            ],
        ),
        (F, ["3"], "none", [("3", {"1", "2"}, None, {"3"})]),
        (
            F,
            [],
            "next fold",
            [("1", {"3"}, {"2"}, {"1"}), ("2", {"1"}, {"3"}, {"2"}), ("3", {"2"}, {"1"}, {"3"})],
        ),
        (F, ["2", "3"], "val", [("2", {"1", "3"}, None, {"2"}), ("3", {"1", "2"}, None, {"3"})]),
        (["1", "2"], [], "next fold", [("1", {"2"}, {"2"}, {"1"}), ("2", {"1"}, {"1"}, {"2"})]),
        ([*F, "val"], ["1"], "val", [("1", {"2", "3"}, {"val"}, {"1"})]),
        ([*F, "val"], ["1"], "next fold", [("1", {"3"}, {"2"}, {"1"})]),
        (["1", "2", "val"], ["1"], "next fold", [("1", {"2"}, {"val"}, {"1"})]),
        ([*F, "test"], [], "next fold", [("test", {"1", "2", "3"}, {"1", "2", "3"}, {"test"})]),
        (["", "test"], [], "none", [("test", {""}, None, {"test"})]),
        (["", "test", "1"], [""], "none", [("", {"1"}, None, {""})]),
    ],
)
def test_who_is_learnt_from_who_chooses_and_who_is_scored(there, scored, choice, expected):
    assert told(evaluation_splits(of(*there), scored, choice)) == expected


@given(
    there=st.sets(st.sampled_from(["train", "val", "test", "1", "2", "3", "10"]), min_size=2),
    clips=st.lists(
        st.tuples(st.sampled_from(["a", "b", "a b", ""]), st.integers(0, 6)),
        min_size=14,
        max_size=60,
    ),
    choice=st.sampled_from(CHOICES),
    pick=st.integers(0, 6),
)
def test_the_parts_are_disjoint_and_the_scored_ones_whole(there, clips, choice, pick):
    names = sorted(there)
    known = corpus(
        *(("a", name) for name in names for _ in range(2)),
        *((x, names[n % len(names)]) for x, n in clips),
    )
    split = names[pick % len(names)]
    if set(names) <= {split, "val", "test"}:
        with pytest.raises(DataError, match="no labelled clip is left to train on"):
            evaluation_splits(known, [split], choice)
        return
    (one,) = evaluation_splits(known, [split], choice)
    assert keys(one.test) == {
        clip.key for clip in known.clips if clip.split == split and clip.labels
    }
    train, val, test = keys(one.train), keys(one.val), keys(one.test)
    assert train
    assert len(train | val | test) == len(train) + len(val) + len(test)
    assert all(clip.labels for part in (one.train, one.val or one.train) for clip in part.clips)
    if choice == "none":
        assert one.val is None
    if choice in ("next fold", "held out"):
        assert val
    folds = [name for name in names if name not in ("train", "val", "test")]
    if choice == "next fold" and split in folds and len(folds) > 2:
        following = folds[(folds.index(split) + 1) % len(folds)]
        assert splits(one.val) == {following}
        assert following not in splits(one.train)


def test_a_tenth_of_each_class_is_held_out_and_no_more():
    (one,) = evaluation_splits(of("train", "test", each=40), (), "held out")
    assert (len(one.train.clips), len(one.val.clips)) == (36, 4)
    assert [clip.labels[0] for clip in one.val.clips].count("a") == 2
    assert {clip.split for clip in one.val.clips} == {"train"}  # as it was


def test_another_share_may_be_held_out():
    (one,) = evaluation_splits(of("train", "test", each=40), (), "held out", 0.2)
    assert (len(one.train.clips), len(one.val.clips)) == (32, 8)


def test_nobody_is_both_learnt_from_and_held_out():
    known = of("train", "test", each=40)
    known = replace(
        known,
        clips=tuple(replace(clip, group=f"speaker {n // 4}") for n, clip in enumerate(known.clips)),
    )
    (one,) = evaluation_splits(known, (), "held out")
    assert len(one.val.clips) == 4
    assert len({clip.group for clip in one.val.clips}) == 1
    assert not shared_groups(one.train, one.val)


def test_every_fold_is_scored_once_and_chooses_once():
    known = of("1", "2", "3", "4", "5")
    found = evaluation_splits(known, (), "next fold")
    assert [one.name for one in found] == ["1", "2", "3", "4", "5"]
    for part in ("test", "val"):
        chosen = [key for one in found for key in keys(getattr(one, part))]
        assert sorted(chosen) == list(range(100))


@pytest.mark.parametrize(
    ("there", "scored", "choice", "message"),
    [
        (
            ["train", "val"],
            [],
            "none",
            r"no split is called 'test'; there are: train \(20\), val \(20\); name one with --s",
        ),
        (["1"], [], "none", r"no split is called 'test'; there are: 1 \(20\)"),
        ([""], [], "none", r"no split is called 'test'; there are: clips without a split \(20\)"),
        (
            T,
            ["9"],
            "none",
            r"no labelled clip is in split '9'; there are: test \(20\), train \(20\), val \(20\); name one",
        ),
        (["test", "val"], [], "none", "no labelled clip is left to train on"),
    ],
)
def test_what_cannot_be_scored_is_told(there, scored, choice, message):
    with pytest.raises(DataError, match=message):
        evaluation_splits(of(*there), scored, choice)


def test_where_no_two_clips_have_the_same_labels_none_can_be_held_out():
    known = corpus(("a", "train"), ("b", "train"), ("a", "test"))
    with pytest.raises(
        DataError,
        match=r"none of 2 training clips can be held out.*give some clips the split 'val'",
    ):
        evaluation_splits(known, (), "held out")


def test_a_corpus_without_labels_is_refused():
    with pytest.raises(DataError, match="birds: none of 2 clips has a label"):
        labelled_clips(corpus(("", "train"), ("", "test")))


def test_unlabelled_clips_are_in_no_part():
    known = corpus(("a", "train"), ("", "train"), ("a", "test"), ("", "test"))
    (one,) = evaluation_splits(known)
    assert (keys(one.train), keys(one.test)) == ({0}, {2})
    assert keys(select_split(labelled_clips(known), "test")) == {2}


def test_labels_that_nobody_learns_are_told():
    known = corpus(("a", "train"), ("b", "train"), ("a", "test"), ("c", "test"), ("a d", "test"))
    (one,) = evaluation_splits(known)
    assert one.describe_unseen_labels() == (
        "split test: 2 test clips, such as 3.wav, have labels that no training clip has (c, d), "
        "which cannot be predicted"
    )
    (one,) = evaluation_splits(of("train", "test"))
    assert one.describe_unseen_labels() is None


def test_every_choice_has_its_rule_in_words():
    assert len({describe_split_rule(choice) for choice in CHOICES}) == 4
    assert (
        "or else on 20% of the training clips of each class, whole groups only"
        in describe_split_rule("held out", 0.2)
    )
