"""Short vectors of an index: fitted to windows of its recordings, kept with it, the same ever after."""

import json
import shutil

import numpy as np
import pytest
import soundfile
from journeys.three_sounds import (
    melpatch,
    settings,
    write_corpus,
    write_folder,
    write_run,
    write_sound,
)
from two_processes import in_both

from melpatch.cli import main
from melpatch.data.clip import Clip
from melpatch.errors import CheckpointError, ConfigError
from melpatch.inference.fitted import FILE
from melpatch.inference.model import load
from melpatch.nn.pooling import DEFAULT_POOLING
from melpatch.search import short_vectors
from melpatch.search.build import model_of
from melpatch.search.index import Index

WINDOW = 0.25
WORDS = ("--window", WINDOW)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "pretrained", settings())


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("collection") / "sounds")


@pytest.fixture(autouse=True)
def _few_are_enough(monkeypatch):
    monkeypatch.setattr(short_vectors, "FEWEST", 20)


@pytest.fixture(scope="module")
def made(run, sounds, tmp_path_factory):
    out = tmp_path_factory.mktemp("indices") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(short_vectors, "FEWEST", 20)
        melpatch("index", run, sounds, *WORDS, "--out", out)
    return out


def own_rate(index):
    rates = [soundfile.info(recording.path).samplerate for recording in index.recordings]
    return np.array(rates)[index.rows["recording"]] == 16000


def test_a_vector_is_the_whitened_one_of_its_stretch_alone(run, made):
    index = Index(made)
    model = load(run)
    fitted = model_of(index).network.resolve_pooling("fitted")
    assert index.identity.pooling == str(fitted)
    assert str(fitted.pooled) == DEFAULT_POOLING
    # At the run's rate, since a resampled stretch has other edges.
    for row in [*np.flatnonzero(own_rate(index))[:4], *np.flatnonzero(own_rate(index))[-4:]]:
        place = index.rows[row]
        path = index.recordings[place["recording"]].path
        audio, rate = soundfile.read(path, dtype="float32")
        stretch = audio[round(place["start"] * rate) : round(place["end"] * rate)]
        long = model.embed(stretch, rate, pooling=DEFAULT_POOLING)
        expected = (long - fitted.mean.numpy()) @ fitted.axes.numpy()
        np.testing.assert_allclose(index.vectors(np.array([row]))[0], expected, atol=2e-3)


def test_small_components_stay_small(made):
    index = Index(made)
    mean, deviation = index.scale
    assert (deviation == 1).all()
    variance = index.vectors(np.arange(len(index))).var(axis=0)
    assert variance[0] > 2 * variance[-1]
    np.testing.assert_allclose(mean, index.vectors(np.arange(len(index))).mean(axis=0), atol=1e-4)


def test_a_search_finds_sounds_of_a_kind(made, sounds, tmp_path, capsys):
    query = write_sound(tmp_path / "query.wav", "noise", seconds=0.5, seed=99)
    capsys.readouterr()
    melpatch("search", made, query, "--count", 3, "--per-recording", 1, "--json")
    hits = json.loads(capsys.readouterr().out)
    assert {hit["path"].split("/")[-2] for hit in hits} == {"noise"}


def test_what_is_added_has_the_same_vectors_whatever_the_run_has_by_then(
    run, made, sounds, tmp_path
):
    own, out, more = tmp_path / "run", tmp_path / "index", tmp_path / "more"
    shutil.copytree(run, own)
    shutil.copytree(made, out)
    write_corpus(tmp_path / "corpus", per_class=3)
    melpatch("fit-embedding", own, "--data", tmp_path / "corpus" / "corpus.csv", "--dim", 3)
    path = next(path for path in sorted(sounds.rglob("*.wav")))
    (more / "copy.wav").parent.mkdir()
    shutil.copy(path, more / "copy.wav")
    melpatch("index", own, more, "--out", out)
    index = Index(out)
    assert len(index.segments) == 2
    for place in ("copy.wav", str(path)):
        (shown,) = [recording.path for recording in index.recordings if place in recording.path]
        rows = index.rows_of(shown)
        if place == "copy.wav":
            copied = index.vectors(rows)
    np.testing.assert_allclose(copied, index.vectors(rows), atol=1e-5)


def test_another_run_is_refused_by_name(made, sounds, tmp_path, capsys):
    other = write_run(tmp_path / "other", settings(embed_dim=32))
    assert main(["index", str(other), str(sounds), "--out", str(made)]) == 2
    assert "holds vectors with model" in capsys.readouterr().err.splitlines()[-1]


def test_a_pooling_that_is_asked_for_is_taken(run, sounds, tmp_path):
    melpatch("index", run, sounds, *WORDS, "--pooling", "mean", "--out", tmp_path / "index")
    assert Index(tmp_path / "index").identity.pooling == "mean"
    assert not (tmp_path / "index" / FILE).exists()


