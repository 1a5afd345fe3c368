"""Embedding and predicting, killed at an unforeseen moment or shared by two processes: what is there in the end is, to
the byte, what would have been."""

import random
import time

import numpy as np
import pytest
from forked import Forked
from journeys.three_sounds import LABELS, melpatch, settings, write_run, write_sound
from two_processes import in_both

from melpatch.cli import main
from melpatch.inference import parts


def with_small_parts():
    parts._MOST_RECORDINGS = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "classifier", settings(LABELS))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for number in range(40):
        write_sound(folder / f"{number:02}.wav", "noise", rng.uniform(0.1, 3.0), seed=number)
    (folder / "20.wav").write_bytes(b"RIFF, but no more")
    return folder


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "_MOST_RECORDINGS", 2)


def killed(words, folder, after):
    """Kill a command once it has made so many parts, and a moment later still; return when it was."""
    process = Forked(words, prepare=with_small_parts)
    while (
        process.poll() is None and len([*folder.glob("*.json")]) <= after
    ):  # one tells what they are parts of
        time.sleep(0.002)
    moment = random.uniform(0, 0.02)
    time.sleep(moment)
    process.kill()
    _, told = process.communicate()
    assert process.returncode == -9, told
    return f"killed {moment} s after {after} parts"


def test_a_killed_command_goes_on_to_the_same_bytes(run, sounds, small_parts, tmp_path, capsys):
    words = ["embed", run, sounds, "--hop", "0.4", "--out"]
    melpatch(*words, tmp_path / "whole.npz", "--workers", "0")
    out, folder = tmp_path / "killed.npz", tmp_path / "killed.npz.parts"
    when = killed([*words, out], folder, random.randint(1, 12))
    done = len([*folder.glob("0*.json")])
    assert not out.exists()
    assert done < 20, when
    assert main([str(word) for word in [*words, out]]) == 2
    assert "add --resume to continue it, or delete the folder" in capsys.readouterr().err
    melpatch(*words, out, "--resume")
    assert f"resuming after {2 * done} of 40 files" in capsys.readouterr().err
    assert out.read_bytes() == (tmp_path / "whole.npz").read_bytes(), when
    assert not folder.exists()
    rejected = [(tmp_path / f"{name}.rejected.csv").read_bytes() for name in ("killed", "whole")]
    assert rejected[0] == rejected[1]
    assert b"20.wav" in rejected[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}.{rest}" for name in ("killed", "whole") for rest in ("npz", "rejected.csv")
    )


def test_an_interrupted_run_resumes_with_the_same_settings_only(
    run, sounds, small_parts, tmp_path, monkeypatch, capsys
):
    words = ["predict", run, sounds, "--workers", "0"]
    melpatch(*words, "--out", tmp_path / "whole.csv")
    end = parts.PartWriter.end
    ended = []

    def interrupted(*arguments, **named):
        ended.append(end(*arguments, **named))
        if len(ended) == 15:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parts.PartWriter, "end", interrupted)
        assert main([*map(str, words), "--out", str(tmp_path / "out.csv")]) == 130
    resumed = [*words, "--out", tmp_path / "out.csv", "--resume"]
    for flags, told in (
        (["--hop", "0.5"], "was started with hop = None, now 0.5"),
        (["--precision", "bf16-mixed"], "was started with precision = '32-true', now 'bf16-mixed'"),
        ([write_sound(tmp_path / "another.wav")], "was started with recordings = '40 ("),
    ):
        assert main([*map(str, resumed[:3]), *map(str, flags), *map(str, resumed[3:])]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert told in line
        assert "give the same, or delete the folder" in line
    assert not (tmp_path / "out.csv").exists()
    melpatch(*resumed, "--batch-size", "8", "--workers", "1")  # the bytes depend on neither
    assert "resuming after 14 of 40 files" in capsys.readouterr().err
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def embed_as_one_of_two(rank, folder):
    with_small_parts()
    words = [
        "embed",
        folder / "run",
        folder / "sounds",
        "--out",
        folder / "shared.npz",
        "--workers",
        "0",
    ]
    return main([*map(str, words)])


def test_two_processes_write_what_one_does(small_parts, tmp_path, monkeypatch):
    write_run(tmp_path / "run", settings())
    for number in range(7):
        write_sound(tmp_path / "sounds" / f"{number}.wav", "noise", 0.3 + 0.3 * number, seed=number)
    (tmp_path / "sounds" / "3.wav").write_bytes(b"RIFF, but no more")
    melpatch(
        "embed",
        tmp_path / "run",
        tmp_path / "sounds",
        "--out",
        tmp_path / "alone.npz",
        "--workers",
        "0",
    )
    assert in_both(embed_as_one_of_two, tmp_path, monkeypatch) == [0, 0]
    for ending in ("npz", "rejected.csv"):
        assert (tmp_path / f"shared.{ending}").read_bytes() == (
            tmp_path / f"alone.{ending}"
        ).read_bytes()
    assert not (tmp_path / "shared.npz.parts").exists()
