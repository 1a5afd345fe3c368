"""The page in a real headless Chromium, and its server killed: nothing that was answered is lost."""

from journeys.three_sounds import read_table
from page.browsing import answer, chosen, drag, open_page, rows_of, serving, wait


def test_search_listen_label_undo_and_reload(index, browser, tmp_path):
    labels = tmp_path / "labels.csv"
    with serving(index, labels) as (_, address):
        page = open_page(browser, address, "ann")
        wait(page, "Boolean(state.cards[0].picture)")
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
        chosen(page, "like")
        drag(page, page.query_selector(".card canvas").bounding_box(), [(0.2, 0.5), (0.8, 0.5)])
        chosen(page, " s of ")
        corners = [(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99)]
        page.query_selector("#map").scroll_into_view_if_needed()
        drag(page, page.query_selector("#map").bounding_box(), corners)
        chosen(page, "on the map")
        check_names(page)
        page.reload()
        wait(page, "document.getElementById('counts').textContent.includes('low')")
        assert page.input_value("#who") == "ann"
        assert page.faults == other.faults == []
    rows = read_table(labels)
    assert [row["who"] for row in rows] == ["ann"] * 5 + ["bo"]
    assert rows[4]["answer"] == "undo"
    assert len({*answered}) == 4


def test_kill_9_in_the_middle_of_answers_loses_none(index, browser, tmp_path):
    labels = tmp_path / "labels.csv"
    with serving(index, labels) as (process, address):
        page = open_page(browser, address, "ann")
        answered = [answer(page) for _ in range(3)]
        process.kill()
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
