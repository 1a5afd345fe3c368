"""``melpatch predict``: one line per recording or window, with times, and the files that could not be read."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from journeys import three_sounds
from journeys.three_sounds import (
    LABELS,
    melpatch,
    read_table,
    settings,
    write_folder,
    write_run,
    write_sound,
    write_table,
)

from melpatch.audio import sound_file
from melpatch.cli import main
from melpatch.commands.predict import describe_assigned, describe_unlike
from melpatch.data.clip import Batch
from melpatch.data.manifest import load_corpus
from melpatch.evaluation.novelty import fit_novelty
from melpatch.inference.calibration import Calibration
from melpatch.inference.model import load
from melpatch.inference.table_about import read_about
from melpatch.inference.tasks import recording_predictions


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "classifier", settings(LABELS))


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "sounds", per_class=2)


def test_one_line_per_recording_in_order(classifier, folder, tmp_path, capsys):
    melpatch("predict", classifier, folder, "--out", tmp_path / "out" / "found.csv")
    lines = read_table(tmp_path / "out" / "found.csv")
    assert list(lines[0]) == ["path", "start", "end", "label", "probability", "note", *LABELS]
    assert [line["path"] for line in lines] == sorted(str(path) for path in folder.rglob("*.*"))
    model = load(classifier)
    for line in lines:
        (expected,) = model.predict(line["path"])
        assert {name: float(line[name]) for name in LABELS} == pytest.approx(
            expected.probabilities, abs=1e-5
        )
        assert sum(float(line[name]) for name in LABELS) == pytest.approx(1.0, abs=1e-4)
        assert line["label"] == expected.label
        assert line["probability"] == line[line["label"]]
        assert (float(line["start"]), float(line["end"])) == (
            0.0,
            pytest.approx(expected.end, abs=1e-3),
        )
    assert "6 files done" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("called", "recordings", "told"),
    [
        ([1], 10, "the most probable class is 'low' in all of 10 recordings"),
        ([1], 9, None),
        ([0, 1], 30, "1 of 3 classes is never the most probable one: noise"),
        ([0, 1], 29, None),
        ([0, 1, 2], 30, None),
    ],
)
def test_one_class_for_many_recordings_is_told(called, recordings, told):
    assigned = np.isin(np.arange(3), called)
    sentence = describe_assigned(assigned, LABELS, recordings)
    if told is None:
        assert sentence is None
    else:
        assert told in sentence


@pytest.mark.parametrize(
    ("rows", "unlike", "told"), [(36, 36, True), (36, 19, True), (36, 18, False), (9, 9, False)]
)
def test_rows_like_no_training_clip_are_told(rows, unlike, told):
    sentence = describe_unlike(unlike, rows, 5.0)
    assert (sentence is not None) == told
    if sentence is not None:
        assert f"{unlike} of {rows} rows are like no training clip and have no label" in sentence
        assert "windows last 5 s, and where the labelled clips are shorter" in sentence


def test_what_a_classifier_never_did_on_validation_is_told(folder, tmp_path, capsys):
    run = write_run(tmp_path / "run", settings(LABELS))
    record = {"metrics": {}, "warnings": ["on validation every clip is called 'low'"]}
    (run / "validation.json").write_text(json.dumps(record))
    melpatch("predict", run, folder / "low", "--out", tmp_path / "found.csv")
    assert f"{run}: on validation every clip is called 'low'" in capsys.readouterr().err


def test_an_unfinished_training_is_told(folder, tmp_path, capsys):
    config = settings(LABELS)
    config = replace(config, train=replace(config.train, steps=120))
    run = write_run(tmp_path / "run", config)
    words = ("predict", run, folder / "low", "--out")
    melpatch(*words, tmp_path / "kept.csv")  # a probe that was kept made no step
    (run / "speed.jsonl").write_text('{"step": 40}\n')
    assert "is unfinished" not in capsys.readouterr().err
    melpatch(*words, tmp_path / "early.csv")
    assert (
        f"{run} is unfinished: these are its weights after step 40 of 120 or before; to finish it, "
        "run the command that started it with --resume"
    ) in capsys.readouterr().err
    (run / "speed.jsonl").write_text('{"step": 120}\n')
    melpatch(*words, tmp_path / "done.csv")
    assert "is unfinished" not in capsys.readouterr().err


def test_windows_of_a_long_recording_have_their_times(classifier, tmp_path):
    path = write_sound(tmp_path / "long.wav", seconds=3.2)
    melpatch("predict", classifier, path, "--hop", "0.5", "--out", tmp_path / "found.csv")
    times = [
        (float(line["start"]), float(line["end"])) for line in read_table(tmp_path / "found.csv")
    ]
    assert times == [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0), (1.5, 2.5), (2.0, 3.0), (2.5, 3.2)]


def test_labels_above_the_threshold_count_where_there_may_be_several(tmp_path):
    run = write_run(tmp_path / "run", settings(LABELS, multi_label=True))
    path = write_sound(tmp_path / "a.wav")
    (probabilities,) = [one.probabilities for one in load(run).predict(path)]
    between = sorted(probabilities.values())[1] - 1e-4
    for threshold, expected in (
        (0, LABELS),
        (between, [n for n in LABELS if probabilities[n] >= between]),
        (1, ()),
    ):
        melpatch("predict", run, path, "--threshold", threshold, "--out", tmp_path / "found.csv")
        (line,) = read_table(tmp_path / "found.csv")
        assert line["label"] == ";".join(expected)
        assert float(line["probability"]) == pytest.approx(max(probabilities.values()), abs=1e-5)


def test_files_that_cannot_be_read_are_named_beside(classifier, folder, tmp_path, capsys):
    (folder / "bad.wav").write_bytes(b"RIFF, but no more")
    melpatch("predict", classifier, folder, "--out", tmp_path / "found.csv")
    assert len(read_table(tmp_path / "found.csv")) == 6
    (bad,) = read_table(tmp_path / "found.rejected.csv")
    assert bad["path"].endswith("bad.wav")
    assert bad["reason"]
    assert "1 of 7 files cannot be read" in capsys.readouterr().err


def test_windows_before_the_damage_are_kept(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(sound_file, "_BLOCK", 8000)
    path = write_sound(tmp_path / "a.flac", "noise", 4.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    melpatch(
        "predict",
        classifier,
        path,
        "--hop",
        "0.5",
        "--workers",
        "0",
        "--out",
        tmp_path / "found.csv",
    )
    assert [float(line["start"]) for line in read_table(tmp_path / "found.csv")][:2] == [0.0, 0.5]
    (bad,) = read_table(tmp_path / "found.rejected.csv")
    assert bad["path"] == str(path)


def test_salvage_labels_the_sound_before_the_damage(classifier, tmp_path, capsys):
    path = write_sound(tmp_path / "a.flac", "noise", 4.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    whole = write_sound(tmp_path / "b.flac", "noise", 1.0)
    for command in ("predict", "embed"):
        out = tmp_path / f"{command}.csv"
        melpatch(command, classifier, path, whole, "--out", out)
        assert len(read_table(out)) == 1
        melpatch(command, classifier, path, whole, "--salvage", "--out", out)
        assert len(read_table(out)) == 2
        (bad,) = read_table(out.with_suffix(".rejected.csv"))
        assert "breaks off after" in bad["reason"]
        kept = float(bad["reason"].rpartition("the first ")[2].partition(" s are kept")[0])
        assert kept == pytest.approx(2.0, abs=0.4)
    damaged, _ = read_table(tmp_path / "predict.csv")
    assert float(damaged["end"]) == pytest.approx(kept, abs=0.01)


@pytest.mark.parametrize("hop", [(), ("--hop", "1")])
def test_silence_is_marked(classifier, tmp_path, hop):
    """Sound, then silence with the noise of 16 bits and an offset, then nothing but zeros."""
    noise = np.random.default_rng(0).uniform(-1, 1, 16_000)
    offset = 0.2 + np.round(noise) / 2**15
    for name, wave in {
        "sound": noise / 10,
        "silent": offset,
        "zeros": 0 * noise,
        "both": np.concatenate([noise / 10, offset]),
    }.items():
        soundfile.write(tmp_path / f"{name}.wav", wave, 16_000, subtype="PCM_24")
    paths = [tmp_path / f"{name}.wav" for name in ("sound", "silent", "zeros", "both")]
    melpatch("predict", classifier, *paths, *hop, "--out", tmp_path / "found.csv")
    notes = [line["note"] for line in read_table(tmp_path / "found.csv")]
    assert notes == ["", "silent", "silent", *(("", "silent") if hop else ("",))]
    model = load(classifier)
    assert [model.predict(path)[0].silent for path in paths] == [False, True, True, False]
    assert model.predict(offset, sample_rate=16_000)[0].silent


def test_a_file_whose_name_begins_with_a_dash(classifier, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_sound(tmp_path / "-a.wav")
    assert main(["predict", str(classifier), "-a.wav", "--out", "found.csv"]) == 2
    assert "write './-a.wav' for the file of this name" in capsys.readouterr().err
    melpatch("predict", classifier, "./-a.wav", "--out", "found.csv")
    assert len(read_table(tmp_path / "found.csv")) == 1


def test_npz_and_parquet_say_the_same(classifier, folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for ending in ("csv", "parquet", "npz"):
        melpatch("predict", classifier, folder, "--out", tmp_path / f"f.{ending}")
    lines, table = (
        read_table(tmp_path / "f.csv"),
        parquet.read_table(tmp_path / "f.parquet").to_pydict(),
    )
    assert [*table] == [*lines[0]]
    with np.load(tmp_path / "f.npz") as found:
        assert found["labels"].tolist() == [*LABELS]
        for number, line in enumerate(lines):
            assert line["label"] == table["label"][number] == found["label"][number]
            for place, name in enumerate(LABELS):
                assert float(line[name]) == pytest.approx(
                    found["probabilities"][number, place], rel=1e-5
                )
                assert table[name][number] == found["probabilities"][number, place]


def test_nothing_readable_is_exit_code_2(classifier, tmp_path, capsys):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF, but no more")
    assert main(["predict", str(classifier), str(bad), "--out", str(tmp_path / "found.csv")]) == 2
    assert "none of 1 file can be read; the first: " in capsys.readouterr().err


def test_a_pretrained_run_is_exit_code_2_with_advice(folder, tmp_path, capsys):
    run = write_run(tmp_path / "run", settings())
    assert main(["predict", str(run), str(folder), "--out", str(tmp_path / "found.csv")]) == 2
    assert f"melpatch finetune --init {run}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing.wav",), "nothing.wav: no such file or folder"),
        ((), "name files, or folders that hold some"),
        (("nothing.wav", "--hop", "0"), "--hop 0.0; allowed: seconds above 0"),
        (("nothing.wav", "--threshold", "2"), "--threshold 2.0; allowed: 0 to 1"),
    ],
)
def test_what_cannot_be_predicted_is_exit_code_2(classifier, words, message, tmp_path, capsys):
    assert main(["predict", str(classifier), *words, "--out", str(tmp_path / "found.csv")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "found.csv").exists()


def test_what_is_written_is_read_back_by_every_command(classifier, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    melpatch("predict", classifier, "sounds", "--hop", "0.5", "--out", "p/windows.csv")
    melpatch("embed", classifier, "p/windows.csv", "--out", "e/windows.npz")
    melpatch("pack", "p/windows.csv", "--out", "shards", "--workers", "0")
    melpatch("predict", classifier, "shards", "--out", "p/packed.csv")
    melpatch("predict", classifier, "p/packed.csv", "--hop", "0.5", "--out", "p/again.parquet")
    windows = load_corpus(["p/windows.csv"])
    with np.load("e/windows.npz") as found:
        assert len(found["path"]) == len(windows.clips) > 6
        np.testing.assert_allclose(found["start"], [clip.start for clip in windows.clips])
    for name in ("e/windows.npz", "p/packed.csv", "p/again.parquet"):
        again = load_corpus([name])
        assert sorted(clip.duration for clip in again.clips) == pytest.approx(
            sorted(clip.duration for clip in windows.clips), abs=1e-6
        )
        assert not again.rejected


def test_outputs_of_others_and_inputs_are_kept(classifier, folder, tmp_path, capsys):
    listed = write_table(tmp_path / "list.csv", ("path", "label"), [("sounds/low/0.wav", "x")])
    before = listed.read_bytes()
    words = ["predict", str(classifier), str(listed), "--out"]
    for flags in ([], ["--overwrite"]):
        assert main([*words, str(listed), *flags]) == 2
        assert f"{listed}: is an input" in capsys.readouterr().err
    assert main(["predict", str(classifier), str(folder), "--out", str(listed)]) == 2
    assert "exists, and was not made by this command" in capsys.readouterr().err
    assert listed.read_bytes() == before
    out = tmp_path / "out.csv"
    for _ in range(2):
        assert main([*words, str(out)]) == 0
    (line,) = read_table(out)
    # A label that someone corrected is kept too.
    other = next(label for label in LABELS if label != line["label"])
    out.write_text(out.read_text().replace(f",{line['label']},", f",{other},", 1))
    assert main([*words, str(out)]) == 2
    assert main([*words, str(out), "--overwrite"]) == 0


@pytest.mark.parametrize("ending", ["csv", "npz", "parquet"])
def test_a_table_tells_its_classes_and_how_labels_were_given(folder, ending, tmp_path):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    run = write_run(tmp_path / "run", settings(LABELS))
    table = tmp_path / f"p.{ending}"
    melpatch("predict", run, folder, "--hop", "0.5", "--out", table)
    facts = read_about(table)
    assert (facts["run"], facts["command"], facts["hop"]) == (str(run), "predict", 0.5)
    assert facts["labels"] == [*LABELS]
    assert facts["calibration"] is None
    assert facts["threshold_rule"] == "the most probable class"
    bare = facts["model"]
    calibrated(run)
    melpatch("predict", run, folder, "--threshold", "0.25", "--out", table)
    facts = read_about(table)
    assert facts["calibration"]["temperature"] == 2.0
    assert (facts["threshold_rule"], facts["thresholds"]) == (
        "the same for all classes",
        [0.25] * 3,
    )
    assert facts["false_alarms"] == 0.05
    assert facts["model"] != bare


def test_lists_beside_two_outputs_of_one_stem_are_both_kept(classifier, folder, tmp_path):
    (folder / "bad.wav").write_bytes(b"RIFF")
    melpatch("embed", classifier, folder, "--out", tmp_path / "a.npz")
    table = write_table(tmp_path / "list.csv", ("path",), [("sounds/low/0.wav",), ("gone.wav",)])
    melpatch("predict", classifier, table, "--out", tmp_path / "a.csv")
    melpatch("predict", classifier, folder / "low", "--out", tmp_path / "a.csv")
    (bad,) = read_table(tmp_path / "a.rejected.csv")
    assert bad["path"].endswith("bad.wav")
    assert not (tmp_path / "a.csv.rejected.csv").exists()


def test_malformed_lines_are_listed_and_the_rest_is_predicted(classifier, folder, tmp_path):
    rows = [("sounds/low/0.wav", "0"), ("sounds/low/1.wav", "soon")]
    table = write_table(tmp_path / "list.csv", ("path", "start"), rows)
    melpatch("predict", classifier, table, "--out", tmp_path / "p.csv")
    assert len(read_table(tmp_path / "p.csv")) == 1
    (bad,) = read_table(tmp_path / "p.rejected.csv")
    assert bad["path"] == f"{table}, line 3"


def test_a_class_may_be_called_as_a_column(folder, tmp_path):
    names = ("Fold", "path", "probability")
    run = write_run(tmp_path / "run", settings(names))
    for ending in ("csv", "npz"):
        melpatch("predict", run, folder, "--out", tmp_path / f"p.{ending}")
    lines = read_table(tmp_path / "p.csv")
    assert list(lines[0])[-3:] == [
        "probability:Fold",
        "probability:path",
        "probability:probability",
    ]
    assert lines[0]["path"].endswith(".wav")
    assert lines[0]["label"] in names
    corpus = load_corpus([tmp_path / "p.csv"])
    assert [*corpus.splits] == [""]
    with np.load(tmp_path / "p.npz") as found:
        assert tuple(found["labels"]) == names


def calibrated(run, *, thresholds=None, seeds=range(20)):
    """Calibrate a run as if sounds of its classes had been its training and validation clips."""
    model = load(run)
    function, new_total = recording_predictions(model.network, with_vectors=True)
    rows = []
    for seed in seeds:
        for label in LABELS:
            samples = torch.from_numpy(three_sounds.wave(label, seed=seed)).float()
            batch = Batch(samples[None], torch.tensor([16000]), torch.tensor([seed]))
            total = new_total()
            total.add(function(batch)[0], 1.0)
            rows.append(total.result()[len(LABELS) :])
    vectors = np.stack(rows)
    novelty = fit_novelty(vectors[::2], vectors[1::2])
    multi_label = model.objective.config.multi_label
    Calibration(multi_label, 2.0, len(vectors) // 2, thresholds, "made up", novelty).save(run)
    return load(run)


def test_a_calibrated_run_predicts_with_its_temperature_and_tells_what_is_none_of_these(
    tmp_path, capsys
):
    run = write_run(tmp_path / "run", settings(LABELS))
    before = load(run)
    model = calibrated(run)
    sounds = [write_sound(tmp_path / f"{label}.wav", label, seed=99) for label in LABELS]
    odd = tmp_path / "silence.wav"
    soundfile.write(odd, np.zeros(16000), 16000)
    melpatch("predict", run, *sounds, odd, "--out", tmp_path / "found.csv")
    lines = read_table(tmp_path / "found.csv")
    columns = ["path", "start", "end", "label", "probability", "novelty", "note", *LABELS]
    assert list(lines[0]) == columns
    for line in lines:
        (mine,) = model.predict(line["path"])
        (raw,) = before.predict(line["path"])
        values = [float(line[name]) for name in LABELS]
        assert values == pytest.approx([*mine.probabilities.values()], abs=1e-4)
        rooted = np.sqrt([*raw.probabilities.values()])  # a temperature of 2
        assert values == pytest.approx(rooted / rooted.sum(), abs=1e-4)
        assert float(line["novelty"]) == pytest.approx(mine.novelty, abs=1e-3)
        assert raw.novelty is None
        unknown = float(line["novelty"]) >= 0.95
        assert line["label"] == ("" if unknown else mine.label)
    assert lines[-1]["note"] == "silent; none of these"
    words = ["--out", tmp_path / "found.csv", "--false-alarms", "0"]
    melpatch("predict", run, odd, *words)
    assert read_table(tmp_path / "found.csv")[0]["note"] == "silent"
    # Windows have a novelty each.
    melpatch("predict", run, odd, "--hop", "0.5", "--out", tmp_path / "found.csv")
    for line in read_table(tmp_path / "found.csv")[:1]:
        assert line["note"] == "silent; none of these"
    assert "like no training clip" not in capsys.readouterr().err
    soundfile.write(odd, np.zeros(16000 * 8), 16000)
    melpatch("predict", run, odd, "--hop", "0.5", "--out", tmp_path / "long.csv")
    rows = len(read_table(tmp_path / "long.csv"))
    assert f"{rows} of {rows} rows are like no training clip" in capsys.readouterr().err


def test_too_few_validation_clips_for_the_false_alarms_are_told(tmp_path, capsys):
    run = write_run(tmp_path / "run", settings(LABELS))
    calibrated(run, seeds=range(6))
    odd = tmp_path / "silence.wav"
    soundfile.write(odd, np.zeros(16000), 16000)
    melpatch("predict", run, odd, "--out", tmp_path / "found.csv")
    told = " ".join(capsys.readouterr().err.split())
    assert "was calibrated on 9 clips, and --false-alarms 0.05 needs 19" in told
    assert read_table(tmp_path / "found.csv")[0]["note"] == "silent"
    melpatch("predict", run, odd, "--false-alarms", "0.1", "--out", tmp_path / "found.csv")
    assert "needs" not in capsys.readouterr().err


@pytest.mark.parametrize("multi_label", [False, True])
def test_thresholds_of_the_run_are_used_unless_one_is_given(tmp_path, multi_label):
    run = write_run(tmp_path / "run", settings(LABELS, multi_label=multi_label))
    path = write_sound(tmp_path / "a.wav")
    probabilities = calibrated(run).predict(path)[0].probabilities
    best = max(probabilities, key=probabilities.get)
    words = ("predict", run, path, "--false-alarms", "0", "--out", tmp_path / "found.csv")

    def label(*more):
        melpatch(*words, *more)
        return read_table(tmp_path / "found.csv")[0]["label"]

    reached = [probabilities[name] - 1e-3 for name in LABELS]
    missed = [2.0 if name == best else probabilities[name] + 1e-3 for name in LABELS]
    calibrated(run, thresholds=np.array(reached, np.float32))
    assert label() == (";".join(LABELS) if multi_label else best)
    calibrated(run, thresholds=np.array(missed, np.float32))
    assert label() == ""
    assert best in label("--threshold", "0").split(";")
