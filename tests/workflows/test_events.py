"""``melpatch predict --events``: from a recording to events, in every format, and their scores."""

import csv

import numpy as np
import pytest
import soundfile
from journeys.three_sounds import LABELS, melpatch, read_table, settings, write_run, write_table
from pyarrow import parquet

from melpatch.cli import main
from melpatch.data.manifest import load_corpus
from melpatch.inference.events import Event, EventRule
from melpatch.inference.model import load
from melpatch.inference.table_about import read_about
from melpatch.workflows.events import events_in, score_events, write_events

HOP = 0.5


@pytest.fixture
def table(tmp_path):
    """Predictions for two recordings: windows of 1 s, of which those in the middle are of class high."""
    rows = []
    for path in ("one.wav", "two.wav"):
        for number in range(9):
            p = 0.9 if 3 <= number <= 5 and path == "one.wav" else 0.05
            note = "silent" if path == "two.wav" else ""
            times = [f"{number * HOP:.3f}", f"{number * HOP + 1:.3f}"]
            rows.append([path, *times, "", 0, note, p, 0.95 - p, 0.05])
    heads = ("path", "start", "end", "label", "probability", "note", *LABELS)
    return write_table(tmp_path / "p.csv", heads, rows)


def test_events_are_read_from_the_table_of_windows(table):
    events = events_in(table, LABELS, np.array([0.6, 2, 2]), HOP, EventRule(release=1.0))
    assert {path: [event[:3] for event in own] for path, own in events.items()} == {
        "one.wav": [(2.0, 3.0, "high")],
        "two.wav": [],
    }


def test_a_window_with_a_note_has_no_event(table):
    events = events_in(table, LABELS, np.full(3, 0.5), HOP, EventRule())
    assert {event.label for event in events["one.wav"]} == {"high", "low"}
    assert events["two.wav"] == []


def write_scene(path):
    path.parent.mkdir(exist_ok=True)
    wave = 0.1 * np.random.default_rng(0).normal(size=6 * 16000)
    soundfile.write(path, wave, 16000)
    return path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "classifier", settings(LABELS))


def test_the_command_writes_every_format_and_scores(classifier, tmp_path, capsys):
    sound = write_scene(tmp_path / "scene.wav")
    # Untrained probabilities are nearly alike: the threshold lies between the first and the second.
    answers = load(classifier).predict(sound, hop=HOP)
    ranked = np.sort([[*answer.probabilities.values()] for answer in answers], axis=1)
    threshold = (ranked[:, -1].max() + ranked[:, -2].max()) / 2
    words = ("predict", classifier, sound, "--hop", HOP, "--threshold", threshold)
    truth = write_table(
        tmp_path / "truth.csv", ("path", "start", "end", "label"), [(sound, 0, 6, "low")]
    )
    melpatch(
        *words, "--out", tmp_path / "p.csv", "--events", tmp_path / "e.csv", "--true-events", truth
    )
    events = read_table(tmp_path / "e.csv")
    assert events
    assert list(events[0]) == ["path", "start", "end", "label", "score"]
    assert all(float(event["score"]) >= threshold for event in events)
    shown = capsys.readouterr()
    assert f"{len(events)} event" in shown.err
    assert "all events" in shown.out
    # What was written is read back as labelled stretches, from all three.
    plain = {(c.start, c.duration, c.labels) for c in load_corpus([tmp_path / "e.csv"]).clips}
    for program, ending in (("raven", ".Table.1.selections.txt"), ("audacity", ".txt")):
        out = tmp_path / program
        melpatch(
            *(*words, "--out", tmp_path / f"{program}.csv"),
            *("--events", out, "--events-for", program),
        )
        (file,) = out.iterdir()
        assert file.name == f"scene{ending}"
        if program == "audacity":
            (tmp_path / file.name).write_bytes(file.read_bytes())
            file = tmp_path / file.name
        clips = load_corpus([file]).clips
        assert {(c.start, c.duration, c.labels) for c in clips} == plain


