"""People's answers about stretches of sound: a CSV file to which rows are only ever added.

An answer says whether a stretch has a label: yes, no or unsure. An undo takes back the latest
answer of that person to the same question. Nothing is changed or removed, so that who said what,
and when, stays known.
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from melpatch.opening import LOG_BYTES, open_text, require_regular

HEADER = ("path", "start", "end", "label", "split", "who", "when", "answer")
"""The columns of such a file."""
YES, NO, UNSURE, UNDO = ANSWERS = ("yes", "no", "unsure", "undo")
"""What an answer says."""
BACKGROUND = "background"
"""The class of a stretch that was asked about, and has none of the labels."""


class Question(NamedTuple):
    """Whether a stretch of a file, in seconds, has a label."""

    path: str
    start: float
    end: float
    label: str


class Answer(NamedTuple):
    """A row: an answer to a question.

    Attributes:
        question: what was asked.
        split: ``train`` or ``test``.
        who: name of the person; may be empty.
        when: time in ISO 8601.
        answer: one of :data:`ANSWERS`.
    """

    question: Question
    split: str
    who: str
    when: str
    answer: str

    def cells(self) -> list[str]:
        """Return the cells of the row."""
        path, start, end, label = self.question
        times = [seconds_text(start), seconds_text(end)]
        return [path, *times, label, self.split, self.who, self.when, self.answer]


def question(path: str, start: float, end: float, label: str) -> Question:
    """Return a question, its times rounded as they are written, to a microsecond."""
    return Question(path, round(start, 6), round(end, 6), label)


def seconds_text(value: float) -> str:
    """Return seconds as they are written: to a microsecond, without zeros at the end."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def is_answers(head: bytes) -> bool:
    """Return whether a file that begins so holds answers."""
    first = head.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].rstrip(b"\r")
    return first == ",".join(HEADER).encode()


def read_answers(path: Path) -> Iterator[tuple[int, Answer | str]]:
    """Yield the rows with the numbers of their lines; of a malformed one the reason.

    Raises:
        OSError, UnicodeDecodeError: the file cannot be read.
    """
    require_regular(path, LOG_BYTES)
    with open_text(path) as file:
        reader = csv.reader(file)
        next(reader, None)
        before = reader.line_num
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                cells = [f"\0{error}"]
            if cells is None:
                return
            first, before = before + 1, reader.line_num
            if cells:
                yield first, _answer(cells)


def _answer(cells: list[str]) -> Answer | str:
    """Return the answer of a row, or why it is none."""
    if len(cells) != len(HEADER):
        return f"{len(cells)} cells, not {len(HEADER)}; a row cut off by a crash, or edited"
    path, start, end, label, split, who, when, answer = cells
    if not path or not label or answer not in ANSWERS:
        return f"answer = {answer!r}; allowed: {', '.join(ANSWERS)}, about a path and a label"
    try:
        asked = question(path, float(start), float(end), label)
    except ValueError:
        return f"start = {start!r}, end = {end!r}; allowed: seconds"
    if not 0 <= asked.start < asked.end < float("inf"):
        return f"start = {start!r}, end = {end!r}; allowed: seconds, the end after the start"
    return Answer(asked, split, who, when, answer)


def settle(answers: Iterable[Answer]) -> dict[Question, Answer]:
    """Return the answer that stands to each question: the latest that was not taken back.

    An undo takes back the latest answer of the same person. Questions are in the order in which
    they were first answered.
    """
    given: dict[Question, list[Answer]] = {}
    for answer in answers:
        earlier = given.setdefault(answer.question, [])
        if answer.answer != UNDO:
            earlier.append(answer)
            continue
        own = [
            number for number, given_before in enumerate(earlier) if given_before.who == answer.who
        ]
        if own:
            del earlier[own[-1]]
    return {asked: earlier[-1] for asked, earlier in given.items() if earlier}


class Labelled(NamedTuple):
    """A stretch with its labels, as training takes it."""

    path: str
    start: float
    end: float
    labels: tuple[str, ...]
    split: str


def labelled(settled: dict[Question, Answer]) -> list[Labelled]:
    """Return the stretches that have labels; :data:`BACKGROUND` for those answered by no alone.

    A stretch about which people are unsure, and of which nothing was said to be there, is left out.
    """
    stretches: dict[tuple[str, float, float], list[Answer]] = {}
    for asked, answer in settled.items():
        stretches.setdefault(asked[:3], []).append(answer)
    result = []
    for (path, start, end), answers in stretches.items():
        labels = tuple(answer.question.label for answer in answers if answer.answer == YES)
        if not labels and all(answer.answer == NO for answer in answers):
            labels = (BACKGROUND,)
        if labels:
            result.append(Labelled(path, start, end, labels, answers[-1].split))
    return result
