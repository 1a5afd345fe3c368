"""The page's server: search, sound, answers, undo, what comes next, figures, and what it refuses."""

import io
import shutil
import sys
import tempfile
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from journeys.three_sounds import read_table, write_sound
from page.collection import kind_of, opened, write_collection
from starlette.testclient import TestClient

from melpatch.data.manifest import load_corpus
from melpatch.inference.model import load
from melpatch.page import query_file
from melpatch.page.server import make_app
from melpatch.page.session import Session
from melpatch.search.approximate import Approximate, build
from melpatch.search.index import Index


@pytest.fixture
def session(index, tmp_path):
    with opened(index, tmp_path / "labels.csv") as session:
        yield session


@pytest.fixture
def page(session):
    return TestClient(make_app(session), base_url="http://localhost")


def post(page, name, /, **values):
    answer = page.post(f"/api/{name}", json=values)
    assert answer.status_code == 200, answer.text
    return answer.json()


def answer(page, card, said=None, label="low", who="ann"):
    said = said or ("yes" if kind_of(card) == label else "no")
    return post(page, "answer", row=card["row"], label=label, answer=said, who=who)


def next_cards(page, by, count=6, who="ann", label="low"):
    return post(page, "next", label=label, by=by, count=count, who=who)["cards"]


def taught(page):
    """Answer some random clips and those that the head thinks likely."""
    for by in ("random", "likely", "test", "test"):
        for card in next_cards(page, by, 8):
            answer(page, card)


def test_the_files_of_the_page_are_served(page):
    assert "<title>melpatch" in page.get("/").text
    assert page.get("/page.js").headers["content-type"].startswith("text/javascript")
    assert "default-src 'self'" in page.get("/page.css").headers["content-security-policy"]


def test_sound_is_that_of_the_stretch(page, index):
    found = Index(index)
    wav = page.get("/api/sound/3").content
    heard, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    place = found.rows[3]
    path = found.recordings[place["recording"]].path
    whole, _ = soundfile.read(path, dtype="float32")
    expected = whole[round(place["start"] * rate) : round(place["end"] * rate)]
    np.testing.assert_allclose(heard, expected, atol=2e-4)
    around, _ = soundfile.read(io.BytesIO(page.get("/api/sound/3?around=5").content))
    assert len(around) == len(whole)


def like_file(page, name, content):
    headers = {"content-type": "application/octet-stream"}
    return page.post("/api/query", params={"name": name}, content=content, headers=headers)


