"""Rows of the tables of a comparison, in Markdown and CSV."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def markdown_row(texts: Sequence[str]) -> str:
    """Return a row of a table in Markdown."""
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def write_rows(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
