"""An index: vectors of windows as a clip of its own has them, growing, refusing other encoders."""

import shutil

import numpy as np
import pytest
import soundfile
from journeys.three_sounds import melpatch, settings, wave, write_folder, write_run, write_sound

from melpatch.cli import main
from melpatch.errors import CheckpointError, ConfigError
from melpatch.inference.model import load
from melpatch.search.index import Index


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "pretrained", settings())


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    write_folder(folder / "sounds", per_class=2)
    write_sound(folder / "sounds" / "long.wav", seconds=3.2)
    return folder / "sounds"


@pytest.fixture(scope="module")
def made(run, collection, tmp_path_factory):
    out = tmp_path_factory.mktemp("indices") / "index"
    melpatch("index", run, collection, "--window", 1, "--hop", 0.5, "--out", out)
    return out


def test_a_vector_is_that_of_its_stretch_alone(run, collection, made, tmp_path):
    index = Index(made)
    model = load(run)
    numbers = {recording.path: number for number, recording in enumerate(index.recordings)}
    assert len(numbers) == 7
    own = index.rows["recording"] == numbers[str(collection / "long.wav")]
    assert index.rows["start"][own].tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert index.rows["end"][own].tolist() == [1, 1.5, 2, 2.5, 3, 3.2]
    audio, rate = soundfile.read(collection / "long.wav", dtype="float32")
    for row in np.flatnonzero(own):
        start, end = index.rows["start"][row], index.rows["end"][row]
        alone = model.embed(
            audio[round(start * rate) : round(end * rate)], rate, pooling="mean+std"
        )
        np.testing.assert_allclose(index.vectors(np.array([row]))[0], alone, atol=1e-4)


def test_similarity_is_the_cosine_of_standardised_vectors(made):
    index = Index(made)
    rows = index.vectors(np.arange(len(index))).astype(np.float64)
    standard = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-9)
    unit = standard / np.linalg.norm(standard, axis=1, keepdims=True)
    queries = np.array([0, 5])
    expected = (unit @ unit[queries].T).max(axis=1)
    np.testing.assert_allclose(index.similarity(index.vectors(queries)), expected, atol=1e-3)


def test_a_part_of_the_rows_has_the_similarity_that_it_has_among_all(made, monkeypatch):
    index = Index(made)
    monkeypatch.setattr("melpatch.search.index._BLOCK_BYTES", 4 * index.dim * 2)
    queries = index.vectors(np.array([0, 5]))
    whole = index.similarity(queries)
    rows = np.array([7, 1, 4])
    np.testing.assert_allclose(index.similarity_of(queries, rows), whole[rows], atol=1e-5)
    np.testing.assert_allclose(index.similarity(queries, 3), whole[3:], atol=1e-5)
    assert index.similarity(queries, len(index)).shape == (0,)
    nearest = index.nearest_to_each(queries, 4)
    for query, own in zip(queries, nearest, strict=True):
        alone = index.similarity(query[None])
        np.testing.assert_allclose(alone[own], np.sort(alone)[:-5:-1], atol=1e-5)


def test_products_are_the_same_in_any_blocks_and_segments(made, monkeypatch):
    index = Index(made)
    weights = np.random.default_rng(0).normal(size=(index.dim, 3)).astype(np.float32)
    whole = index.products(weights)
    monkeypatch.setattr("melpatch.search.index._BLOCK_BYTES", 4 * index.dim * 2)
    np.testing.assert_allclose(index.products(weights), whole, rtol=1e-4, atol=1e-4)


def test_it_grows_by_new_and_changed_recordings_only(run, collection, made, tmp_path, capfd):
    sounds, out = tmp_path / "sounds", tmp_path / "index"
    write_sound(sounds / "a.wav", "low")
    write_sound(sounds / "b.wav", "high")
    melpatch("index", run, sounds, "--out", out)
    before = Index(out)
    melpatch("index", run, sounds, "--out", out)
    assert "has all of these recordings already" in capfd.readouterr().err
    assert len(Index(out).segments) == 1

    write_sound(sounds / "c.wav", "noise")
    soundfile.write(sounds / "b.wav", wave("noise", seconds=0.5), 16000)
    melpatch("index", run, sounds, "--out", out)
    after = Index(out)
    assert "1 recording changed since, and replaced" in capfd.readouterr().err
    assert [segment.rows.size for segment in after.segments] == [2, 2]
    np.testing.assert_array_equal(after.vectors(np.arange(2)), before.vectors(np.arange(2)))
    np.testing.assert_array_equal(after.scale, before.scale)
    # Of the changed one only what it is now counts.
    latest = after.rows[after.latest]
    paths = [after.recordings[number].path for number in latest["recording"]]
    ends = dict(zip(paths, latest["end"].tolist(), strict=True))
    assert ends == {
        str(sounds / f"{name}.wav"): end for name, end in [("a", 1), ("b", 0.5), ("c", 1)]
    }


