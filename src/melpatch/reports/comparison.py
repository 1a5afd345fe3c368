"""The report on a comparison: its tables and its figure, as the comparison wrote them."""

import re
from collections.abc import Iterator
from pathlib import Path

from melpatch.errors import CheckpointError
from melpatch.markup import Html, listing, paragraph, table
from melpatch.opening import LOG_BYTES, read_text, reading
from melpatch.plots.base import is_own_picture
from melpatch.reports.media import embedded
from melpatch.reports.page import Section, code, missing
from melpatch.reports.repeat import repeat_section, starts_of

TABLE = "table.md"
FIGURE = "compare.png"
_CELL = re.compile(r"(?<!\\)\|")


def comparison_title(folder: Path) -> str:
    """Return the title of a comparison.

    Raises:
        CheckpointError: it has no table, or a damaged one.
    """
    return _lines(folder)[0].strip("*") or folder.name


def comparison_sections(folder: Path) -> list[Section]:
    """Return the sections on a comparison.

    Raises:
        CheckpointError: it has no table, or a damaged one.
    """
    lines = _lines(folder)[1:]
    parts = [*_blocks(lines)]
    sections = [Section("Scores", parts), Section("Score against training", [*_figure(folder)])]
    runs = sorted(path.parent for path in folder.glob("runs/*/config.toml"))
    if runs:
        names = listing(path.name for path in runs)
        about = "Each has a report of its own: melpatch report FOLDER."
        sections.append(Section("Runs", [paragraph(about), names]))
        sections.append(repeat_section(starts_of(runs[0])))
    return sections


def _lines(folder: Path) -> list[str]:
    path = folder / TABLE
    if not path.exists():
        raise CheckpointError(
            f"{folder}: has no {TABLE} yet; run melpatch compare again, which keeps what is done"
        )
    with reading(path, "run melpatch compare again, which keeps what is done", LOG_BYTES):
        lines = read_text(path, LOG_BYTES).splitlines()
        if not lines:
            raise ValueError("is empty")
    return lines


def _figure(folder: Path) -> Iterator[Html]:
    path = folder / FIGURE
    if path.is_file() and is_own_picture(path):
        yield embedded(path, f"Score against the cost of pretraining: {comparison_title(folder)}")
    else:
        yield missing(
            "No figure: it needs matplotlib (pip install 'melpatch[plots]') and a trained network "
            "with a score."
        )


def _blocks(lines: list[str]) -> Iterator[Html]:
    """Yield the tables, lists, commands and paragraphs of the Markdown that a comparison writes."""
    for block in "\n".join(lines).split("\n\n"):
        own = [line for line in block.splitlines() if line]
        if not own:
            continue
        if own[0].startswith("|"):
            head, _, *rows = map(_cells, own)
            yield table(head, rows)
        elif own[0].startswith("- "):
            yield listing(line.removeprefix("- ") for line in own)
        elif own[0].startswith("`") and own[-1].endswith("`"):
            yield code("\n".join(own).strip("`"))
        else:
            yield paragraph(" ".join(own).replace("`", ""))


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in _CELL.split(line)[1:-1]]
