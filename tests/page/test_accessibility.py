"""axe finds nothing to mend on the page, in any state of it, or in a report."""

import pytest
from journeys.three_sounds import SHORT, SMALL, melpatch, write_corpus
from page.browsing import answer, chosen, open_page, serving, wait

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
WIDTHS = (1280, 400)


def mend(page):
    """Return what axe finds, a line each."""
    response = axe.Axe().run(page).response
    assert {"color-contrast", "document-title"} <= {one["id"] for one in response["passes"]}
    return [
        f"{one['id']}: {node['target']}: {node['failureSummary']}"
        for one in response["violations"]
        for node in one["nodes"]
    ]


def test_the_page_has_no_barrier_in_any_view(index, browser, tmp_path):
    with serving(index, tmp_path / "labels.csv") as (_, address):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.wait_for_selector("#about:not(:empty)")
        assert mend(page) == [], "before a label is given"
        page.close()
        page = open_page(browser, address)
        for by in ("random", "test"):
            page.select_option("#by", by)
            page.press("#label", "Enter")
            chosen(page, "drawn at random")
            for _ in range(3):
                answer(page)
        page.keyboard.press("Shift+ArrowRight")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                assert mend(page) == [], f"{scheme}, {width} px wide"
                # Nothing is cut off, or found by scrolling sideways only.
                assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate("say('something went wrong', true)")
        wait(page, "document.getElementById('notice').className === 'error'")
        assert mend(page) == [], "an error"
        assert page.faults == []


def test_a_report_has_no_barrier(browser, tmp_path):
    corpus = write_corpus(tmp_path / "sounds")
    run = tmp_path / "run"
    words = ("--init", "scratch", "--data", corpus, "--out", run, "--steps", 2)
    melpatch("finetune", *words, *SHORT, *SMALL)
    melpatch("evaluate", run, "--data", corpus, "--protocol", "as_trained", "--no-floors")
    out = tmp_path / "report.html"
    melpatch("report", run, "--out", out, "--worst", 2, "--clips", 0)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(out.as_uri())
    assert page.query_selector_all("audio")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert mend(page) == [], f"{width} px wide"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
