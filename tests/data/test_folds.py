"""Folds: groups whole, classes spread as evenly as scikit-learn spreads them, nothing lost."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from melpatch.data.clip import Clip
from melpatch.data.corpus import Corpus
from melpatch.data.folds import describe_folds, describe_groups, with_folds
from melpatch.data.leaks import groups_are_labels, shared_groups
from melpatch.errors import ConfigError


def corpus(*rows):
    """Return a corpus of (labels, group) or (labels, group, split); the keys are their numbers."""
    clips = tuple(
        Clip(Path(f"{key}.wav"), key, 0.0, 1.0, tuple(labels.split()), *split or ("",), group)
        for key, (labels, group, *split) in enumerate(rows)
    )
    labels = tuple(sorted({label for clip in clips for label in clip.labels}))
    return Corpus("birds", clips, labels, any(len(clip.labels) > 1 for clip in clips))


def unevenness(labels, folds):
    """Return the standard deviation over folds of the share of each class, summed over classes."""
    total = Counter(labels)
    pairs = Counter(zip(labels, folds, strict=True))
    names = sorted({*folds})
    return sum(np.std([pairs[label, fold] / total[label] for fold in names]) for label in total)


def drawn(number, classes, groups, seed=0):
    """Return a corpus of clips whose groups have classes of their own taste."""
    random = np.random.default_rng(seed)
    taste = random.dirichlet(np.full(classes, 0.5), size=groups)
    group = random.integers(groups, size=number)
    return corpus(*((f"c{random.choice(classes, p=taste[g])}", f"g{g}") for g in group))


@pytest.mark.parametrize("seed", range(5))
def test_classes_are_spread_about_as_evenly_as_by_scikit_learn(seed):
    many = drawn(400, 5, 40, seed)
    labels = [clip.labels[0] for clip in many.clips]
    groups = [clip.group for clip in many.clips]
    theirs = np.zeros(400, dtype=int)
    rule = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    for fold, (_, test) in enumerate(rule.split(labels, labels, groups)):
        theirs[test] = fold
    ours = [clip.split for clip in with_folds(many, 5, seed).clips]
    # At random it is about three times as much.
    random = np.random.default_rng(seed).integers(5, size=40)[[int(name[1:]) for name in groups]]
    assert unevenness(labels, ours) < 1.25 * unevenness(labels, theirs.tolist()) + 0.02
    assert unevenness(labels, ours) < 0.7 * unevenness(labels, random.tolist())


def test_without_groups_each_class_is_dealt_as_evenly_as_can_be():
    many = corpus(*(("aabc"[number % 4], "") for number in range(101)))
    dealt = with_folds(many, 4, 0)
    for label in "abc":
        counts = Counter(clip.split for clip in dealt.clips if clip.labels == (label,))
        assert max(counts.values()) - min(counts.values()) <= 1
    assert max(dealt.splits.values()) - min(dealt.splits.values()) <= 1
    assert [*dealt.splits] == ["1", "2", "3", "4"]


ROWS = st.lists(
    st.tuples(
        st.sets(st.sampled_from("abcd"), max_size=2).map(sorted).map(" ".join),
        st.sampled_from(["", *"123456"]),
        st.sampled_from(["", "train", "val", "test"]),
    ),
    min_size=1,
    max_size=40,
)


@given(ROWS, st.integers(2, 4))
def test_groups_are_whole_and_only_labelled_clips_outside_the_test_are_dealt(rows, folds):
    many = corpus(*rows)
    in_folds = [clip for clip in many.clips if clip.labels and clip.split != "test"]
    units = {clip.group or clip.key for clip in in_folds}
    assume(len(units) >= folds and not groups_are_labels(in_folds))
    dealt = with_folds(many, folds, 0)
    names = [str(fold + 1) for fold in range(folds)]
    for before, after in zip(many.clips, dealt.clips, strict=True):
        assert replace(after, split=before.split) == before
        if not before.labels:
            assert after.split == ""
        elif before.split == "test":
            assert after.split == "test"
        else:
            assert after.split in names
    assert {clip.split for clip in dealt.clips} >= {*names}
    parts = [
        replace(dealt, clips=tuple(c for c in dealt.clips if c.split == name)) for name in names
    ]
    assert shared_groups(*parts) == []


def test_folds_depend_on_seed_and_keys_alone():
    many = drawn(60, 3, 20)
    turned = replace(many, clips=many.clips[::-1])
    folds = with_folds(many, 3, 0).clips
    assert with_folds(turned, 3, 0).clips == folds[::-1]
    assert len({with_folds(many, 3, seed).clips for seed in range(5)}) == 5


def test_speakers_that_are_the_classes_are_in_all_folds():
    many = corpus(*((name, name) for name in "abcd" * 5))
    dealt = with_folds(many, 5, 0)
    assert {(clip.group, clip.split) for clip in dealt.clips} == {
        (name, str(fold)) for name in "abcd" for fold in range(1, 6)
    }
    assert "each label has one group only" in describe_groups(many)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x"), ("b", "x"), ("a", "y"), ("b", "y")], "2 to 2, since birds has 2 groups"),
        ([("a", ""), ("", "")], "nothing, since birds has 1 labelled"),
        ([("a", ""), ("b", ""), ("", ""), ("a", "", "test")], "2 to 2, since birds has 2 labelled"),
    ],
)
def test_fewer_groups_or_clips_than_folds_are_refused(rows, message):
    with pytest.raises(ConfigError, match=f"folds = 3; allowed: {message}"):
        with_folds(corpus(*rows), 3, 0)


def test_classes_that_folds_cannot_share_are_named():
    rows = [("a", name) for name in "uvwxyz"] + [("b", "u")] * 3 + [("c", "v"), ("c", "w")]
    dealt = with_folds(corpus(*rows, ("", "u")), 3, 0)
    assert describe_folds(dealt) == [
        "1 class is in one fold only, such as 'b' with 1 group: when that fold is scored, "
        "nothing trains on what it alone has",
        "1 class is not in every fold, such as 'c' with 2 groups",
        "1 clip without labels is in no fold",
    ]


def test_stretches_of_one_file_without_a_group_are_told():
    many = corpus(*((label, "") for label in "abab"))
    path = Path("long.wav")
    clips = tuple(replace(clip, path=path, start=float(clip.key)) for clip in many.clips)
    told = describe_folds(with_folds(replace(many, clips=clips), 2, 0))
    assert len(told) == 1
    assert told[0].startswith("4 clips without a group are stretches of the same files as others")


def test_groups_are_counted():
    many = corpus(("a", "x", "1"), ("b", "x", "2"), ("b", "x", "2"), ("a", "y", "1"), ("a", ""))
    assert (
        describe_groups(many)
        == "2, of 1 to 3 clips, median 3; 1 clip without; 1 in more than one split"
    )
    assert describe_groups(corpus(("a", ""), ("b", ""))) == "none known"