@pytest.mark.parametrize("ending", [".csv", ".npz", ".parquet"])
def test_frames_and_events_are_the_same_from_tables_of_every_format(classifier, tmp_path, ending):
    sounds = [write_scene(tmp_path / "sounds" / f"{name}.wav") for name in "ab"]
    silent = 0.1 * np.sin(np.arange(16000)) * (np.arange(16000) < 0)
    soundfile.write(tmp_path / "sounds" / "c.wav", silent, 16000)
    words = ("predict", classifier, tmp_path / "sounds", "--hop", HOP, "--threshold", 0.34)
    for name in (".csv", ending):
        out = tmp_path / f"windows{name}"
        files = ("--events", tmp_path / f"e{name}.csv", "--frames", tmp_path / f"frames{name}")
        for _ in range(2):
            melpatch(*words, "--out", out, *files)
    assert read_table(tmp_path / f"e{ending}.csv") == read_table(tmp_path / "e.csv.csv")
    facts = read_about(tmp_path / f"frames{ending}")
    assert facts == read_about(tmp_path / f"windows{ending}") | {"command": "predict --frames"}
    assert (facts["hop"], facts["labels"]) == (HOP, [*LABELS])
    expected = read_table(tmp_path / "frames.csv")
    assert list(expected[0]) == ["path", "start", "end", *LABELS]
    own = [row for row in expected if row["path"] == str(sounds[0])]
    assert [float(row["start"]) for row in own] == [HOP * number for number in range(12)]
    first = load(classifier).predict(sounds[0], hop=HOP)[0].probabilities
    for label, value in first.items():  # only the first window covers the first frame
        assert float(own[0][label]) == pytest.approx(value, abs=1e-4)
    if ending == ".npz":
        with np.load(tmp_path / "frames.npz") as frames:
            assert frames["labels"].tolist() == list(LABELS)
            scores = frames["probabilities"]
            times = frames["start"].tolist()
    else:
        rows = expected
        if ending == ".parquet":
            rows = parquet.read_table(tmp_path / "frames.parquet").to_pylist()
        scores = [[float(row[label]) for label in LABELS] for row in rows]
        times = [float(row["start"]) for row in rows]
    assert times == [float(row["start"]) for row in expected]
    np.testing.assert_allclose(
        scores, [[float(row[label]) for label in LABELS] for row in expected], atol=1e-5
    )


def test_frames_that_were_changed_are_kept(classifier, tmp_path, capsys):
    sound = write_scene(tmp_path / "scene.wav")
    words = ["predict", classifier, sound, "--hop", HOP, "--out", tmp_path / "p.csv"]
    words += ["--frames", tmp_path / "f.csv"]
    melpatch(*words)
    with (tmp_path / "f.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["mine"])
    assert main([*map(str, words)]) == 2
    assert "--frames" in capsys.readouterr().err


@pytest.mark.parametrize("program", ["csv", "raven", "audacity"])
def test_events_of_several_labels_at_once_are_read_back_as_one_stretch(tmp_path, program):
    sound = write_scene(tmp_path / "scene.wav")
    events = [Event(1, 2, "high", 0.9), Event(1, 2, "low", 0.8), Event(1, 3, "low", 0.7)]
    out = tmp_path / ("events.csv" if program == "csv" else "events")
    write_events({str(sound): events}, out, program)
    if program != "csv":
        (out,) = out.iterdir()
    if program == "audacity":
        out = out.rename(tmp_path / out.name)
    clips = load_corpus([out]).clips
    assert [(c.start, c.duration, c.labels) for c in clips] == [
        (1.0, 1.0, ("high", "low")),
        (1.0, 2.0, ("low",)),
    ]


def test_what_was_found_is_scored_against_stretches(tmp_path):
    sound = write_scene(tmp_path / "scene.wav")
    truth = write_table(
        tmp_path / "truth.csv",
        ("path", "start", "end", "label"),
        [("scene.wav", 1, 2, "low"), (write_scene(tmp_path / "other.wav"), 0, 1, "low")],
    )
    scores = score_events({str(sound): [Event(1.1, 2.1, "low", 0.9)]}, [str(truth)], LABELS)
    assert scores["micro"] == {
        "true": 1,
        "guessed": 1,
        "right": 1,
        "precision": 1.0,
        "recall": 1.0,
        "F1": 1.0,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--events", "e.csv"], "--events is given but --hop is not"),
        (["--frames", "f.csv"], "--frames is given but --hop is not"),
        (["--true-events", "t.csv"], "--true-events is given but --events is not"),
        (["--events", "e.csv", "--hop", "0.5", "--event-release", "2"], "--event-release"),
        (["--events", "e.csv", "--hop", "0.5", "--event-gap", "-1"], "--event-gap"),
        (["--events", "e.csv", "--hop", "9"], "at most 1 s"),
    ],
)
def test_flags_that_do_not_fit_are_named(classifier, tmp_path, monkeypatch, words, message, capsys):
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path / "scene.wav")
    assert main(["predict", str(classifier), "scene.wav", "--out", "p.csv", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "p.csv").exists()


def test_a_file_of_events_that_was_changed_is_kept(classifier, tmp_path, capsys):
    sound = write_scene(tmp_path / "scene.wav")
    words = ["predict", classifier, sound, "--hop", HOP, "--threshold", 0.2]
    words += ["--out", tmp_path / "p.csv", "--events", tmp_path / "e.csv"]
    melpatch(*words)
    melpatch(*words)
    with (tmp_path / "e.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["mine"])
    assert main([*map(str, words)]) == 2
    assert "--events" in capsys.readouterr().err
