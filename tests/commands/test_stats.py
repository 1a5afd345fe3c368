"""``melpatch stats``: the mean and deviation that a slow loop finds, as flags and as JSON."""

import json

import numpy as np
import pytest
import soundfile
import torch
from journeys.three_sounds import melpatch, write_corpus, write_folder, write_table

from melpatch.audio.files import read
from melpatch.audio.logmel import LogMel
from melpatch.cli import main
from melpatch.data.manifest import load_corpus

FAST = ("--front-end.n-mels", "32")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"), per_class=6)


def slowly(source, splits):
    """Mean and deviation of the log-mel values of the clips of some splits, clip by clip, in float64."""
    front = LogMel(LogMel.Config(n_mels=32, mean=0.0, std=1.0, scale=1.0))
    values = []
    for clip in load_corpus([source]).clips:
        if clip.split in splits:
            wave, _ = read(clip.path, sample_rate=16000)
            values.append(
                front(torch.from_numpy(wave)[None], torch.tensor([len(wave)]))[0].double().flatten()
            )
    return torch.cat(values).mean().item(), torch.cat(values).std(correction=0).item()


def test_what_trains_is_measured(corpus, capsys):
    melpatch("stats", corpus, "--json", *FAST)
    found = json.loads(capsys.readouterr().out)
    mean, std = slowly(corpus, {"train"})
    assert found == {
        "mean": pytest.approx(mean, abs=1e-4),
        "std": pytest.approx(std, abs=1e-4),
        "clips": 9,
    }


def test_splits_may_be_left_out(corpus, capsys):
    melpatch("stats", corpus, "--json", "--exclude-splits", "train", *FAST)
    found = json.loads(capsys.readouterr().out)
    mean, std = slowly(corpus, {"val", "test"})
    assert found == {
        "mean": pytest.approx(mean, abs=1e-4),
        "std": pytest.approx(std, abs=1e-4),
        "clips": 9,
    }


def test_the_answer_is_in_flags_that_pretrain_takes(corpus, capsys):
    melpatch("stats", corpus, *FAST)
    words = capsys.readouterr().out.split()
    assert (words[0], words[2]) == ("--front-end.mean", "--front-end.std")
    mean, std = slowly(corpus, {"train"})
    assert (float(words[1]), float(words[3])) == (
        pytest.approx(mean, abs=1e-4),
        pytest.approx(std, abs=1e-4),
    )


def test_a_few_clips_of_a_folder_are_measured(tmp_path, capsys):
    folder = write_folder(tmp_path / "sounds", per_class=3)
    melpatch("stats", folder, "--json", "--clips", "2", *FAST)
    assert json.loads(capsys.readouterr().out)["clips"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--data is missing; give a folder of audio"),
        (("nowhere",), "nowhere: no such folder or CSV file"),
        (("--clips", "0", "nowhere"), "--clips 0; allowed: 1 or more"),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_exit_code_2(words, message, capsys):
    assert main(["stats", *words]) == 2
    assert message in capsys.readouterr().err


def test_no_clip_that_can_be_read_is_an_error_that_says_how_to_find_out(tmp_path, capsys):
    gone = write_table(
        tmp_path / "corpus.csv", ("path", "duration"), [("a.wav", 1.0), ("b.wav", 1.0)]
    )
    assert main(["stats", str(gone)]) == 2
    assert "none of the first clips can be read; run melpatch prepare" in capsys.readouterr().err


def test_clips_that_cannot_be_read_are_not_counted(tmp_path, capsys):
    for number in range(4):
        wave = np.random.default_rng(number).uniform(-0.5, 0.5, 16_000)
        soundfile.write(tmp_path / f"{number}.wav", wave, 16_000, subtype="FLOAT")
    wave[100] = np.nan
    soundfile.write(tmp_path / "bad.wav", wave, 16_000, subtype="FLOAT")
    assert main(["stats", str(tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["clips"] == 4
    assert "1 of 5 clips cannot be read and is not measured" in captured.err


def test_a_corpus_whose_channels_cancel_says_so(tmp_path, capsys):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    soundfile.write(tmp_path / "a.wav", np.stack([wave, -wave], axis=1), 16_000, subtype="FLOAT")
    assert main(["stats", str(tmp_path)]) == 2
    assert (
        "opposite phase cancel each other: take one with --channel left" in capsys.readouterr().err
    )
