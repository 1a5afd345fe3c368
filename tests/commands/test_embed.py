"""``melpatch embed``: vectors with the paths, and with a hop the times, that they stand for."""

import json
import re

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
    write_table,
)

import melpatch as package
from melpatch.audio import sound_file
from melpatch.cli import main
from melpatch.data.manifest import load_corpus
from melpatch.inference.calibration import Calibration
from melpatch.inference.jobs import hash_of_run
from melpatch.inference.model import load
from melpatch.inference.table_about import read_about


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "pretrained", settings())


COLUMN = 2 * (16 + 2 * 16)
"""Numbers of a column: two rows of tokens of 16 channels, with mean and deviation of 16 mel bins."""


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "sounds", per_class=2)


def test_one_vector_per_recording_in_order(run, folder, tmp_path):
    melpatch("embed", run, folder, "--out", tmp_path / "out" / "found.npz")
    with np.load(tmp_path / "out" / "found.npz") as found:
        assert sorted(found) == ["about", "embeddings", "path"]
        assert found["path"].tolist() == sorted(str(path) for path in folder.rglob("*.*"))
        assert found["embeddings"].shape == (6, 3 * COLUMN)
        assert found["embeddings"].dtype == np.float32
        model = load(run)
        for path, vector in zip(found["path"], found["embeddings"], strict=True):
            np.testing.assert_allclose(vector, model.embed(str(path)), atol=1e-5)


def test_frames_have_their_times(run, folder, tmp_path):
    melpatch(
        "embed",
        run,
        folder,
        write_sound(tmp_path / "z.wav", seconds=2.3),
        "--hop",
        "0.5",
        "--out",
        tmp_path / "f",
    )
    with np.load(tmp_path / "f") as found:
        assert sorted(found) == ["about", "embeddings", "end", "path", "start"]
        rows = len(found["path"])
        assert (found["embeddings"].shape, found["start"].shape, found["end"].shape) == (
            (rows, COLUMN),
            (rows,),
            (rows,),
        )
        last = found["path"] == str(tmp_path / "z.wav")
        assert found["start"][last].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
        assert found["end"][last].tolist() == [0.5, 1.0, 1.5, 2.0, 2.3]
        expected = load(run).embed(tmp_path / "z.wav", hop=0.5)
        np.testing.assert_allclose(found["embeddings"][last], expected.vectors, atol=1e-5)


