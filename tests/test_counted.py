"""Numbers with their nouns."""

import pytest

from melpatch.counted import agreeing, counted


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "clip", "0 clips"),
        (1, "clip", "1 clip"),
        (2400, "clip", "2,400 clips"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (2, "batch", "2 batches"),
        (1, "validation clip", "1 validation clip"),
        (3, "validation clip", "3 validation clips"),
    ],
)
def test_a_count_agrees_with_its_noun(number, noun, text):
    assert counted(number, noun) == text


def test_a_verb_agrees_with_its_number():
    assert [agreeing(number, "is", "are") for number in (0, 1, 2)] == ["are", "is", "are"]
