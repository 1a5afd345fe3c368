"""The page in a real headless Chromium, and its server killed: nothing that was answered is lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from journeys.three_sounds import read_table
from page.collection import write_collection

CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
WAIT = 60_000


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return write_collection(tmp_path_factory.mktemp("browser"), recordings=15)


@contextmanager
def serving(index, labels):
    """Run ``melpatch page`` in a process of its own; yield it and the address that it prints."""
    words = [sys.executable, "-m", "melpatch", "page", str(index), "--labels", str(labels)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*words, "--port", "0"], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            line = process.stderr.readline()
            assert line.startswith("open http://127.0.0.1:"), line + process.stderr.read()
            yield process, line.split()[1]
        finally:
            process.kill()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        opened = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


def open_page(browser, address, who):
    """Open the page as a person, with a label; any error of its code fails the test."""
    page = browser.new_context().new_page()
    page.set_default_timeout(WAIT)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(address)
    page.fill("#who", who)
    page.fill("#label", "low")
    page.press("#label", "Enter")
    page.wait_for_selector(".card:focus")
    return page


def wait(page, expression):
    """Wait until an expression of the page is true; Playwright's own way needs ``eval``, which the page forbids."""
    until = time.monotonic() + WAIT / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < until, (
            f"{expression} never came true; {page.inner_text('#notice')}"
        )
        time.sleep(0.1)


def rows_of(page):
    return [int(card.get_attribute("data-row")) for card in page.query_selector_all(".card")]


def answer(page):
    """Answer the clip in focus by a key, as a listener who is right; wait until it is confirmed."""
    card = page.evaluate("[document.activeElement.dataset.row, document.activeElement.title]")
    is_low = "/low-" in card[1]
    page.keyboard.press("y" if is_low else "n")
    kind = "yes" if is_low else "no"
    page.wait_for_selector(f'.card[data-row="{card[0]}"][data-answer="{kind}"]')
    return int(card[0])


def test_search_listen_label_undo_and_reload(index, browser, tmp_path):
    labels = tmp_path / "labels.csv"
    with serving(index, labels) as (_, address):
        page = open_page(browser, address, "ann")
        wait(page, "document.querySelector('.card canvas').width > 30")
        # What is heard is as long as the clip, and a spectrogram is no empty picture.
        page.keyboard.press(" ")
        wait(page, "audio.duration > 0.99 && audio.duration < 1.01")
        brightest = page.evaluate(
            "(() => { const c = document.querySelector('.card canvas');"
            " return Math.max(...c.getContext('2d').getImageData(0, 0, c.width, c.height)"
            ".data.filter((_, n) => n % 4 === 0)); })()"
        )
        assert brightest > 200
        answered = [answer(page) for _ in range(4)]
        page.keyboard.press("z")
        wait(page, "document.getElementById('notice').textContent === 'undone'")
        # Another person, at once, is given other clips.
        other = open_page(browser, address, "bo")
        assert not {*rows_of(other)} & {*rows_of(page)}
        answer(other)
        # By a clip, by a stretch that is dragged, and by what is drawn around on the map.
        page.keyboard.press("f")
        wait(page, "document.getElementById('chosen').textContent.includes('like')")
        drag(page, page.query_selector(".card canvas").bounding_box(), [(0.2, 0.5), (0.8, 0.5)])
        wait(page, "document.getElementById('chosen').textContent.includes(' s of ')")
        corners = [(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99)]
        page.query_selector("#map").scroll_into_view_if_needed()
        drag(page, page.query_selector("#map").bounding_box(), corners)
        wait(page, "document.getElementById('chosen').textContent.includes('on the map')")
        check_names(page)
        page.reload()
        wait(page, "document.getElementById('counts').textContent.includes('low')")
        assert page.input_value("#who") == "ann"
        assert page.faults == other.faults == []
    rows = read_table(labels)
    assert [row["who"] for row in rows] == ["ann"] * 5 + ["bo"]
    assert rows[4]["answer"] == "undo"
    assert len({*answered}) == 4


def drag(page, box, places):
    """Draw with the mouse through places of a box, given as shares of its sides."""
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=3)
    page.mouse.up()


def test_kill_9_in_the_middle_of_answers_loses_none(index, browser, tmp_path):
    labels = tmp_path / "labels.csv"
    with serving(index, labels) as (process, address):
        page = open_page(browser, address, "ann")
        answered = [answer(page) for _ in range(3)]
        process.send_signal(signal.SIGKILL)
        process.wait()
        page.keyboard.press("y")
        page.wait_for_selector("#notice.error")
    with serving(index, labels) as (_, address):
        page = open_page(browser, address, "ann")
        assert not {*rows_of(page)} & {*answered}
        answer(page)
    assert len(read_table(labels)) == 4


def check_names(page):
    """Every control has a name for those who cannot see it, and there is one first heading."""
    nameless = page.evaluate(
        "[...document.querySelectorAll('input, select, button, canvas[role], article')]"
        ".filter((e) => !(e.labels?.length || e.textContent.trim() || e.ariaLabel)).length"
    )
    assert nameless == 0
    levels = page.evaluate("[...document.querySelectorAll('h1, h2')].map((e) => e.tagName)")
    assert levels[0] == "H1"
    assert levels.count("H1") == 1
