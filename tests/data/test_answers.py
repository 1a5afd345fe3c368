"""Answers: what stands after yes, no, unsure and undo, and what training takes of it."""

import pytest

from melpatch.data.answers import (
    HEADER,
    Answer,
    is_answers,
    labelled,
    question,
    read_answers,
    settle,
)

A, B = question("/a.wav", 0.0, 3.0, "robin"), question("/a.wav", 0.0, 3.0, "wren")


def given(*pairs, who="ann"):
    return [Answer(asked, "train", who, "2026-11-29T12:00:00Z", answer) for asked, answer in pairs]


def stands(*pairs):
    return {asked: answer.answer for asked, answer in settle(given(*pairs)).items()}


def test_the_latest_answer_stands_and_an_undo_brings_the_one_before_back():
    assert stands((A, "yes"), (B, "no"), (A, "no")) == {A: "no", B: "no"}
    assert stands((A, "yes"), (A, "no"), (A, "undo")) == {A: "yes"}
    assert stands((A, "yes"), (A, "undo"), (A, "undo")) == {}
    assert stands((A, "undo"), (A, "yes")) == {A: "yes"}


def test_an_undo_takes_back_what_the_same_person_said():
    answers = [*given((A, "yes")), *given((A, "no"), who="bo"), *given((A, "undo"))]
    (answer,) = settle(answers).values()
    assert (answer.who, answer.answer) == ("bo", "no")


@pytest.mark.parametrize(
    ("answers", "labels"),
    [
        ([(A, "yes"), (B, "yes")], ("robin", "wren")),
        ([(A, "yes"), (B, "no")], ("robin",)),
        ([(A, "no"), (B, "no")], ("background",)),
        ([(A, "no"), (B, "unsure")], None),
        ([(A, "unsure")], None),
        ([(A, "unsure"), (B, "yes")], ("wren",)),
    ],
)
def test_what_training_takes(answers, labels):
    stretches = labelled(settle(given(*answers)))
    assert [stretch.labels for stretch in stretches] == ([] if labels is None else [labels])


def test_rows_come_back_and_broken_ones_are_named(tmp_path):
    path = tmp_path / "l.csv"
    row = given((question("/a,\n.wav", 1 / 3, 2.5, "wren"), "yes"), who='"x"')[0]
    lines = [
        ",".join(HEADER),
        '"/a,\n.wav",0.333333,2.5,wren,train,"""x""",2026-11-29T12:00:00Z,yes',
    ]
    bad = ["/a.wav,0,1,x,train,,,maybe", "/a.wav,2,1,x,train,,,yes", "/a.wav,nan,1,x,,,,no", "/a.w"]
    path.write_text("\n".join([*lines, *bad]), encoding="utf-8")
    (number, first), *others = read_answers(path)
    assert (number, first) == (2, row)
    assert first.cells()[1:3] == ["0.333333", "2.5"]
    assert [number for number, _ in others] == [4, 5, 6, 7]
    assert "maybe" in others[0][1]
    assert "end after the start" in others[1][1]
    assert "cut off by a crash" in others[3][1]


def test_only_exactly_these_columns_are_answers():
    assert is_answers(",".join(HEADER).encode() + b"\r\n1")
    assert not is_answers(b"path,start,end,label,split\n")
