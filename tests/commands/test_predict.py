"""``melpatch predict``: one line per recording or window, with times, and the files that could not be read."""

import numpy as np
import pytest
import soundfile
from journeys.three_sounds import (
    LABELS,
    melpatch,
    read_table,
    settings,
    write_folder,
    write_run,
    write_sound,
)

from melpatch.audio import sound_file
from melpatch.cli import main
from melpatch.inference.model import load


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
    assert "none of the 1 files can be read; the first: " in capsys.readouterr().err


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