def test_pooling_and_layer_are_passed_on(run, folder, tmp_path):
    melpatch("embed", run, folder, "--pooling", "cls", "--layer", "0", "--out", tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as found:
        expected = load(run).embed(str(found["path"][0]), pooling="cls", layer=0)
        np.testing.assert_allclose(found["embeddings"][0], expected, atol=1e-5)


def test_a_classifier_embeds_with_its_own_pooling(folder, tmp_path):
    run = write_run(tmp_path / "run", settings(LABELS, pooling="mean"))
    melpatch("embed", run, folder, "--out", tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as found:
        assert found["embeddings"].shape == (6, 16)


def test_a_table_tells_what_its_vectors_are(run, folder, tmp_path):
    melpatch("embed", run, folder, "--layer", "-1", "--out", tmp_path / "f.npz")
    pooling = "rows+mean+std+delta+input+layers=2"
    with np.load(tmp_path / "f.npz") as table:
        assert json.loads(str(table["about"])) == {
            "run": str(run),
            "melpatch": package.__version__,
            "command": "embed",
            "model": hash_of_run(run, load(run), with_calibration=False),
            "hop": None,
            "pooling": pooling,
            "layer": -1,
            "salvage": False,
            "precision": "32-true",
            "sample_rate": 16000,
            "channel": "mean",
            "window": 1.0,
            "spelling": pooling,
            "dim": 3 * COLUMN,
        }
        assert table["embeddings"].shape == (6, 3 * COLUMN)


@pytest.mark.parametrize(
    ("flags", "pooling"),
    [
        ([], "rows+mean+input"),
        (["--pooling", "mean"], "mean"),
        (["--precision", "bf16-mixed"], "rows+mean+input"),
    ],
)
def test_a_table_of_frames_tells_their_pooling_and_length(run, folder, flags, pooling, tmp_path):
    melpatch("embed", run, folder, "--hop", "0.5", *flags, "--out", tmp_path / "f.npz")
    facts = read_about(tmp_path / "f.npz")
    assert (facts["pooling"], facts["hop"], facts["window"]) == (pooling, 0.5, 1.0)
    assert facts["precision"] == ("bf16-mixed" if "bf16-mixed" in flags else "32-true")


def test_calibration_is_no_part_of_what_a_vector_is(folder, tmp_path):
    run = write_run(tmp_path / "run", settings(LABELS))
    for name in ("before.npz", "after.npz"):
        melpatch("embed", run, folder, "--out", tmp_path / name)
        Calibration(False, 2.0, 40).save(run)
    assert (tmp_path / "before.npz").read_bytes() == (tmp_path / "after.npz").read_bytes()


def test_a_file_of_others_is_not_written_over_by_what_lies_beside_a_csv_file(
    run, folder, tmp_path, capsys
):
    beside = tmp_path / "f.csv.about.json"
    beside.write_text("mine", encoding="utf-8")
    words = ["embed", str(run), str(folder), "--out", str(tmp_path / "f.csv")]
    assert main(words) == 2
    assert f"beside --out {beside}: exists, and was not made by" in capsys.readouterr().err
    assert beside.read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "f.csv").exists()
    assert main([*words, "--overwrite"]) == 0
    first = beside.read_bytes()
    assert main(words) == 0
    assert beside.read_bytes() == first


def test_files_that_cannot_be_read_are_named_beside(run, folder, tmp_path):
    (folder / "bad.wav").write_bytes(b"RIFF, but no more")
    melpatch("embed", run, folder, "--out", tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as found:
        assert len(found["path"]) == 6
    assert [line["path"] for line in read_table(tmp_path / "f.rejected.csv")] == [
        str(folder / "bad.wav")
    ]


def test_nothing_readable_is_exit_code_2_and_no_file(run, tmp_path, capsys):
    (tmp_path / "bad.wav").write_bytes(b"RIFF, but no more")
    assert (
        main(["embed", str(run), str(tmp_path / "bad.wav"), "--out", str(tmp_path / "f.npz")]) == 2
    )
    assert "none of 1 file can be read; the first: " in capsys.readouterr().err
    assert not (tmp_path / "f.npz").exists()


def test_what_was_heard_before_the_damage_is_not_embedded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sound_file, "_BLOCK", 8000)
    path = write_sound(tmp_path / "a.flac", "noise", 4.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    write_sound(tmp_path / "b.wav")
    melpatch(
        "embed",
        run,
        path,
        tmp_path / "b.wav",
        "--hop",
        "0.5",
        "--workers",
        "0",
        "--out",
        tmp_path / "f.npz",
    )
    with np.load(tmp_path / "f.npz") as found:
        assert set(found["path"]) == {str(tmp_path / "b.wav")}
    (bad,) = read_table(tmp_path / "f.rejected.csv")
    assert "breaks off" in bad["reason"] or "truncated" in bad["reason"]


def test_csv_and_parquet_say_the_same(run, folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for ending in ("csv", "parquet", "npz"):
        melpatch("embed", run, folder, "--hop", "0.5", "--out", tmp_path / f"f.{ending}")
    lines, table = (
        read_table(tmp_path / "f.csv"),
        parquet.read_table(tmp_path / "f.parquet").to_pydict(),
    )
    with np.load(tmp_path / "f.npz") as found:
        facts = [read_about(tmp_path / f"f.{ending}") for ending in ("csv", "parquet", "npz")]
        assert facts[0] == facts[1] == facts[2]
        assert facts[0]["dim"] == COLUMN
        assert [line["path"] for line in lines] == table["path"] == found["path"].tolist()
        assert table["start"] == found["start"].tolist()
        np.testing.assert_array_equal(
            np.array(table["embeddings"], np.float32), found["embeddings"]
        )
        cells = np.array(
            [[line[f"embeddings_{n}"] for n in range(COLUMN)] for line in lines], np.float32
        )
        np.testing.assert_array_equal(cells, found["embeddings"])


def test_clips_of_a_csv_are_rows_with_key_and_times(run, tmp_path):
    path = write_sound(tmp_path / "a.wav", "noise", 3.0)
    table = write_table(
        tmp_path / "clips.csv",
        ("path", "start", "duration", "key"),
        [("a.wav", 0, 1.0, 5), ("a.wav", 1.5, 1.2, 6)],
    )
    melpatch("embed", run, table, "--out", tmp_path / "f.npz")
    wave, model = soundfile.read(path, dtype="float32")[0], load(run)
    with np.load(tmp_path / "f.npz") as found:
        assert (found["key"].tolist(), found["path"].tolist()) == ([5, 6], [str(path)] * 2)
        np.testing.assert_allclose([found["start"], found["end"]], [[0, 1.5], [1.0, 2.7]])
        for vector, piece in zip(
            found["embeddings"], (wave[:16000], wave[24000:43200]), strict=True
        ):
            np.testing.assert_allclose(vector, model.embed(piece, 16000), atol=1e-5)


def test_shards_are_embedded_as_the_files_they_were_packed_of(run, tmp_path):
    for number in range(3):
        write_sound(tmp_path / "sounds" / f"{number}.wav", "noise", 0.5 + number, seed=number)
    melpatch("pack", tmp_path / "sounds", "--out", tmp_path / "shards", "--workers", "0")
    for source in ("sounds", "shards"):
        melpatch(
            "embed", run, tmp_path / source, "--out", tmp_path / f"{source}.npz", "--workers", "1"
        )
    with np.load(tmp_path / "sounds.npz") as files, np.load(tmp_path / "shards.npz") as shards:
        assert sorted(shards["key"].tolist()) == sorted(
            load_corpus([tmp_path / "shards"]).clips[n].key for n in range(3)
        )
        assert all("shard-000000.tar[" in path for path in shards["path"])
        np.testing.assert_allclose(
            sorted(shards["embeddings"].tolist()), sorted(files["embeddings"].tolist()), atol=1e-5
        )


def test_what_is_told_in_the_end_has_hours_and_rate(run, folder, tmp_path, capsys):
    melpatch("embed", run, folder, "--out", tmp_path / "f.npz", "--resume")  # of nothing: it begins
    told = capsys.readouterr().err
    assert re.search(r"6 files done: .*f\.npz \(0\.00 h of sound, \d+ times real time\)", told)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--hop", "0.1"), "--hop 0.1; allowed: 0.16 s or more"),
        (
            ("--hop", "1", "--pooling", "cls"),
            "--pooling cls; allowed: mean or rows, with or without input and layers, where there "
            "is a hop",
        ),
        (("--layer", "2"), "--layer 2; allowed: -2 to 1"),
        (
            ("--hop", "1", "--pooling", "max"),
            "--pooling max; allowed: mean or rows, with or without input and layers, where there "
            "is a hop",
        ),
        (("--pooling", "median"), "--pooling"),
        (("--batch-size", "0"), "--batch-size 0; allowed: 1 to 1048576"),
        (("--workers", "-1"), "--workers -1; allowed: 0 to 1024"),
    ],
)
def test_what_cannot_be_embedded_is_exit_code_2(run, folder, words, message, tmp_path, capsys):
    assert main(["embed", str(run), str(folder), "--out", str(tmp_path / "f.npz"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "f.npz").exists()
    assert not (tmp_path / "f.npz.parts").exists()