def test_a_layer_that_is_asked_for_is_taken(run, sounds, tmp_path):
    melpatch("index", run, sounds, *WORDS, "--layer", 0, "--out", tmp_path / "index")
    assert Index(tmp_path / "index").identity.pooling == "mean+std+layers=1"


def test_too_few_windows_have_no_short_vectors(run, tmp_path, capfd):
    write_sound(tmp_path / "sounds" / "a.wav", seconds=2)
    melpatch("index", run, tmp_path / "sounds", *WORDS, "--out", tmp_path / "index")
    assert Index(tmp_path / "index").identity.pooling == "mean+std"
    assert "vectors of fewer than 200 windows are pooled by mean+std" in capfd.readouterr().err


def test_recordings_that_cannot_be_read_are_passed_over(run, sounds, tmp_path):
    own = tmp_path / "sounds"
    shutil.copytree(sounds, own)
    (own / "b.wav").write_bytes(b"no sound")
    soundfile.write(own / "silent.wav", np.zeros(8000), 16000)
    melpatch("index", run, own, *WORDS, "--out", tmp_path / "index")
    assert Index(tmp_path / "index").identity.spelling == "fitted"
    rejected = (tmp_path / "index" / "000001.rejected.csv").read_text(encoding="utf-8")
    assert "b.wav" in rejected


def test_what_a_killed_fit_has_left_is_made_again(run, sounds, tmp_path):
    out = tmp_path / "index"
    out.mkdir()
    (out / FILE).write_bytes(b"half")
    melpatch("index", run, sounds, *WORDS, "--out", out)
    assert model_of(Index(out)).network.fitted is not None


def test_a_folder_of_something_else_is_no_index(run, sounds, tmp_path, capsys):
    other = write_run(tmp_path / "other", settings())
    assert main(["index", str(run), str(sounds), "--out", str(other)]) == 2
    assert "holds config.toml, which is not of this command" in capsys.readouterr().err


def test_damaged_ones_are_told(made, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(made, broken)
    (broken / FILE).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        model_of(Index(broken))
    shutil.copytree(made, tmp_path / "without")
    (tmp_path / "without" / FILE).unlink()
    with pytest.raises(ConfigError, match="pooling = 'fitted'"):
        model_of(Index(tmp_path / "without"))


def test_an_index_of_a_fit_that_the_run_no_longer_has_is_not_searched(run, sounds, tmp_path):
    own, out = tmp_path / "run", tmp_path / "index"
    shutil.copytree(run, own)
    data = ("--data", write_corpus(tmp_path / "corpus", per_class=3))
    melpatch("fit-embedding", own, *data, "--dim", 3)
    melpatch("index", own, sounds, *WORDS, "--out", out)
    assert model_of(Index(out)).network.fitted is None
    melpatch("fit-embedding", own, *data, "--dim", 3, "--ridge", 0, "--overwrite")
    with pytest.raises(ConfigError, match="fit-embedding was run again since"):
        model_of(Index(out))


def indexed_as_one_of_two(rank, folder):
    short_vectors.FEWEST = 20
    words = ("index", folder / "run", folder / "sounds", *WORDS, "--out", folder / "index")
    melpatch(*words)
    return rank


def test_processes_share_one_fit(run, made, sounds, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(sounds, tmp_path / "sounds")
    assert in_both(indexed_as_one_of_two, tmp_path, monkeypatch) == [0, 1]
    together, alone = Index(tmp_path / "index"), Index(made)
    assert len(together) == len(alone)
    assert together.identity.pooling.startswith("fitted (")
    assert model_of(together).network.fitted.dim == alone.dim


def test_windows_are_drawn_from_all_recordings_and_lie_in_them(tmp_path, monkeypatch):
    monkeypatch.setattr(short_vectors, "WINDOWS", 40)
    write_sound(tmp_path / "long.wav", seconds=9)
    write_sound(tmp_path / "short.wav", seconds=0.4)
    (tmp_path / "none.wav").write_bytes(b"no sound")
    clips = [
        Clip(tmp_path / "long.wav", 1, 0.0, float("inf")),
        Clip(tmp_path / "long.wav", 2, 6.0, 2.0),
        Clip(tmp_path / "short.wav", 3, 0.0, float("inf")),
        Clip(tmp_path / "none.wav", 4, 0.0, float("inf")),
    ]
    drawn = [*short_vectors._drawn_windows(clips, 0.5)]
    by_clip = {key: [clip for clip in drawn if clip.key == key] for key in (1, 2, 3, 4)}
    assert [len(by_clip[key]) for key in (1, 2, 3, 4)] == [10, 4, 1, 1]
    assert all(0 <= clip.start <= 8.5 and clip.duration == 0.5 for clip in by_clip[1])
    assert max(clip.start for clip in by_clip[1]) > 4
    assert all(6 <= clip.start <= 7.5 for clip in by_clip[2])
    assert (by_clip[3][0].start, by_clip[3][0].duration) == (0, pytest.approx(0.4))
    assert by_clip[4][0].start == 0
