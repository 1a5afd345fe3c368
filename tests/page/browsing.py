"""A server of the page in a process of its own, and a person before it: keys, mouse, and what is waited for."""

import time
from contextlib import contextmanager

from forked import Forked

PATIENCE = 60.0  # seconds


@contextmanager
def serving(index, labels):
    """Serve the page as ``melpatch page`` does; yield the process and the address that it prints."""
    words = ["page", index, "--labels", labels, "--port", 0]
    process = Forked(words, environment={"OMP_NUM_THREADS": "1"})
    try:
        until = time.monotonic() + PATIENCE
        while "\n" not in process.written():
            assert process.poll() is None, process.written()
            assert time.monotonic() < until, "it does not say its address"
            time.sleep(0.05)
        line = process.written()
        assert line.startswith("open http://127.0.0.1:"), line
        yield process, line.split()[1]
    finally:
        process.kill()
        process.communicate()


def open_page(browser, address, who="ann", label="low"):
    """Open the page as a person, with a label; ``page.faults`` collects errors of its code."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#about:not(:empty)")
    page.fill("#who", who)
    page.fill("#label", label)
    page.press("#label", "Enter")
    page.wait_for_selector(".card:focus")
    return page


def wait(page, expression):
    """Wait until an expression is true; Playwright's own way needs ``eval``, which the page forbids."""
    until = time.monotonic() + PATIENCE
    while not page.evaluate(expression):
        assert time.monotonic() < until, (
            f"{expression} never came true; {page.inner_text('#notice')}"
        )
        time.sleep(0.05)


def chosen(page, words):
    """Wait until the page says that it chose its clips so, and has drawn the first."""
    wait(page, f"document.getElementById('chosen').textContent.includes({words!r})")
    wait(page, "Boolean(state.cards[0].picture)")


def rows_of(page):
    """Return the rows of the clips that are shown."""
    return [int(card.get_attribute("data-row")) for card in page.query_selector_all(".card")]


def answer(page):
    """Answer the clip in focus by a key, as a listener who is right; return its row, confirmed."""
    page.wait_for_selector(".card:focus")
    row, path = page.evaluate("[document.activeElement.dataset.row, document.activeElement.title]")
    is_low = "/low-" in path
    page.keyboard.press("y" if is_low else "n")
    kind = "yes" if is_low else "no"
    page.wait_for_selector(f'.card[data-row="{row}"][data-answer="{kind}"]', state="attached")
    return int(row)


def drag(page, box, places):
    """Draw with the mouse through places of a box, given as shares of its sides."""
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=3)
    page.mouse.up()


def drag_file(page, kind, path=None):
    """Let something be dragged into the page, or dropped onto it: a file, or without one a word.

    Args:
        page: the page.
        kind: dragEnter, dragOver or drop, as the browser's own protocol names them.
        path: the file.
    """
    words = [{"mimeType": "text/plain", "data": "no file"}]
    data = {"items": [] if path else words, "files": [str(path)] if path else []}
    event = {"type": kind, "x": 300, "y": 300, "data": data | {"dragOperationsMask": 1}}
    page.context.new_cdp_session(page).send("Input.dispatchDragEvent", event)
