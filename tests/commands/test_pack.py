"""melpatch pack as it is typed: what it says, what it refuses, a real kill -9, and other commands on what it wrote."""

import csv
import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from forked import Forked
from tiny_shards import RATE, content, write_sounds

from melpatch.cli import main
from melpatch.data import packing
from melpatch.data.shards import read_shard_set

FLAGS = ["--sample-rate", str(RATE), "--shard-mib", "0.015", "--workers", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with sounds, a list of them with splits, and the shards of that list."""
    folder = tmp_path_factory.mktemp("packed") / "set"  # from whose name the keys are made
    sounds = write_sounds(folder / "sounds")
    lines = [
        f"sounds/{path.relative_to(sounds)},{path.parent.name},{'test' if int(path.stem) > 5 else 'train'}"
        for path in sorted(sounds.rglob("*.wav"))
    ]
    (folder / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    assert main(["pack", str(folder / "list.csv"), "--out", str(folder / "shards"), *FLAGS]) == 0
    return folder


def test_it_says_what_the_shards_hold(folder, capsys):
    assert (
        main(["pack", str(folder / "list.csv"), "--out", str(folder / "shards"), *FLAGS]) == 0
    )  # nothing to do
    said = {
        words[0]: words[1]
        for words in (line.split(None, 1) for line in capsys.readouterr().out.splitlines()[1:])
    }
    assert (said["clips"].strip(), said["hours"].strip()) == ("10", "0.001")
    assert said["stored"].strip() == "as  16-bit flac, 8000 Hz"
    with (folder / "shards" / "index.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert {row["name"] for row in rows} >= {"set/sounds/wren/000.wav"}
    about = read_shard_set(folder / "shards")
    assert (
        about.command
        == f"melpatch pack {folder / 'list.csv'} --sample-rate 8000 --codec flac --shard-mib 0.015"
    )
    assert (about.clips, about.rejected, len(about.shards)) == (10, 0, 4)


def test_every_byte_can_be_checked(folder, tmp_path, capsys):
    shards = shutil.copytree(folder / "shards", tmp_path / "shards")
    assert main(["pack", "--check", str(shards)]) == 0
    assert "every byte is as it was packed" in capsys.readouterr().out
    path = shards / "shard-000001.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    assert main(["pack", "--check", str(shards), str(folder / "shards")]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"{path}: has other bytes than were packed; 1 of ")
    assert (
        told[-1] == "melpatch pack: error: 1 shard is damaged or missing; copy again, or pack again"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sample-rate", "900"], "--sample-rate 900; allowed: 1000 to 655350 Hz"),
        (["--shard-mib", "0"], "--shard-mib 0.0; allowed: above 0"),
        (["--workers", "-1"], "--workers -1; allowed: 0 to 1024"),
        ([], "out = None; allowed: the folder for the shards"),
    ],
)
def test_settings_out_of_range_are_refused(flags, message, capsys):
    assert main(["pack", "sounds", *(["--out", "x"] if flags else []), *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "out"), [("sounds", "sounds"), ("list.csv", "."), ("sounds", "link")]
)
def test_a_folder_of_the_sources_is_no_place_for_shards(folder, tmp_path, source, out, capsys):
    (tmp_path / "link").symlink_to(folder / "sounds")
    place = tmp_path / out if out == "link" else folder / out
    before = content(folder)
    assert main(["pack", str(folder / source), "--out", str(place), *FLAGS]) == 2
    assert (
        f"--out {place}; allowed: a folder other than those of the sources"
        in capsys.readouterr().err
    )
    assert content(folder) == before


def test_rejects_and_cut_off_samples_are_told(tmp_path, capsys):
    sounds = write_sounds(tmp_path / "sounds", seconds=(0.1, 0.2))
    (sounds / "text.wav").write_text("no sound")
    assert main(["pack", str(sounds), "--out", str(tmp_path / "shards"), *FLAGS]) == 0
    assert (
        f"1 clip is left out, listed in {tmp_path / 'shards' / 'rejected.csv'}"
        in capsys.readouterr().err
    )


def alive(pid):
    """Return whether a process is at work, and no zombie that nobody has asked after."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def with_forked_worker():
    """A child of the command, as a spawned one is, but without importing the package first."""
    packing.get_context = lambda _: multiprocessing.get_context("fork")


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the processes in /proc")
def test_packing_that_was_killed_goes_on_and_leaves_no_process(folder, tmp_path):
    sounds = write_sounds(tmp_path / "many", seconds=(0.5,) * 80)
    words = ["pack", str(sounds), "--shard-mib", "0.05"]
    process = Forked(
        [*words, "--out", str(tmp_path / "out"), "--workers", "1"], prepare=with_forked_worker
    )
    notes = tmp_path / "out" / ".packing"
    while process.poll() is None and len([*notes.glob("shard-*.json")]) < 3:
        time.sleep(0.002)
    helpers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -9
    assert helpers
    end = time.monotonic() + 30
    while any(map(alive, helpers)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(map(alive, helpers))
    assert not (tmp_path / "out" / "shards.json").exists()
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    for out in ("out", "whole"):
        assert main([*words, "--out", str(tmp_path / out), "--workers", "0"]) == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert len(finished) >= 2
    assert (
        sum(path.stat().st_mtime_ns == time for path, time in finished.items()) >= len(finished) - 1
    )


# ------------------------------------------------------------------------------------------------- other commands


def test_a_run_on_shards_is_the_run_on_files(folder, tmp_path):
    """The same statistics and losses to the last digit, whatever the order in which clips are listed."""
    flags = [
        "--size",
        "nano",
        "--batch-size",
        "4",
        "--seconds",
        "0.3",
        "--workers",
        "0",
        "--log-every",
        "1",
    ]
    flags += ["--steps", "3", "--stats-clips", "5", "--front-end.sample-rate", str(RATE)]
    for kind, data in {
        "files": str(folder / "list.csv"),
        "shards": f"file://{folder / 'shards'}",
    }.items():
        assert (
            main(["pretrain", "ssast", *flags, "--data", data, "--out", str(tmp_path / kind)]) == 0
        )
    for name, different in {
        "metrics.jsonl": 0,
        "config.toml": 2,
    }.items():  # the name of the data, there and here
        lines = [(tmp_path / kind / name).read_text().splitlines() for kind in ("files", "shards")]
        assert len({*lines[0]} ^ {*lines[1]}) == different


def test_prepare_reads_the_list_and_finds_no_leak(folder, tmp_path, capsys):
    assert main(["prepare", str(folder / "shards"), "--out", str(tmp_path / "corpus.csv")]) == 0
    said = capsys.readouterr()
    assert "train: 6" in said.out
    assert "recordings stand in more than one split" not in said.err
