"""The page in a real headless Chromium, and its server killed: nothing that was answered is lost."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from journeys.three_sounds import read_table, write_sound
from page.browsing import answer, chosen, drag, drag_file, open_page, rows_of, serving, wait

from melpatch.search.index import Index


@pytest.fixture(scope="module")
def served(index, tmp_path_factory):
    """A server that the tests of this file share, each with a label of its own."""
    labels = tmp_path_factory.mktemp("labels") / "labels.csv"
    with serving(index, labels) as (_, address):
        yield address, labels


@pytest.fixture
def page(served, browser, request):
    """The page, opened by a person with the name of the test; errors of its code fail the test."""
    page = open_page(browser, served[0], who=request.node.name, label=request.node.name)
    yield page
    faults = page.faults
    page.context.close()
    assert faults == []


def own_rows(served, page):
    """Return the rows that a person has added to the labels."""
    who = page.input_value("#who")
    return [row for row in read_table(served[1]) if row["who"] == who]


DECODED = """(async () => {
  const sound = await (await fetch(audio.src)).arrayBuffer();
  const decoded = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(sound);
  return [...decoded.getChannelData(0)];
})()"""


def test_what_is_heard_and_seen_is_the_file(page, index):
    wait(page, "Boolean(state.cards[0].picture)")
    page.keyboard.press(" ")
    wait(page, "audio.currentTime > 0")
    heard = np.array(page.evaluate(DECODED), np.float32)
    found = Index(index)
    place = found.rows[rows_of(page)[0]]
    whole, rate = soundfile.read(found.recordings[place["recording"]].path, dtype="float32")
    expected = whole[round(place["start"] * rate) : round(place["end"] * rate)]
    np.testing.assert_allclose(heard, expected, atol=2e-4)
    shades = page.evaluate(
        "[...document.querySelector('.card canvas').getContext('2d')"
        ".getImageData(0, 0, 90, 30).data]"
    )
    assert np.reshape(shades, (-1, 4))[:, :3].sum(axis=1).std() > 20


def test_answers_by_keys_teach_and_an_undo_is_one_of_them(page, served):
    page.select_option("#by", "random")
    answered = [answer(page) for _ in range(8)]
    page.keyboard.press("s")
    page.keyboard.press("z")
    wait(page, "document.getElementById('notice').textContent === 'undone'")
    rows = own_rows(served, page)
    assert [row["answer"] for row in rows[:8]].count("yes") >= 1
    assert rows[8]["answer"] == "undo"
    assert len({*answered}) == 8
    # Taught: what comes next is chosen by the head, and has its scores.
    page.select_option("#by", "likely")
    page.press("#label", "Enter")
    chosen(page, "most likely")
    assert page.evaluate("state.cards.every((card) => card.score !== null)")
    # Another label by its number in the list.
    page.keyboard.press("1")
    wait(page, "document.getElementById('notice').textContent.startsWith('yes to ')")
    # Reloaded, the page knows the person and the labels.
    name = page.input_value("#who")
    page.reload()
    wait(page, f"document.getElementById('counts').textContent.includes({name!r})")
    assert page.input_value("#who") == name


def test_a_stretch_is_dragged_and_the_map_is_drawn_around(page):
    page.keyboard.press("f")
    chosen(page, "like")
    box = page.query_selector(".card canvas").bounding_box()
    drag(page, box, [(0.2, 0.5), (0.8, 0.5)])
    chosen(page, " s of ")
    page.query_selector("#map").scroll_into_view_if_needed()
    corners = [(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99)]
    drag(page, page.query_selector("#map").bounding_box(), corners)
    chosen(page, "on the map")


def test_everything_can_be_done_without_a_mouse(page, served):
    # Each control is reached by the tab key alone.
    wait(page, "Boolean(state.cards[0].picture)")
    page.evaluate("document.getElementById('who').focus()")
    reached = set()
    for _ in range(60):
        reached.add(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    assert {
        "label",
        "by",
        "next",
        "undo",
        "threshold",
        "gain",
        "file",
        "map",
        "keep",
        "train",
    } <= reached
    # A stretch is marked and searched for; a circle on the map is grown and its clips are shown.
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("x")
    chosen(page, " s of ")
    for key, kind in (("y", "yes"), ("n", "no"), ("u", "unsure")):
        page.keyboard.press(key)
        wait(page, f"document.getElementById('notice').textContent.startsWith('{kind} to ')")
    assert [row["answer"] for row in own_rows(served, page)] == ["yes", "no", "unsure"]
    page.evaluate("document.getElementById('map').focus()")
    for _ in range(20):
        page.keyboard.press("+")
    page.keyboard.press("Enter")
    chosen(page, "on the map")
    page.keyboard.press("l")
    chosen(page, f"like {page.input_value('#label')}")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "label"


def test_two_people_at_once_are_given_different_clips(page, served, browser):
    other = open_page(browser, served[0], who="bo", label=page.input_value("#label"))
    assert not {*rows_of(other)} & {*rows_of(page)}
    first, second = answer(other), answer(page)
    assert first != second
    assert len(own_rows(served, page)) == len(own_rows(served, other)) == 1
    assert other.faults == []
    other.context.close()


def test_a_file_of_ones_own_is_a_query(page, tmp_path):
    page.set_input_files("#file", write_sound(tmp_path / "mine.wav", "high", 1.0, seed=99))
    chosen(page, "like mine.wav")
    assert "/high-" in page.evaluate("document.activeElement.title")
    (tmp_path / "notes.txt").write_text("no sound")
    page.set_input_files("#file", tmp_path / "notes.txt")
    page.wait_for_selector("#notice.error")
    assert "notes.txt: " in page.inner_text("#notice")


def test_a_file_is_dropped_onto_the_page(page, tmp_path):
    mine = write_sound(tmp_path / "mine.wav", "high", 1.0, seed=99)
    marked = "document.body.classList.contains('dropping')"
    drag_file(page, "dragEnter", mine)
    drag_file(page, "dragOver", mine)
    wait(page, marked)
    # Carried off, which the browser's protocol has no event for, and brought back.
    page.evaluate("document.body.dispatchEvent(new DragEvent('dragleave', { bubbles: true }))")
    assert not page.evaluate(marked)
    for kind in ("dragEnter", "dragOver", "drop"):
        drag_file(page, kind, mine)
    chosen(page, "like mine.wav")
    assert not page.evaluate(marked)
    assert "/high-" in page.evaluate("document.activeElement.title")
    # Neither a word nor a folder is a query, and the page does not leave for them.
    shown = rows_of(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        drag_file(page, kind)
    assert not page.evaluate(marked)
    assert rows_of(page) == shown
    for kind in ("dragEnter", "dragOver", "drop"):
        drag_file(page, kind, tmp_path)
    page.wait_for_selector("#notice.error")
    assert page.inner_text("#notice") == f"{tmp_path.name}: cannot be read; give one sound file"


def test_a_training_is_seen_again_after_a_reload_and_stopped(page):
    answer(page)
    page.evaluate("document.getElementById('train').focus()")
    page.keyboard.press("Enter")
    wait(page, "document.getElementById('training').textContent.startsWith('training: ')")
    page.reload()
    wait(page, "document.getElementById('training').textContent !== ''")
    page.evaluate("document.getElementById('stop').focus()")
    page.keyboard.press("Enter")
    ended = "/^(stopped|finished|failed): ./.test(document.getElementById('training').textContent)"
    wait(page, ended)
    assert page.evaluate("document.getElementById('stop').disabled")


def test_kill_9_in_the_middle_of_answers_loses_none(index, browser, tmp_path):
    labels = tmp_path / "labels.csv"
    with serving(index, labels) as (process, address):
        page = open_page(browser, address)
        answered = [answer(page) for _ in range(3)]
        # One more is on its way when the server dies.
        page.keyboard.press("y")
        process.kill()
        process.wait()
        page.keyboard.press("y")
        page.wait_for_selector("#notice.error")
    confirmed = len(read_table(labels))
    assert confirmed in (3, 4)
    # A recording that is gone meanwhile is named on its card, and the rest goes on.
    gone = Path(Index(index).recordings[0].path)
    with serving(index, labels) as (_, address):
        page = open_page(browser, address)
        assert not {*rows_of(page)} & {*answered}
        answer(page)
        away = gone.rename(gone.with_suffix(".away"))
        try:
            page.evaluate(
                "ask('api/rows', { rows: [0, 2] }).then((found) => show(found.cards, 'two'))"
            )
            wait(page, "state.cards.length === 2 && Boolean(state.cards[1].picture)")
            wait(page, "state.cards[0].says.textContent.includes('is gone since it was indexed')")
        finally:
            away.rename(gone)
    assert len(read_table(labels)) == confirmed + 1
