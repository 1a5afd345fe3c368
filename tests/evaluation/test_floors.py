"""Floors beside scores: the same clips, splits and seeds, and the gain over each."""

from dataclasses import replace

import pytest
from evaluation.made_trials import NAMES, trial
from journeys.three_sounds import (
    LABELS,
    settings,
    write_corpus,
    write_folder,
    write_run,
    write_sound,
)

from melpatch.data.manifest import load_corpus
from melpatch.evaluation.evaluate import evaluate
from melpatch.evaluation.floors import Floor, describe_floor, describe_highest
from melpatch.evaluation.spectrogram_statistics import SpectrogramStatistics
from melpatch.training.run import Run


def test_a_floor_is_described_by_its_score_and_the_gain_over_it():
    ours = trial([True, True, True, False])
    floor = Floor("log-mel statistics", [trial([True, False, False, False])])
    told = describe_floor(floor, [ours], 0.75, NAMES, False, "accuracy")
    assert (told["name"], told["value"], told["gain"]) == ("log-mel statistics", 0.25, 0.5)
    assert told["gain_95"][0] <= 0.5 <= told["gain_95"][1]


def test_a_score_below_its_highest_floor_is_told_with_what_helps():
    record = {
        "protocol": "linear",
        "value": 0.61,
        "floors": [
            {"name": "majority class", "value": 0.1, "gain": 0.51, "gain_95": (0.4, 0.6)},
            {"name": "log-mel statistics", "value": 0.79, "gain": -0.18, "gain_95": (-0.3, -0.1)},
        ],
    }
    sentence = describe_highest(record)
    assert sentence.startswith("linear: 0.610 is below log-mel statistics with 0.790")
    assert "pretraining on sound of this kind; for a frozen encoder fine-tuning" in sentence
    assert "chance" not in sentence
    record["floors"][1]["gain_95"] = (-0.3, 0.01)
    assert "0.610 is below log-mel statistics with 0.790, which may be" in describe_highest(record)
    record["floors"][1]["gain_95"] = None
    assert "chance" not in describe_highest(record)
    assert describe_highest(record | {"value": 0.8, "floors": record["floors"][:1]}) is None
    assert describe_highest(record | {"floors": []}) is None


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Scores of a run with random weights on a corpus with many highs, and its folder."""
    root = tmp_path_factory.mktemp("floors")
    rows = ["path,label,split"]
    for label, count in (("high", 6), ("low", 3), ("noise", 3)):
        for number in range(count):
            write_sound(root / f"{label}{number}.wav", label, 0.5, seed=number)
            split = "test" if number % 3 == 2 else "train"
            rows.append(f"{label}{number}.wav,{label},{split}")
    (root / "corpus.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    run = write_run(root / "run", settings(seconds=0.5))
    return evaluate(run, root / "corpus.csv", ["knn", "linear"], settings={"k": 1}), root


def test_every_score_stands_beside_floors_on_the_same_clips(scored):
    records, _ = scored
    for record in records.values():
        floors = {floor["name"]: floor for floor in record["floors"]}
        assert [*floors] == [
            "majority class",
            "log-mel statistics",
            "MFCC statistics",
            "random weights",
        ]
        # Two of the four test clips are of the class that most training clips have.
        assert floors["majority class"]["value"] == 0.5
        # A tone, another tone and noise are told apart by their spectra.
        assert floors["log-mel statistics"]["value"] == 1.0
        for floor in floors.values():
            assert floor["gain"] == pytest.approx(record["value"] - floor["value"])
            assert floor["gain_95"] is not None
    # The run is at random weights itself, drawn by the same seed.
    assert records["knn"]["floors"][-1]["gain"] == 0.0


def test_floors_are_computed_once(scored, monkeypatch):
    records, root = scored
    heard = []
    summaries = SpectrogramStatistics.summaries

    def count(self, batch, pooling):
        heard.append(len(batch))
        return summaries(self, batch, pooling)

    monkeypatch.setattr(SpectrogramStatistics, "summaries", count)
    again = evaluate(root / "run", root / "corpus.csv", ["knn"], settings={"k": 1})
    assert again["knn"]["floors"] == records["knn"]["floors"]
    assert not heard
    evaluate(
        root / "run", root / "corpus.csv", ["knn"], out=root / "anew", features_dir=root / "empty"
    )
    # All twelve clips once as log-mel spectrograms, and once as cepstra.
    assert sum(heard) == 2 * 12


def test_floors_can_be_left_out(scored):
    _, root = scored
    without = evaluate(root / "run", root / "corpus.csv", ["knn"], floors=False, out=root / "other")
    assert without["knn"]["floors"] == []
    assert not (root / "other" / "knn" / "floors").exists()


def test_a_classifier_stands_beside_floors_that_learn_from_the_other_splits(tmp_path):
    corpus = write_corpus(tmp_path / "sounds")
    # Its classes come in another order than those of the corpus.
    run = write_run(tmp_path / "run", settings(("noise", "low", "high")))
    record = evaluate(run, corpus)["as_trained"]
    floors = {floor["name"]: floor["value"] for floor in record["floors"]}
    assert floors == {
        "majority class": pytest.approx(1 / 3),
        "log-mel statistics": 1.0,
        # One of six test clips is confused.
        "MFCC statistics": pytest.approx(5 / 6),
    }


def test_floors_beside_a_classifier_learn_from_its_own_clips(tmp_path, capsys):
    """Of a class that it was not given, they know as little as it does; the val clips teach neither."""
    source = write_corpus(tmp_path / "sounds")
    run = write_run(tmp_path / "run", settings(LABELS))
    train = load_corpus([source]).select(["train"])
    few = [clip for clip in train.clips if "noise" not in clip.labels]
    Run.reopen(run).remember(replace(train, clips=tuple(few)))
    record = evaluate(run, source)["as_trained"]
    assert "run learn from the 6 clips of sounds/corpus that it was" in capsys.readouterr().err
    floors = {floor["name"]: floor["value"] for floor in record["floors"]}
    assert floors["log-mel statistics"] == pytest.approx(2 / 3)
    # Another corpus, without a clip of the run's, teaches the floors all it can.
    other = write_corpus(tmp_path / "others")
    for path in (tmp_path / "others").rglob("*.wav"):
        write_sound(path, path.parent.name, 0.7, 16000, seed=100 + int(path.stem))
    for path in [*(tmp_path / "others").rglob("*.flac"), *(tmp_path / "others").rglob("*.ogg")]:
        write_sound(path, path.parent.name, 0.8, 16000, seed=200 + int(path.stem))
    floors = {
        floor["name"]: floor["value"] for floor in evaluate(run, other)["as_trained"]["floors"]
    }
    assert floors["log-mel statistics"] == 1.0


def test_without_clips_to_learn_from_there_are_no_floors(tmp_path):
    folder = write_folder(tmp_path / "sounds", per_class=2)
    run = write_run(tmp_path / "run", settings(LABELS))
    record = evaluate(run, folder)["as_trained"]
    assert record["floors"] == []
    assert record["n"] == 6
