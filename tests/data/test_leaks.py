"""Recordings and speakers in several splits: found in any order, and reported."""

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melpatch.data.clip import Clip
from melpatch.data.corpus import Corpus
from melpatch.data.leaks import shared_groups, warn_of_shared_groups

ROWS = st.lists(
    st.tuples(st.sampled_from(["x", "y", ""]), st.sampled_from(["", "a", "b", "c", "d"])),
    max_size=12,
)


def corpus(*rows):
    """Return a corpus of (labels, group) pairs."""
    clips = [
        Clip(Path(f"{n}.wav"), n, 0.0, 1.0, tuple(labels.split()), "", group)
        for n, (labels, group) in enumerate(rows)
    ]
    return Corpus("birds", tuple(clips), ("x", "y"), multi_label=False)


@given(st.lists(ROWS, max_size=4))
def test_shared_groups_are_those_in_any_two_parts(parts):
    slow = set()
    for first, second in combinations(parts, 2):
        slow |= {group for _, group in first} & {group for _, group in second}
    assert shared_groups(*(corpus(*part) for part in parts)) == sorted(slow - {""})


def test_a_group_in_two_splits_is_reported_in_one_line(capsys):
    warn_of_shared_groups(
        corpus(("x", "ann"), ("y", "bob"), ("x", "eve")), corpus(("y", "bob"), ("y", "ann"))
    )
    printed = capsys.readouterr().err
    assert printed.startswith(
        "2 groups (column group or speaker) are in more than one split, such as 'ann': scores"
    )
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ([("x", "ann"), ("y", "bob")], [("x", "eve"), ("y", "kim")]),  # nobody twice
        ([("x", ""), ("y", "")], [("x", ""), ("y", "")]),  # nobody known
        ([("x", "ann"), ("y", "bob")], [("x", "ann"), ("y", "bob")]),  # speakers are the classes
        ([("", "ann"), ("", "bob")], [("", "ann")]),  # nothing to score
    ],
)
def test_there_is_no_warning_if_groups_are_disjoint_unknown_or_the_classes(train, test, capsys):
    warn_of_shared_groups(corpus(*train), corpus(*test))
    assert capsys.readouterr().err == ""
