"""The picture of scores against budgets shows every number in its panel."""

import numpy as np
import pytest
from matplotlib.image import imread

from melpatch.errors import MelpatchError
from melpatch.plots import budget as budget_module
from melpatch.plots.budget import Point, budget

POINTS = [
    Point(size, task, method, seconds, level + seconds / 1000)
    for size, level in (("nano", 0.2), ("tiny", 0.3))
    for task in ("words", "birds", "digits")
    for method, budgets in (
        ("random vit", (0.0,)),
        ("ssast", (240.0, 60.0)),
        ("cola", (60.0, 240.0)),
    )
    for seconds in budgets
]

pytestmark = pytest.mark.usefixtures("draws")


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    monkeypatch.setattr(budget_module, "save", lambda figure, path: figures.append(figure))
    return figures


def test_it_is_a_png_of_a_sensible_size(tmp_path):
    budget(tmp_path / "x.png", POINTS, "accuracy")
    height, width, _ = imread(tmp_path / "x.png").shape
    assert 500 <= height <= 2500
    assert 600 <= width <= 2000


def test_a_title_says_what_is_compared(tmp_path, drawn):
    budget(tmp_path / "x.png", POINTS, "accuracy", title="Two ways on $words_1$")
    assert drawn[0].get_suptitle() == "Two ways on $words_1$"


def test_every_panel_holds_a_line_of_each_method_by_cost(tmp_path, drawn):
    budget(tmp_path / "x.png", POINTS, "accuracy")
    panels = drawn[0].axes
    assert [panel.get_title(loc="left") for panel in panels] == [
        f"{task}, {size}" for size in ("nano", "tiny") for task in ("words", "birds", "digits")
    ]
    for panel, level in zip(panels, [0.2] * 3 + [0.3] * 3, strict=True):
        random, ssast, cola = panel.lines
        assert [line.get_label() for line in panel.lines] == ["random vit", "ssast", "cola"]
        np.testing.assert_allclose(random.get_ydata(), level)
        for line in (ssast, cola):
            np.testing.assert_allclose(line.get_xydata(), [[60, level + 0.06], [240, level + 0.24]])
    assert len({tuple(line.get_color()) for line in panels[0].lines}) == 3
    assert panels[0].get_ylabel() == "accuracy"
    assert panels[-1].get_xscale() == "log"
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == [
        "random vit",
        "ssast",
        "cola",
    ]


def test_a_method_keeps_its_colour_where_others_are_missing(tmp_path, drawn):
    kept = [point for point in POINTS if (point.row, point.method) != ("tiny", "ssast")]
    budget(tmp_path / "x.png", kept, "accuracy")
    first, last = drawn[0].axes[0], drawn[0].axes[-1]
    assert [line.get_label() for line in last.lines] == ["random vit", "cola"]
    assert last.lines[1].get_color() == first.lines[2].get_color()


def test_a_single_row_needs_no_name_and_time_has_its_unit(tmp_path, drawn):
    points = [point._replace(row="") for point in POINTS if point.row == "nano"]
    budget(tmp_path / "x.png", points, "accuracy", "seconds")
    assert [panel.get_title(loc="left") for panel in drawn[0].axes] == ["words", "birds", "digits"]
    assert drawn[0].axes[0].get_xlabel() == "seconds of pretraining"


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(MelpatchError, match="no score"):
        budget(tmp_path / "x.png", [point for point in POINTS if not point.seconds], "accuracy")
