"""docs/results.md: published figures name their source; reproduced ones their command, and are in the lab notes."""

import re

import pytest
from places import ROOT

PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
LAB = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "lab").glob("*.md")))
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
PUBLISHED = [name for name in SECTIONS if name.startswith(("Published", "What came after"))]
REPRODUCED = dict(
    re.findall(
        r"^### (.+?)\n(.*?)(?=^### |\Z)", SECTIONS["Reproduced here"], re.DOTALL | re.MULTILINE
    )
)
FIGURE = re.compile(r"(?<![\d.])[01]\.\d{3}(?!\d)")


def tables(text):
    """Return every table as a list of rows, the head first, each a list of cells."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    rows = [[line.strip("|").split("|") for line in table.splitlines()] for table in found]
    return [[[cell.strip() for cell in row] for row in (table[0], *table[2:])] for table in rows]


def test_there_are_tables_of_both_kinds():
    assert len(PUBLISHED) >= 4
    assert len(REPRODUCED) >= 4
    assert all(tables(SECTIONS[name]) for name in PUBLISHED)
    assert all(tables(text) for text in REPRODUCED.values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_row_names_its_source_by_a_mark(name):
    marks = {row[0] for row in tables(SECTIONS["How to read it"])[0][1:]}
    for head, *rows in tables(SECTIONS[name]):
        assert head[-1] == "source"
        for row in rows:
            assert len(row) == len(head), row
            assert row[-1].removeprefix("means ")[:1] in marks, row


@pytest.mark.parametrize("name", REPRODUCED)
def test_every_reproduced_table_names_its_command_budget_seeds_and_selection(name):
    words = REPRODUCED[name]
    assert re.search(r"^(melpatch|python benchmarks/)", words, re.MULTILINE)
    assert [
        word for word in ("Budget:", "Seeds:", "Selection:") if word not in " ".join(words.split())
    ] == []


def test_every_reproduced_figure_stands_in_the_notebook():
    ours = SECTIONS["Reproduced here"] + SECTIONS["What agrees with the papers, and what does not"]
    derived = {"0.002"}  # a mean of three of its figures
    assert len(FIGURE.findall(ours)) > 100
    assert set(FIGURE.findall(ours)) - derived <= set(FIGURE.findall(LAB))


def test_no_reproduced_figure_stands_in_a_published_section():
    assert [name for name in PUBLISHED if FIGURE.search(SECTIONS[name])] == []
