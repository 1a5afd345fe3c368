"""``melpatch.embed`` and ``melpatch.predict`` in one call: what the model gives, for one recording or many."""

import numpy as np
import pytest
from journeys.three_sounds import LABELS, settings, wave, write_run, write_sound

from melpatch.errors import AudioError, ConfigError, DataError
from melpatch.inference.functions import embed, files_of, predict
from melpatch.inference.model import load
from melpatch.training.run import Run

RATE = 16000


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "b", settings(LABELS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sounds")
    for number, seconds in enumerate((0.4, 1.6, 0.9)):
        write_sound(root / f"{number}.wav", "high", seconds, RATE, number)
    return root


def test_one_recording_gives_what_the_model_gives(run, folder):
    model, path = load(run), folder / "1.wav"
    samples = wave("low", 1.2, RATE)
    for source in (run, str(run), Run.reopen(run), model):
        np.testing.assert_array_equal(embed(source, path), model.embed(path))
        np.testing.assert_array_equal(
            embed(source, samples, RATE, pooling="mean", layer=0),
            model.embed(samples, RATE, pooling="mean", layer=0),
        )
        np.testing.assert_array_equal(
            embed(source, path, hop=0.4).vectors, model.embed(path, hop=0.4).vectors
        )
        assert predict(source, path, hop=1.0) == model.predict(path, hop=1.0)


def test_a_folder_and_a_list_of_files_give_each_in_turn(run, folder):
    model = load(run)
    files = sorted(folder.iterdir())
    for many in (folder, str(folder), files, [folder], tuple(map(str, files))):
        results = [*embed(model, many, batch_size=2)]
        assert [path for path, _ in results] == files
        for path, vector in results:
            np.testing.assert_allclose(vector, model.embed(path), atol=1e-5)
        assert [path for path, _ in predict(model, many)] == files


def test_files_that_cannot_be_read_are_an_error_or_collected(run, folder, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF, but no more")
    with pytest.raises(AudioError, match=r"bad\.wav"):
        [*predict(run, [tmp_path])]
    rejected = []
    assert len([*predict(run, [folder, tmp_path], rejected=rejected)]) == 3
    assert [clip.path for clip in rejected] == [str(tmp_path / "bad.wav")]


def test_what_is_neither_one_nor_many_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="a list with ndarray; give a list of files"):
        files_of([np.zeros(3), np.zeros(4)])
    with pytest.raises(DataError, match="no audio file"):
        files_of(tmp_path)
    (tmp_path / "a.wav").touch()
    (tmp_path / "clips.csv").write_text("path,start,duration\na.wav,1.0,2.0\n")
    with pytest.raises(ConfigError, match=r"part of a file or shard; .*melpatch embed"):
        files_of([tmp_path / "clips.csv"])
    assert files_of([0.0, 0.5]) is None
