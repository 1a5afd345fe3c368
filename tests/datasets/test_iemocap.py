"""IEMOCAP: the lines of its evaluation files, four classes, and who speaks."""

import shutil

import pytest

from melpatch.datasets import iemocap
from melpatch.datasets.base import write_lines
from melpatch.errors import DataError

LINES = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
C-F1:\tNeutral;\t(caf\xe9)
A-E3:\tval 3; act 2; dom  2;\t()

[10.0100 - 11.3925]\tSes01F_impro01_M001\texc\t[2.5000, 2.5000, 2.5000]
[14.8872 - 18.0175]\tSes01F_impro01_F002\txxx\t[2.5000, 2.5000, 2.5000]
[19.2900 - 20.7875]\tSes01F_impro01_M002\tfru\t[2.0000, 3.0000, 3.0000]
[21.3257 - 24.7400]\tSes01F_impro01_F003\thap\t[2.0000, 3.5000, 3.5000]"""


@pytest.fixture
def root(tmp_path):
    iemocap.fake(tmp_path)
    return tmp_path


def test_four_emotions_remain_and_the_turn_names_the_speaker(root):
    folder = root / "Session1/dialog/EmoEvaluation"
    write_lines(
        folder / "Ses01M_script01.txt",
        "[1.0000 - 2.0000]\tSes01M_script01_F000\tang\t[2.5, 2.5, 2.5]",
    )
    (folder / "Ses01F_impro01.txt").write_text(LINES, encoding="latin-1")
    write_lines(
        folder / "._Ses01F_impro01.txt",
        "[1.0000 - 2.0000]\tSes01F_impro01_F009\tsad\t[2.5, 2.5, 2.5]",
    )
    write_lines(
        folder / "Categorical/Ses01F_e2.txt",
        "[1.0000 - 2.0000]\tSes01F_impro01_F008\tsad\t[2.5, 2.5, 2.5]",
    )
    turns = [
        (entry.path.rpartition("/")[2], entry.label, entry.split, entry.group)
        for entry in iemocap.clips(root, "")
        if entry.split == "1"
    ]
    assert turns == [
        ("Ses01F_impro01_F000.wav", "neu", "1", "Ses01F"),
        ("Ses01F_impro01_F003.wav", "hap", "1", "Ses01F"),
        ("Ses01F_impro01_M001.wav", "hap", "1", "Ses01M"),
        ("Ses01M_script01_F000.wav", "ang", "1", "Ses01F"),
    ]


def test_a_missing_session_says_what_to_fetch(root):
    shutil.rmtree(root / "Session4")
    with pytest.raises(
        DataError, match=r"Session4.*: cannot be read .*; request IEMOCAP .* Session1 to Session5"
    ):
        iemocap.CARD.look_up(root)


def test_a_turn_is_stored_below_its_dialogue(root):
    assert (
        iemocap.clips(root, "")[0].path
        == "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    )
