from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from melpatch.data.clip import Clip
from melpatch.data.leaks import groups_are_labels, shared_groups
from melpatch.data.manifest import Corpus
from melpatch.data.splits import hold_out, split_corpus, take_per_class
from melpatch.errors import DataError


def corpus(*clips):
    """Return a corpus of (labels, split) pairs; the clips' keys are their numbers."""
    clips_made = [
        Clip(Path(f"{key}.wav"), key, 0.0, 1.0, tuple(labels.split()), split)
        for key, (labels, split) in enumerate(clips)
    ]
    labels = sorted({label for clip in clips_made for label in clip.labels})
    return Corpus(
        "birds", tuple(clips_made), tuple(labels), any(len(clip.labels) > 1 for clip in clips_made)
    )


def parts(found):
    return [
        None if part is None else {clip.split for clip in part.clips}
        for part in (found.train, found.val, found.test)
    ]


def of(*splits):
    return corpus(*(("ab"[number % 2], split) for number, split in enumerate(splits)))


@pytest.mark.parametrize(
    ("there", "folds", "expected"),
    [
        (["", ""], {}, [{""}, None, None]),
        (["train", "val", "test"], {}, [{"train"}, {"val"}, {"test"}]),
        (["train", "val", "test", "other"], {}, [{"train"}, {"val"}, {"test"}]),
        (["train", "test"], {}, [{"train"}, None, {"test"}]),
        (["1", "2", "3"], {}, [{"1", "2", "3"}, None, None]),
        (["1", "2", "val"], {}, [{"1", "2"}, {"val"}, None]),
        (["1", "2", "3"], {"test_fold": "3"}, [{"1", "2"}, None, {"3"}]),
        (["1", "2", "3"], {"test_fold": "3", "val_fold": "2"}, [{"1"}, {"2"}, {"3"}]),
        (["1", "2", "3"], {"val_fold": "2"}, [{"1", "3"}, {"2"}, None]),
        (["1", "2", "val"], {"test_fold": "2"}, [{"1"}, {"val"}, {"2"}]),
        (["1", "2", "test"], {"val_fold": "2"}, [{"1"}, {"2"}, {"test"}]),
        (["1", "val", "test"], {"test_fold": "val"}, [{"1"}, None, {"val"}]),
        (["1", "", "test"], {"test_fold": ""}, [{"1"}, None, {""}]),
        (["1", "val", "test"], {"val_fold": "test"}, [{"1"}, {"test"}, None]),
        (["train", "extra", "test"], {"val_fold": "extra"}, [{"train"}, {"extra"}, {"test"}]),
    ],
)
def test_which_clips_are_for_training_validation_and_test(there, folds, expected):
    assert parts(split_corpus(of(*there), **folds)) == expected


def test_labelled_clips_that_are_left_out_of_training_are_named():
    told = split_corpus(of("train", "", "extra", "unlabelled", "test")).describe_unused()
    assert told is not None
    assert ": none (1), extra (1); call these" in told
    assert split_corpus(of("train", "unlabelled", "test")).describe_unused() is None


def test_a_corpus_is_called_by_its_table_where_there_is_one():
    titled = replace(of("a"), title="birds/second")
    with pytest.raises(DataError, match="birds/second: no split or fold is called 'b'"):
        split_corpus(titled, "b")


def test_unlabelled_clips_are_left_out_of_every_part():
    found = split_corpus(
        corpus(("a", "train"), ("", "train"), ("b", "val"), ("", "val"), ("", "test"))
    )
    assert [len(found.train.clips), len(found.val.clips), found.test] == [1, 1, None]


def test_every_part_keeps_all_labels():
    found = split_corpus(corpus(("a", "train"), ("b", "val")))
    assert found.train.labels == found.val.labels == ("a", "b")


@pytest.mark.parametrize("fold", ["test_fold", "val_fold"])
def test_an_unknown_fold_is_reported_with_the_known_ones(fold):
    with pytest.raises(
        DataError, match=r"birds: no split or fold is called '9'; there are: 1 \(2\), 2 \(1\)"
    ):
        split_corpus(of("1", "2", "1"), **{fold: "9"})


@pytest.mark.parametrize(
    ("there", "folds"),
    [
        (["1"], {"test_fold": "1"}),
        (["val", "test"], {}),
        (["1", "2"], {"test_fold": "1", "val_fold": "2"}),
    ],
)
def test_an_empty_training_set_is_an_error(there, folds):
    with pytest.raises(DataError, match="no labelled clip is left to train on"):
        split_corpus(of(*there), **folds)


def test_a_corpus_without_labels_is_an_error():
    with pytest.raises(DataError, match="no labelled clip"):
        split_corpus(corpus(("", "train"), ("", "val")))


