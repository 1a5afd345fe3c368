"""``melpatch search``: the nearest stretches, printed and exported."""

import json
from functools import partial

import pytest
from journeys.three_sounds import melpatch, read_table, settings, write_run, write_sound

from melpatch.cli import main
from melpatch.data.answers import Answer, question
from melpatch.search.approximate import build, opened
from melpatch.search.label_file import open_labels


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    run = write_run(folder / "run", settings())
    for label in ("low", "high", "noise"):
        for number in range(3):
            write_sound(folder / "sounds" / label / f"{number}.wav", label, 2.0, seed=number)
    melpatch("index", run, folder / "sounds", "--hop", 0.5, "--out", folder / "index")
    return folder


@pytest.mark.parametrize("label", ["low", "high", "noise"])
def test_what_sounds_alike_comes_first(made, tmp_path, label, capsys):
    query = write_sound(tmp_path / "query.wav", label, seed=9)
    melpatch("search", made / "index", query, "--count", 3, "--per-recording", 1, "--json")
    hits = json.loads(capsys.readouterr().out)
    assert {hit["path"].split("/")[-2] for hit in hits} == {label}
    assert hits == sorted(hits, key=lambda hit: -hit["score"])


def test_a_stretch_of_the_collection_does_not_find_itself(made, tmp_path):
    path = made / "sounds" / "low" / "0.wav"
    out = tmp_path / "hits.csv"
    melpatch("search", made / "index", f"{path}@0.5-1.5", "--count", 100, "--out", out)
    hits = read_table(out)
    own = [hit for hit in hits if hit["path"] == str(path)]
    assert {hit["start"] for hit in own} <= {"0.000", "1.000"} | set()
    assert float(hits[0]["score"]) <= 1
    # It can be read as data, and written again.
    melpatch("search", made / "index", f"{path}@0.5-1.5", "--out", out)
    assert main(["embed", str(made / "run"), str(out), "--out", str(tmp_path / "e.npz")]) == 0


def test_the_table_of_another_is_not_replaced(made, tmp_path, capsys):
    (tmp_path / "mine.csv").write_text("path\n", encoding="utf-8")
    path = made / "sounds" / "low" / "0.wav"
    words = ["search", str(made / "index"), str(path), "--out", str(tmp_path / "mine.csv")]
    assert main(words) == 2
    assert "exists, and was not made by this command" in capsys.readouterr().err


def test_a_label_finds_more_of_its_kind(made, tmp_path, capsys):
    labels = tmp_path / "labels.csv"
    path = made / "sounds" / "noise" / "0.wav"
    with open_labels(labels) as file:
        asked = question(str(path), 0.0, 1.0, "hiss")
        file.add([Answer(asked, "train", "ann", "", "yes")])
    words = ("search", made / "index", "hiss", "--labels", labels, "--per-recording", 1, "--json")
    melpatch(*words)
    first, second, *_ = json.loads(capsys.readouterr().out)
    assert {first["path"], second["path"]} < {
        str(path.with_name(f"{number}.wav")) for number in range(3)
    }
    assert main(["search", str(made / "index"), "hum", "--labels", str(labels)]) == 2
    assert "nor a label; labels: hiss" in capsys.readouterr().err


def test_an_approximate_search_tells_its_recall(made, tmp_path, monkeypatch, capsys):
    pytest.importorskip("usearch", reason="usearch is not installed")
    again = ("index", made / "run", made / "sounds", "--out", made / "index", "--approximate")
    search = ("search", made / "index", made / "sounds" / "low" / "0.wav", "--count", 3, "--json")
    melpatch(*again)
    assert "needs no graph" in capsys.readouterr().err
    melpatch(*search)
    exact = json.loads(capsys.readouterr().out)
    # Graphs of 8 windows.
    monkeypatch.setattr("melpatch.commands.index.build", partial(build, block=8))
    monkeypatch.setattr("melpatch.commands.search.opened", partial(opened, block=8))
    assert main([*map(str, search), "--approximate"]) == 2
    assert "vectors are in no graph; bring it up to date with:" in capsys.readouterr().err
    melpatch(*again)
    assert "graphs for melpatch search --approximate: 1.000 of the nearest 10" in (
        capsys.readouterr().err
    )
    melpatch(*search, "--approximate")
    shown = capsys.readouterr()
    assert "approximate: 1.000 of the nearest 10 and" in shown.err
    assert [hit["start"] for hit in json.loads(shown.out)] == [hit["start"] for hit in exact]