def test_the_same_recordings_by_another_way_are_the_same(run, collection, made, capfd):
    around = collection / ".." / collection.name
    melpatch("index", run, around, "--out", made)
    assert "in the index already" in capfd.readouterr().err
    assert len(Index(made).segments) == 1


def test_vectors_of_another_encoder_are_refused_by_name(collection, made, tmp_path, capsys):
    other = write_run(tmp_path / "other", settings(embed_dim=32))
    words = ["index", str(other), str(collection), "--out", str(made)]
    assert main(words) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "holds vectors with model" in last
    assert str(other) in last


def test_other_windows_are_refused(run, collection, made, capsys):
    assert main(["index", str(run), str(collection), "--hop", "0.25", "--out", str(made)]) == 2
    assert "holds vectors with hop = 0.5, not 0.25" in capsys.readouterr().err


def test_a_run_that_was_moved_is_the_same(run, collection, made, tmp_path):
    shutil.copytree(run, tmp_path / "moved")
    melpatch("index", tmp_path / "moved", collection, "--out", made)
    assert len(Index(made).segments) == 1


@pytest.mark.parametrize("pooling", ["mean+std", "mean+delta", "mean+segments=2"])
def test_a_window_longer_than_the_input_has_the_vector_of_its_stretch(
    run, collection, tmp_path, pooling
):
    """The run takes 1 s; the last window, of 1.2 s, ends within a piece."""
    out = tmp_path / "index"
    words = ("--window", 2.5, "--hop", 2, "--pooling", pooling, "--batch-size", 3)
    melpatch("index", run, collection, *words, "--out", out)
    index = Index(out)
    audio, rate = soundfile.read(collection / "long.wav", dtype="float32")
    own = index.rows_of(str(collection / "long.wav"))
    assert index.rows["end"][own].tolist() == [2.5, 3.2]
    model = load(run)
    for row in own:
        start, end = (round(index.rows[name][row] * rate) for name in ("start", "end"))
        alone = model.embed(audio[start:end], rate, pooling=pooling)
        np.testing.assert_allclose(index.vectors(np.array([row]))[0], alone, atol=1e-4)


def test_an_index_goes_on_by_a_run_that_was_moved(run, tmp_path):
    sounds, out, first = tmp_path / "sounds", tmp_path / "index", tmp_path / "first"
    shutil.copytree(run, first)
    write_sound(sounds / "a.wav", "low")
    melpatch("index", first, sounds, "--out", out)
    first.rename(tmp_path / "moved")
    write_sound(sounds / "b.wav", "high")
    melpatch("index", tmp_path / "moved", sounds, "--out", out)
    index = Index(out)
    assert len(index.segments) == 2
    # The run is looked for where it was last.
    melpatch("search", out, sounds / "b.wav", "--out", tmp_path / "found.csv")


@pytest.mark.parametrize("window", ["0", "inf"])
def test_a_window_that_is_no_length_is_refused(run, collection, tmp_path, capsys, window):
    words = ["index", str(run), str(collection), "--window", window, "--out", str(tmp_path / "i")]
    assert main(words) == 2
    assert "--window" in capsys.readouterr().err.splitlines()[-1]


def test_what_cannot_be_read_is_listed_and_the_rest_indexed(run, tmp_path):
    write_sound(tmp_path / "sounds" / "a.wav")
    (tmp_path / "sounds" / "b.wav").write_bytes(b"no sound")
    melpatch("index", run, tmp_path / "sounds", "--out", tmp_path / "index")
    assert len(Index(tmp_path / "index")) == 1
    assert "b.wav" in (tmp_path / "index" / "000001.rejected.csv").read_text(encoding="utf-8")


def test_a_name_that_is_not_utf8_is_kept(run, tmp_path):
    name = b'\xe9,\n".wav'.decode("utf-8", "surrogateescape")
    path = tmp_path / "sounds" / name
    write_sound(tmp_path / "sounds" / "plain.wav").rename(path)
    melpatch("index", run, tmp_path / "sounds", "--out", tmp_path / "index")
    assert Index(tmp_path / "index").recordings[0].path == str(path)


def test_no_index_and_a_damaged_one_are_told(made, tmp_path):
    with pytest.raises(ConfigError, match="no index; make one with: melpatch index"):
        Index(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(made, broken)
    content = (broken / "000001" / "vectors.npy").read_bytes()
    (broken / "000001" / "vectors.npy").write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match=r"vectors\.npy: damaged"):
        Index(broken)