def test_a_file_that_is_sent_is_a_query_and_never_kept(page, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    sound = write_sound(tmp_path / "mine.wav", "high", 1.0, seed=99)
    found = like_file(page, "mine.wav", sound.read_bytes()).json()
    assert {kind_of(card) for card in found["cards"][:3]} == {"high"}
    assert found["whole"]
    assert found["seconds"] == pytest.approx(1.0)
    assert [*temporary.iterdir()] == []


def test_a_file_that_is_no_sound_or_too_large_is_refused(page, monkeypatch, tmp_path):
    refused = like_file(page, "notes\n.txt", b"no sound at all")
    assert refused.status_code == 404
    assert refused.json()["error"].startswith("notes .txt: ")
    assert like_file(page, "a.wav", b"").status_code == 413
    monkeypatch.setattr(query_file, "MOST_BYTES", 1 << 20)
    large = like_file(page, "a.wav", bytes((1 << 20) + 1))
    assert large.status_code == 413
    assert "larger than 1 MiB; give a part of it" in large.json()["error"]


def test_of_a_long_file_only_the_beginning_is_looked_at(page, monkeypatch, tmp_path):
    monkeypatch.setattr(query_file, "LONGEST", 2.0)
    long = write_sound(tmp_path / "long.wav", "low", 5.0)
    found = like_file(page, "long.wav", long.read_bytes()).json()
    assert (found["seconds"], found["whole"]) == (2.0, False)


def test_searches_by_graphs_find_the_same_and_no_clip_that_is_kept_to_test(index, session):
    pytest.importorskip("usearch", reason="usearch is not installed")
    copy = shutil.copytree(index, session.labels.path.parent / "index")
    own = Index(copy)
    build(own, block=16)
    by_graphs = Session(own, session.labels, session.model, Approximate(own, block=16))
    exact, close = (one.like_row(0, 10) for one in (session, by_graphs))
    assert [card.row for card in close] == [card.row for card in exact]
    assert not any(card.test for card in close)


def test_the_map_by_umap_keeps_its_clips_and_a_missing_library_is_named(page, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    missing = page.get("/api/map?by=umap")
    assert missing.status_code == 400
    assert "pip install 'melpatch[umap]'" in missing.json()["error"]
    made = SimpleNamespace(UMAP=lambda **_: SimpleNamespace(fit_transform=lambda x: x[:, :2]))
    monkeypatch.setitem(sys.modules, "umap", made)
    found = page.get("/api/map?by=umap").json()
    assert found["rows"] == page.get("/api/map").json()["rows"]
    assert np.abs(found["places"]).max() <= 1
    assert "by = 'tsne'" in page.get("/api/map?by=tsne").json()["error"]


def test_a_map_that_is_drawn_holds_up_no_other(page, monkeypatch):
    begun, let_go = threading.Event(), threading.Event()

    def draw(points):
        begun.set()
        assert let_go.wait(60)
        return points[:, :2]

    slow = SimpleNamespace(UMAP=lambda **_: SimpleNamespace(fit_transform=draw))
    monkeypatch.setitem(sys.modules, "umap", slow)
    waiting = threading.Thread(target=lambda: page.get("/api/map?by=umap"))
    waiting.start()
    assert begun.wait(60)
    assert page.get("/api/map").status_code == 200
    let_go.set()
    waiting.join()


def test_a_spectrogram_is_that_of_the_front_end(page, index, session):
    answer = page.get("/api/spectrogram/0")
    mels = int(answer.headers["x-mels"])
    values = np.frombuffer(answer.content, np.uint8).reshape(mels, -1).astype(float)
    decibels = float(answer.headers["x-floor"]) + values * float(answer.headers["x-step"])
    front_end = session.model.objective.front_end
    place = session.index.rows[0]
    path = session.index.recordings[place["recording"]].path
    wave, _ = soundfile.read(path, dtype="float32", stop=16000)
    expected = 10 / np.log(10) * front_end.denormalise(front_end(wave)).numpy()
    np.testing.assert_allclose(decibels, expected, atol=0.51)


def test_search_by_clip_by_stretch_and_by_label(page):
    (first, *_) = next_cards(page, "random")
    kind = kind_of(first)
    alike = post(page, "search", row=first["row"], count=4)["cards"]
    assert {kind_of(card) for card in alike} == {kind}
    assert first["row"] not in [card["row"] for card in alike]
    part = post(page, "search", row=first["row"], start=0.2, end=0.9, count=4)["cards"]
    assert {kind_of(card) for card in part} == {kind}
    answer(page, first, "yes", label="my kind")
    by_label = post(page, "search", label="my kind", count=4)["cards"]
    assert {kind_of(card) for card in by_label} == {kind}
    # Recordings kept to test are never offered by a search.
    assert not any(card["test"] for card in alike + part + by_label)


def test_answers_are_rows_and_an_undo_is_one(page, session):
    first, second, *_ = next_cards(page, "random")
    answer(page, first, "yes")
    answer(page, second, "unsure", who="bo")
    counts = answer(page, second, "no")["counts"]
    assert counts["low"]["yes"] == 1
    assert post(page, "undo", who="ann")["row"] == second["row"]
    assert post(page, "undo", who="ann")["row"] == first["row"]
    assert post(page, "undo", who="ann")["row"] is None
    rows = read_table(session.labels.path)
    assert [(row["who"], row["answer"]) for row in rows] == [
        ("ann", "yes"),
        ("bo", "unsure"),
        ("ann", "no"),
        ("ann", "undo"),
        ("ann", "undo"),
    ]
    (card, *_) = post(page, "rows", rows=[second["row"]])["cards"]
    assert card["answers"] == {"low": "unsure"}


def test_the_head_finds_what_was_asked_for(page):
    taught(page)
    likely = next_cards(page, "likely", 3)
    unsure = next_cards(page, "unsure", 3)
    assert all(card["score"] > 0.5 for card in likely if kind_of(card) == "low")
    assert abs(unsure[0]["score"] - 0.5) <= abs(likely[0]["score"] - 0.5)
    assert [card["score"] for card in likely] == sorted([c["score"] for c in likely], reverse=True)


def test_it_is_said_how_clips_were_chosen(page):
    ask = {"label": "low", "count": 4, "who": "ann"}
    assert post(page, "next", by="likely", **ask)["chosen"] == "random"
    (low, *_), (other, *_) = (
        [card for card in next_cards(page, "random", 20) if (kind_of(card) == "low") == is_low]
        for is_low in (True, False)
    )
    answer(page, low)
    alike = post(page, "next", by="unsure", **ask)
    assert alike["chosen"] == "alike"
    assert kind_of(alike["cards"][0]) == "low"
    answer(page, other)
    assert post(page, "next", by="unsure", **ask)["chosen"] == "unsure"


def test_nothing_answered_is_offered_again_and_recordings_come_once_first(page):
    cards = next_cards(page, "random", 8)
    assert len({card["path"] for card in cards}) == 8
    for card in cards:
        answer(page, card)
    again = {card["row"] for by in ("random", "likely", "far") for card in next_cards(page, by, 60)}
    assert not again & {card["row"] for card in cards}


def test_two_people_are_given_different_clips(page):
    ann = {card["row"] for card in next_cards(page, "random", 6, who="ann")}
    bo = {card["row"] for card in next_cards(page, "random", 6, who="bo")}
    assert not ann & bo


def test_somebody_who_asks_about_another_label_is_kept_from_no_clip(page):
    ann = {card["row"] for card in next_cards(page, "random", 6, who="ann")}
    bo = {card["row"] for card in next_cards(page, "random", 6, who="bo", label="high")}
    assert ann == bo


def test_figures_are_of_the_test_clips_alone(page, session):
    assert post(page, "figures", label="low")["figures"] is None
    taught(page)
    figures = post(page, "figures", label="low")["figures"]
    assert [point["threshold"] for point in figures[23:26]] == [0.48, 0.5, 0.52]
    shares = [point[kind] for point in figures for kind in ("precision", "recall")]
    known = [share for share in shares if share["value"] is not None]
    assert len(known) >= len(figures)
    assert all(share["low"] <= share["value"] <= share["high"] for share in known)
    splits = {row["path"]: row["split"] for row in read_table(session.labels.path)}
    # A recording is either trained on or tested on.
    assert len({*splits.items()}) == len(splits)
    assert {"train", "test"} == {*splits.values()}


def test_training_clips_that_the_head_gets_wrong_are_shown(page):
    taught(page)
    card = next(card for card in next_cards(page, "random", 20) if kind_of(card) == "noise")
    answer(page, card, "yes")
    wrong = post(page, "wrong", label="low")["cards"]
    assert [kind_of(found) == "low" for found in wrong].count(True) == 0
    assert all(found["answers"]["low"] in ("yes", "no") for found in wrong)


def test_the_heads_become_a_run_that_predicts(page, session, tmp_path, index):
    taught(page)
    kept = post(page, "keep", name=tmp_path.name, thresholds={"low": 0.25})
    model = load(kept["run"])
    logits = session._logits("low")
    for row in (0, 5):
        place = session.index.rows[row]
        path = session.index.recordings[place["recording"]].path
        wave, rate = soundfile.read(path, dtype="float32")
        part = wave[round(place["start"] * rate) : round(place["end"] * rate)]
        (prediction,) = model.predict(part, rate)
        expected = 1 / (1 + np.exp(-logits[row]))
        assert prediction.probabilities["low"] == pytest.approx(expected, abs=2e-3)
    assert model.calibration.thresholds.tolist() == [0.25]
    again = page.post("/api/keep", json={"name": tmp_path.name, "thresholds": {}})
    assert again.status_code == 400
    assert "holds a run already" in again.json()["error"]


def test_labels_are_data_as_they_are(page, session):
    taught(page)
    corpus = load_corpus([session.labels.path])
    assert corpus.labels == ("background", "low")
    assert {*corpus.splits} == {"train", "test"}


def test_the_map_holds_every_clip_of_a_small_collection(page, session):
    found = page.get("/api/map").json()
    assert sorted(found["rows"]) == [*range(len(session.index))]
    assert np.abs(found["places"]).max() <= 1


@pytest.mark.parametrize(
    ("name", "values", "status", "message"),
    [
        ("answer", {"row": 10**6, "label": "a", "answer": "yes", "who": ""}, 400, "row = 1000000"),
        ("answer", {"row": 0, "label": "a;b", "answer": "yes", "who": ""}, 400, "without ';'"),
        ("answer", {"row": 0, "label": "a", "answer": "maybe", "who": ""}, 400, "answer = 'maybe'"),
        ("answer", {"row": 0, "label": "a", "answer": "yes", "who": "a\nb"}, 400, "who = "),
        ("answer", {"label": "a"}, 400, "row = None; allowed: a finite number"),
        ("next", {"label": "a", "by": "magic", "who": ""}, 400, "by = 'magic'"),
        ("search", {"label": "unheard"}, 400, "a label with a yes"),
        ("search", {"row": 0, "start": 5, "end": 1}, 400, "start = 5.0"),
        ("rows", {"rows": "x"}, 400, "a list of whole numbers"),
    ],
)
def test_bad_requests_are_one_line(page, session, name, values, status, message):
    answer = page.post(f"/api/{name}", json=values)
    assert answer.status_code == status
    assert message in answer.json()["error"]
    assert session.labels.answers == []


def test_files_outside_the_recordings_are_never_served(page):
    for path in ("/../pyproject.toml", "/api/sound//etc/passwd", "/api/sound/-1"):
        assert page.get(path).status_code in (400, 404)
    assert page.get("/api/sound/99999").status_code == 400


def test_recordings_that_are_gone_or_changed_are_named(tmp_path):
    index = write_collection(tmp_path, recordings=3)
    with opened(index, tmp_path / "l.csv") as session:
        page = TestClient(make_app(session), base_url="http://localhost")
        names = [recording.path for recording in session.index.recordings]
        (tmp_path / "sounds" / names[0]).unlink()
        soundfile.write(names[1], np.zeros(16000), 16000)
        rows = [int(np.flatnonzero(session.index.rows["recording"] == n)[0]) for n in (0, 1)]
        gone, changed = (page.get(f"/api/sound/{row}") for row in rows)
        assert (gone.status_code, changed.status_code) == (404, 404)
        assert f"{names[0]}: is gone since it was indexed" in gone.json()["error"]
        assert "has changed since it was indexed" in changed.json()["error"]


def test_only_this_machine_or_the_token_gets_in(session):
    elsewhere = TestClient(make_app(session), base_url="http://evil.example")
    assert elsewhere.get("/").status_code == 403
    local = TestClient(make_app(session), base_url="http://127.0.0.1")
    form = local.post("/api/undo", content=b'{"who": ""}', headers={"content-type": "text/plain"})
    assert form.status_code == 403
    guarded = TestClient(make_app(session, "secret"), base_url="http://host.example")
    assert guarded.get("/api/state").status_code == 403
    assert guarded.get("/?token=wrong").status_code == 403
    assert guarded.get("/?token=secret").status_code == 200  # redirected, with the cookie
    assert guarded.get("/api/state").status_code == 200


def test_many_answers_at_once_are_all_kept(page, session):
    def many(who):
        for row in range(5):
            post(page, "answer", row=row, label="low", answer="yes", who=who)

    threads = [threading.Thread(target=many, args=(f"person {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = read_table(session.labels.path)
    assert len(rows) == 20
    assert {row["who"] for row in rows} == {f"person {n}" for n in range(4)}
