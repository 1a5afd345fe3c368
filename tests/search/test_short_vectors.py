"""Short vectors of an index: fitted to windows of its recordings, kept with it, the same ever after."""

import json
import shutil
import threading
import time

import numpy as np
import pytest
import soundfile
from journeys.three_sounds import (
    LABELS,
    melpatch,
    settings,
    write_corpus,
    write_folder,
    write_run,
    write_sound,
)
from two_processes import in_both

from melpatch.audio.files import AudioInfo
from melpatch.cli import main
from melpatch.data.clip import Clip
from melpatch.errors import CheckpointError, ConfigError
from melpatch.inference.model import load
from melpatch.nn.pooling import DEFAULT_POOLING
from melpatch.search import short_vectors
from melpatch.search.build import model_of
from melpatch.search.index import Index
from melpatch.search.short_vectors import FILE, Windows

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


def test_a_layer_of_a_classifier_has_its_own_pooling(sounds, tmp_path):
    classifier = write_run(tmp_path / "classifier", settings(LABELS))
    own = load(classifier).default_pooling
    melpatch("index", classifier, sounds, *WORDS, "--layer", 0, "--out", tmp_path / "index")
    assert Index(tmp_path / "index").identity.spelling == own


def test_a_layer_beside_a_fit_of_the_run_is_refused(run, sounds, tmp_path, capsys):
    own = tmp_path / "run"
    shutil.copytree(run, own)
    data = write_corpus(tmp_path / "corpus", per_class=3)
    melpatch("fit-embedding", own, "--data", data, "--dim", 3)
    words = ["index", str(own), str(sounds), "--layer", "0", "--out", str(tmp_path / "index")]
    assert main(words) == 2
    assert "--layer 0; allowed: None beside" in capsys.readouterr().err


def test_too_few_windows_have_no_short_vectors(run, tmp_path, capfd):
    write_sound(tmp_path / "sounds" / "a.wav", seconds=2)
    melpatch("index", run, tmp_path / "sounds", *WORDS, "--out", tmp_path / "index")
    assert Index(tmp_path / "index").identity.pooling == "mean+std"
    assert not (tmp_path / "index" / FILE).exists()
    assert "vectors are pooled by mean+std: short ones need" in capfd.readouterr().err


@pytest.mark.parametrize("amplitude", [0.0, 0.1])
def test_nor_have_windows_that_are_silent_or_all_the_same(run, tmp_path, amplitude):
    (tmp_path / "sounds").mkdir()
    for number in range(30):
        soundfile.write(tmp_path / "sounds" / f"{number}.wav", np.full(4000, amplitude), 16000)
    melpatch("index", run, tmp_path / "sounds", *WORDS, "--out", tmp_path / "index")
    assert Index(tmp_path / "index").identity.pooling == "mean+std"


def test_silence_is_not_what_they_are_fitted_to(run, sounds, tmp_path, capfd):
    own = tmp_path / "sounds"
    shutil.copytree(sounds, own)
    soundfile.write(own / "silent.wav", np.zeros(80000), 16000)
    (own / "b.wav").write_bytes(b"no sound")
    melpatch("index", run, own, *WORDS, "--out", tmp_path / "index")
    index = Index(tmp_path / "index")
    assert index.rows["silent"].sum() == 20
    assert f"fitted to {len(index) - 20} windows" in capfd.readouterr().err
    rejected = (tmp_path / "index" / "000001.rejected.csv").read_text(encoding="utf-8")
    assert "b.wav" in rejected


def test_windows_that_overlap_count_as_the_index_has_them(run, tmp_path, capfd):
    write_sound(tmp_path / "sounds" / "a.wav", "noise", seconds=2)
    melpatch("index", run, tmp_path / "sounds", *WORDS, "--hop", 0.05, "--out", tmp_path / "index")
    index = Index(tmp_path / "index")
    assert len(index) == 36
    assert "fitted to 36 windows" in capfd.readouterr().err
    assert index.identity.own_fit


def test_what_a_killed_run_has_fitted_is_taken_only_to_go_on_with_it(
    run, sounds, tmp_path, monkeypatch
):
    out = tmp_path / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("melpatch.search.build.write_output", lambda job: None)
        melpatch("index", run, sounds / "noise", *WORDS, "--out", out)
    left = (out / FILE).read_bytes()
    shutil.copytree(out, tmp_path / "other")
    melpatch("index", run, sounds, *WORDS, "--out", out)
    assert (out / FILE).read_bytes() != left
    melpatch("index", run, sounds, *WORDS, "--resume", "--out", tmp_path / "other")
    assert (tmp_path / "other" / FILE).read_bytes() == left
    assert model_of(Index(tmp_path / "other")).network.fitted is not None


