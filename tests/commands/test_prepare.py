import csv

import numpy as np
import pytest
import soundfile

from melpatch.commands.prepare import Config, run
from melpatch.data.manifest import load_corpus
from melpatch.errors import ConfigError


def sound(path, seconds=1.0, rate=8000, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate)), rate)


@pytest.fixture
def birds(tmp_path):
    for label in ("wren", "robin"):
        for index in range(3):
            sound(tmp_path / "birds" / label / f"{index}.wav", seconds=index + 1, rate=8000 * (index + 1))
    return tmp_path / "birds"


def test_prepare_tells_what_is_there_and_writes_it(birds, tmp_path, capsys):
    out = tmp_path / "out" / "corpus.csv"
    run(Config(sources=(str(birds),), out=out, workers=0))
    told = " ".join(capsys.readouterr().out.split())
    for words in (
        "birds clips 6 hours 0.003 seconds 1.00 shortest, 2.00 median, 3.00 longest",
        "sampling rates 8000 Hz: 2, 16000 Hz: 2, 24000 Hz: 2",
        "splits (none): 6",
        "labels 2 clips of each robin: 3, wren: 3 unlabelled 0",
        "rejected 0",
    ):
        assert words in told
    assert load_corpus([out]).clips == load_corpus([birds]).clips
    assert not out.with_name("rejected.csv").exists()


def test_prepare_lists_bad_files_beside_the_corpus(birds, tmp_path, capsys):
    (birds / "wren" / "broken.wav").write_bytes(b"RIFF, but no more")
    out = tmp_path / "corpus.csv"
    run(Config(sources=(str(birds),), out=out, workers=0))
    captured = capsys.readouterr()
    assert "rejected 1" in " ".join(captured.out.split())
    assert "1 files are left out" in captured.err
    (row,) = csv.DictReader((tmp_path / "rejected.csv").open(encoding="utf-8"))
    assert row["path"] == str(birds / "wren" / "broken.wav")
    assert "libsndfile" in row["reason"]


def test_prepare_warns_of_recordings_in_two_splits(tmp_path, capsys):
    for name in ("a.wav", "b.wav"):
        sound(tmp_path / name)
    sound(tmp_path / "c.wav", seed=1)
    listed = tmp_path / "list.csv"
    listed.write_text("path,species,fold\na.wav,wren,1\nb.wav,wren,2\nc.wav,,2\n", encoding="utf-8")
    config = Config(
        sources=(str(listed),), out=tmp_path / "out.csv", split_column="fold", label_column="species", workers=0
    )
    run(config)
    captured = capsys.readouterr()
    assert "1 recordings stand in more than one split" in captured.err
    assert "a.wav (1)" in captured.err
    assert "unlabelled 1" in " ".join(captured.out.split())
    assert load_corpus([tmp_path / "out.csv"]).splits == {"1": 1, "2": 2}


def test_prepare_shortens_long_lists(tmp_path, capsys):
    for index in range(20):
        sound(tmp_path / "many" / f"label{index:02}" / "x.wav", seconds=0.1, seed=index)
    run(Config(sources=(str(tmp_path / "many"),), out=tmp_path / "out.csv", workers=0))
    told = " ".join(capsys.readouterr().out.split())
    assert "label10: 1, ..., label19: 1" in told
    assert "label11" not in told


def test_prepare_refuses_a_negative_number_of_workers():
    with pytest.raises(ConfigError, match="workers = -1; allowed: 0 or more"):
        Config(sources=("x",), workers=-1)
