"""A report on a comparison holds its tables, whatever stands in their cells."""

import pytest
from test_markup import Reader

from melpatch.cli import main
from melpatch.comparison.rows import markdown_row
from melpatch.comparison.table import Cell, markdown
from melpatch.reports.report import report


def cell(method, value, error=""):
    return Cell(
        method,
        "nano",
        "10 steps",
        "birds",
        "knn",
        metric="accuracy",
        value=value,
        seeds_95=0.02,
        seeds_std=0.01,
        low=0.4,
        high=0.6,
        n=100,
        trained_on=3,
        seeds=3,
        cpu_seconds=12.0,
        seconds=12.0,
        steps=10.0,
        passes=1.0,
        gpu="",
        error=error,
    )


@pytest.fixture
def folder(tmp_path):
    cells = [cell("ssast", 0.5), cell("a|b <script>", 0.75, "it failed")]
    text = markdown("methods (small); scored on birds", "melpatch compare x", cells)
    (tmp_path / ".holder").write_text("1")
    (tmp_path / "table.md").write_text(text, encoding="utf-8")
    return tmp_path


def test_the_tables_are_those_of_the_comparison(folder):
    page = Reader(report(folder))
    for part in ("methods (small); scored on birds", "melpatch compare x", "0.500 ± 0.020"):
        assert part in page.text
    assert "a|b <script>" in page.text
    assert "failed [1]: it failed" in page.text
    assert "pretrained on: 3 of 100 scored clips of birds" in page.text
    assert "No figure" in page.text
    assert not any(name == "script" for name, _ in page.elements)
    assert sum(name == "table" for name, _ in page.elements) == 1


def test_a_comparison_without_a_table_is_told(folder, capsys):
    (folder / "table.md").unlink()
    assert main(["report", str(folder), "--out", str(folder.parent / "x.html")]) == 2
    assert "has no table.md yet" in capsys.readouterr().err
    (folder / "table.md").write_text("")
    assert main(["report", str(folder), "--out", str(folder.parent / "x.html")]) == 2
    assert "table.md: damaged" in capsys.readouterr().err


def test_rows_are_read_as_they_are_written():
    from melpatch.reports.comparison import _cells

    assert _cells(markdown_row(["a|b", "", "c"])) == ["a|b", "", "c"]