def test_a_fold_cannot_be_both_validation_and_test():
    with pytest.raises(
        DataError, match="birds: '1' cannot be both the validation and the test fold"
    ):
        split_corpus(of("1", "2"), test_fold="1", val_fold="1")


def test_few_labels_keeps_this_many_clips_of_each_class():
    many = corpus(*(("abc"[number % 3], "") for number in range(60)))
    assert Counter(clip.labels for clip in take_per_class(many, 4, 0).clips) == {
        ("a",): 4,
        ("b",): 4,
        ("c",): 4,
    }


def test_few_labels_keeps_all_clips_of_a_smaller_class():
    kept = take_per_class(corpus(("a", ""), ("b", ""), ("b", ""), ("b", "")), 2, 0)
    assert Counter(clip.labels for clip in kept.clips) == {("a",): 1, ("b",): 2}


def test_few_labels_differ_by_seed():
    many = corpus(*(("ab"[number % 2], "") for number in range(40)))
    chosen = {tuple(clip.key for clip in take_per_class(many, 3, seed).clips) for seed in range(10)}
    assert len(chosen) == 10


ROWS = st.lists(
    st.tuples(st.sets(st.sampled_from("abcd"), max_size=3).map(sorted).map(" ".join), st.just("")),
    min_size=1,
    max_size=30,
)


@given(ROWS, st.integers(1, 6), st.integers(0, 5))
def test_fewer_labels_are_a_subset_of_more_and_keep_the_order(rows, per_class, seed):
    many = corpus(*rows)
    small, large = (
        take_per_class(many, per_class, seed).clips,
        take_per_class(many, per_class + 1, seed).clips,
    )
    assert set(small) <= set(large)
    assert [clip.key for clip in small] == sorted(clip.key for clip in small)


@given(ROWS, st.integers(1, 6))
def test_the_choice_depends_on_the_keys_not_on_the_order(rows, number):
    many = corpus(*rows)
    turned = replace(many, clips=many.clips[::-1])
    assert set(take_per_class(turned, number, 0).clips) == set(
        take_per_class(many, number, 0).clips
    )
    assert set(hold_out(turned, number / 6, 0).clips) == set(hold_out(many, number / 6, 0).clips)


@given(ROWS, st.integers(1, 6))
def test_every_label_of_multi_label_clips_gets_its_number(rows, per_class):
    many = corpus(*rows)
    there = Counter(label for clip in many.clips for label in clip.labels)
    kept = Counter(
        label for clip in take_per_class(many, per_class, 0).clips for label in clip.labels
    )
    assert all(min(per_class, count) <= kept[label] for label, count in there.items())


def test_hold_out_takes_its_share_of_each_class():
    found = hold_out(corpus(*(("aab"[number % 3], "") for number in range(60))), 0.25, 0)
    counts = Counter((clip.labels[0], clip.split) for clip in found.clips)
    assert counts == {("a", "test"): 10, ("a", "train"): 30, ("b", "test"): 5, ("b", "train"): 15}
    assert [clip.key for clip in found.clips] == list(range(60))


TWO = ("train", "test")


def grouped(*rows):
    """A corpus of clips given as labels and a group."""
    clips_made = corpus(*((labels, "") for labels, _ in rows))
    clips = tuple(
        replace(clip, group=group) for clip, (_, group) in zip(clips_made.clips, rows, strict=True)
    )
    return replace(clips_made, clips=clips)


def held_out(many, share=0.25):
    return [clip for clip in hold_out(many, share, 0).clips if clip.split == "test"]


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["", *"123456"])), min_size=1, max_size=60
    )
)
def test_hold_out_keeps_groups_whole_and_every_label_in_training(rows):
    many = grouped(*rows)
    assume(not groups_are_labels(many.clips))
    found = hold_out(many, 0.25, 0)
    train, test = (
        replace(found, clips=tuple(clip for clip in found.clips if clip.split == split))
        for split in TWO
    )
    assert shared_groups(train, test) == []
    assert {clip.labels for clip in train.clips} == {clip.labels for clip in many.clips}


def test_hold_out_of_groups_takes_about_the_requested_share():
    many = grouped(*(("ab"[number % 2], f"{number // 5}") for number in range(200)))
    counts = Counter(clip.labels for clip in held_out(many))
    assert all(counts[label,] == pytest.approx(25, abs=3) for label in "ab")


def test_the_smallest_of_few_groups_is_held_out():
    many = grouped(
        *[("a", "anna"), ("b", "anna")] * 9, *[("a", "ben"), ("b", "ben")] * 7, *[("c", "carl")] * 2
    )
    assert {clip.group for clip in held_out(many, 0.1)} == {
        "ben"
    }  # without carl, training would have no clip of class c


def test_speakers_that_are_the_classes_are_on_both_sides():
    many = grouped(*((name, name) for name in "ab" * 20))
    assert Counter(clip.group for clip in held_out(many)) == {"a": 5, "b": 5}
