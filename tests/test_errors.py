"""Messages: one line on a terminal, whatever stands in them."""

import pytest

from melpatch import cli
from melpatch.errors import one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\r\nc", "a b c"),
        ("\x1b[2J\x07x", r"\x1b[2J\x07x"),
        ("wav.\u202egpj", r"wav.\u202egpj"),
        ("zwölf Töne\t♪", "zwölf Töne\t♪"),
    ],
)
def test_control_characters_are_shown_instead_of_obeyed(text, line):
    assert one_line(text) == line


def test_of_a_long_message_the_beginning_and_the_end_stay():
    line = one_line(f"/place: {'x' * 100_000}; the remedy")
    assert line.startswith("/place: xxx")
    assert line.endswith("xxx; the remedy")
    assert len(line) < 2100


def test_what_was_typed_cannot_fill_the_terminal(capsys):
    assert cli.main(["stats", "\x1b[31m" + "a" * 5000]) == 2
    shown = capsys.readouterr().err
    assert len(shown) < 2200
    assert "\x1b" not in shown
