"""``melpatch embed``: vectors with the paths, and with a hop the times, that they stand for."""

import numpy as np
import pytest
from journeys.three_sounds import LABELS, melpatch, read_table, settings, write_folder, write_run, write_sound

from melpatch.cli import main
from melpatch.model import load


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "pretrained", settings())


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "sounds", per_class=2)


def test_one_vector_per_recording_in_order(run, folder, tmp_path):
    melpatch("embed", run, folder, "--out", tmp_path / "out" / "found.npz")
    with np.load(tmp_path / "out" / "found.npz") as found:
        assert sorted(found) == ["embeddings", "path"]
        assert found["path"].tolist() == sorted(str(path) for path in folder.rglob("*.*"))
        assert found["embeddings"].shape == (6, 32)
        assert found["embeddings"].dtype == np.float32
        model = load(run)
        for path, vector in zip(found["path"], found["embeddings"], strict=True):
            np.testing.assert_allclose(vector, model.embed(str(path)), atol=1e-5)


def test_frames_have_their_times(run, folder, tmp_path):
    melpatch(
        "embed", run, folder, write_sound(tmp_path / "z.wav", seconds=2.3), "--hop", "0.5", "--out", tmp_path / "f"
    )
    with np.load(tmp_path / "f") as found:
        assert sorted(found) == ["embeddings", "end", "path", "start"]
        rows = len(found["path"])
        assert (found["embeddings"].shape, found["start"].shape, found["end"].shape) == ((rows, 32), (rows,), (rows,))
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


def test_files_that_cannot_be_read_are_named_beside(run, folder, tmp_path):
    (folder / "bad.wav").write_bytes(b"RIFF, but no more")
    melpatch("embed", run, folder, "--out", tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as found:
        assert len(found["path"]) == 6
    assert [line["path"] for line in read_table(tmp_path / "f.rejected.csv")] == [str(folder / "bad.wav")]


def test_nothing_readable_is_exit_code_2_and_no_file(run, tmp_path, capsys):
    (tmp_path / "bad.wav").write_bytes(b"RIFF, but no more")
    assert main(["embed", str(run), str(tmp_path / "bad.wav"), "--out", str(tmp_path / "f.npz")]) == 2
    assert "none of the 1 files can be read; the first: " in capsys.readouterr().err
    assert not (tmp_path / "f.npz").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--hop", "0.1"), "hop = 0.1; allowed: 0.16 s or more"),
        (("--hop", "1", "--pooling", "cls"), "pooling = 'cls'; allowed: 'mean' or 'frequency' where there is a hop"),
        (("--layer", "2"), "layer = 2; allowed: -2 to 1"),
        (("--hop", "1", "--pooling", "max"), "pooling = 'max'; allowed: 'mean' or 'frequency' where there is a hop"),
        (("--pooling", "median"), "--pooling"),
    ],
)
def test_what_cannot_be_embedded_is_exit_code_2(run, folder, words, message, tmp_path, capsys):
    assert main(["embed", str(run), str(folder), "--out", str(tmp_path / "f.npz"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "f.npz").exists()
