"""Lines that are known: kept, found again, and whole after a crash."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from melpatch.comparison.results import Results, is_comparison, locked
from melpatch.errors import MelpatchError

HOLD = """
import sys, time
from pathlib import Path
from melpatch.comparison.results import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_what_is_added_is_found_again_and_the_last_counts(tmp_path):
    path = tmp_path / "out" / "results.jsonl"
    known = Results(path)
    assert known.find(["a", "b"]) is None
    known.add(("a", "b"), {"error": "no luck"})
    known.add(("a", "c"), {"value": 1.0})
    known.add(("a", "b"), {"value": 0.5})
    for one in (known, Results(path)):
        assert one.find(["a", "b"]) == {"key": ["a", "b"], "value": 0.5}
        assert one.find(["a", "c"])["value"] == 1.0
    assert len(path.read_text().splitlines()) == 3


def test_half_a_line_is_dropped(tmp_path):
    path = tmp_path / "results.jsonl"
    Results(path).add("a", {"value": 1.0})
    with path.open("a") as file:
        file.write('{"key": ["b"], "val')
    Results(path).add("c", {"value": 2.0})
    known = Results(path)
    assert [known.find(key) is not None for key in "abc"] == [True, False, True]


def test_a_folder_has_one_process_at_a_time(tmp_path):
    told = f"{tmp_path}: process {os.getpid()} is comparing there; wait for its end, or give another --out"
    with (
        locked(tmp_path),
        pytest.raises(MelpatchError, match=f"^{re.escape(told)}$"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        assert (tmp_path / ".holder").read_text() == f"{os.getpid()}"


def test_a_folder_that_a_dead_process_held_is_free(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        with (
            pytest.raises(MelpatchError, match=f"process {process.pid} is comparing there"),
            locked(tmp_path),
        ):
            pass
        process.send_signal(signal.SIGKILL)
    with locked(tmp_path):
        assert (tmp_path / ".holder").read_text() == f"{os.getpid()}"


@pytest.mark.parametrize("name", [".holder", "results.jsonl"])
def test_what_was_copied_of_a_comparison_is_one(tmp_path, name):
    with locked(tmp_path / "before"):
        Results(tmp_path / "before" / "results.jsonl").add("a", {"value": 1.0})
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "before" / name, tmp_path / "copy")
    assert is_comparison(tmp_path / "copy")


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\n", b"[1]\n", b'{"loss": 1}\n', 100_000 * b"["]
)
def test_results_of_another_kind_are_no_comparison(tmp_path, content):
    if content is not None:
        (tmp_path / "results.jsonl").write_bytes(content)
    assert not is_comparison(tmp_path)