def test_what_was_left_behind_does_not_matter_to_an_index_of_another_pooling(
    run, made, sounds, tmp_path
):
    other, out = write_run(tmp_path / "other", settings(embed_dim=32)), tmp_path / "index"
    out.mkdir()
    shutil.copy(made / FILE, out / FILE)
    melpatch("index", other, sounds, *WORDS, "--pooling", "mean", "--out", out)
    assert model_of(Index(out)).network.fitted is None
    melpatch("index", other, sounds, "--out", out)


@pytest.mark.parametrize("name", ["config.toml", "embedding.safetensors"])
def test_a_folder_of_something_else_is_no_index(run, sounds, tmp_path, capsys, name):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).write_bytes(b"not an index's")
    assert main(["index", str(run), str(sounds), "--out", str(tmp_path / "other")]) == 2
    assert f"holds {name}, which is not of this command" in capsys.readouterr().err
    assert (tmp_path / "other" / name).read_bytes() == b"not an index's"


@pytest.mark.parametrize("words", [("--hop", "5"), ("--window", "0")])
def test_windows_that_are_refused_leave_nothing(run, sounds, tmp_path, capsys, words):
    out = tmp_path / "index"
    assert main(["index", str(run), str(sounds), *words, "--out", str(out)]) == 2
    assert words[0] in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


def test_of_two_at_once_the_second_adds_to_what_the_first_has_made(
    run, sounds, tmp_path, monkeypatch
):
    out = tmp_path / "index"
    fit = short_vectors.fit_short_vectors
    threads = []

    def slowly(*arguments, **settings):
        words = ("index", run, sounds / "noise", "--out", out)
        threads.append(threading.Thread(target=melpatch, args=words))
        threads[0].start()
        time.sleep(0.5)
        return fit(*arguments, **settings)

    monkeypatch.setattr(short_vectors, "fit_short_vectors", slowly)
    melpatch("index", run, sounds / "low", *WORDS, "--out", out)
    threads[0].join()
    index = Index(out)
    assert [segment.identity.pooling for segment in index.segments] == [index.identity.pooling] * 2
    assert model_of(index).network.fitted.dim == index.dim


def test_damaged_ones_are_told(made, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(made, broken)
    (broken / FILE).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        model_of(Index(broken))
    shutil.copytree(made, tmp_path / "without")
    (tmp_path / "without" / FILE).unlink()
    with pytest.raises(CheckpointError, match="is missing; restore it from a backup"):
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


def test_stretches_are_drawn_from_all_recordings_and_lie_in_them(tmp_path, monkeypatch):
    monkeypatch.setattr(short_vectors, "WINDOWS", 45)
    write_sound(tmp_path / "long.wav", seconds=20)
    write_sound(tmp_path / "short.wav", seconds=0.4)
    (tmp_path / "none.wav").write_bytes(b"no sound")
    ends = float("inf")
    clips = [
        Clip(tmp_path / "long.wav", 1, 0.0, ends),
        Clip(tmp_path / "long.wav", 2, 6.0, 2.0),
        Clip(tmp_path / "long.wav", 3, 18.5, 3600.0),
        Clip(tmp_path / "short.wav", 4, 0.0, ends),
        Clip(tmp_path / "none.wav", 5, 0.0, ends),
    ]
    drawn = [*short_vectors._drawn_stretches(clips, Windows(length=0.5, hop=0.5))]
    by_clip = {key: [clip for clip in drawn if clip.key == key] for key in range(1, 6)}
    assert [len(by_clip[key]) for key in range(1, 6)] == [8, 1, 1, 1, 1]
    assert all(0 <= clip.start <= 19.5 and clip.duration == 0.5 for clip in by_clip[1])
    assert max(clip.start for clip in by_clip[1]) > 10
    assert [(by_clip[key][0].start, by_clip[key][0].duration) for key in (2, 3, 4, 5)] == [
        (6.0, 2.0),
        (18.5, pytest.approx(1.5)),
        (0.0, pytest.approx(0.4)),
        (0.0, 0.0),
    ]


def test_a_length_that_nothing_states_is_found_by_reading_on(tmp_path, monkeypatch):
    monkeypatch.setattr(short_vectors, "WINDOWS", 40)
    monkeypatch.setattr(
        short_vectors, "probe", lambda path: AudioInfo(16000, 1, None, "FLAC", "PCM_16")
    )
    clips = [Clip(tmp_path / "a.flac", 1, 0.0, float("inf"))]
    (drawn,) = short_vectors._drawn_stretches(clips, Windows(length=1.0, hop=0.5))
    assert (drawn.start, drawn.duration) == (0.0, 1 + 39 * 0.5)


@pytest.mark.parametrize(
    ("length", "hop", "seconds", "count"),
    [(1, 1, 0.2, 1), (1, 1, 1, 1), (1, 1, 1.1, 2), (1, 0.5, 3.2, 6), (0.25, 0.05, 2, 36)],
)
def test_windows_are_counted_as_an_index_has_them(length, hop, seconds, count):
    windows = Windows(length=float(length), hop=float(hop))
    assert windows.count(float(seconds)) == count
    assert windows.count(windows.seconds(count)) == count
