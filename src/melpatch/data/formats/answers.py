"""Labels of ``melpatch page``: the answers that stand, of a CSV file to which rows are only added."""

from collections.abc import Iterator
from pathlib import Path

from melpatch.data.answers import Answer, is_answers, labelled, read_answers, settle
from melpatch.data.formats.base import Format
from melpatch.data.row import END, LABEL, PATH, SPLIT, START, Line, Table


class Answers(Format):
    """Labels of melpatch page, one answer of a person a line."""

    what = "answers of melpatch page"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Return whether the first line names exactly the columns of answers."""
        return is_answers(head)

    def table(self, path: Path) -> Table:
        """Return the labelled stretches; rows that are no answers are rejected."""
        answers: list[Answer] = []
        malformed: list[Line] = []
        for number, row in read_answers(path):
            if isinstance(row, Answer):
                answers.append(row)
            else:
                malformed.append((number, row))
        stretches = labelled(settle(answers))

        def lines() -> Iterator[Line]:
            yield from malformed
            for number, stretch in enumerate(stretches, 1):
                times = [f"{stretch.start:.6f}", f"{stretch.end:.6f}"]
                yield number, [stretch.path, *times, ";".join(stretch.labels), stretch.split]

        remark = f"{len(answers)} answers come to {len(stretches)} labelled stretches"
        return Table([PATH, START, END, LABEL, SPLIT], lines(), remarks=[remark], unit="stretch")
