"""What torchrun does with a training: the run of one process, its errors, and its restarts."""

import json
import os
import subprocess
import sys

import pytest
from places import ROOT
from tiny_runs import noises

from melpatch.cli import main

FRAIL = '''
"""An objective that does not survive its third step on the second process."""

import os
import signal
from dataclasses import dataclass

from melpatch import distributed
from melpatch.errors import DataError
from melpatch.objectives.ssast import SSAST


class Frail(SSAST):
    """SSAST."""

    @dataclass(frozen=True, kw_only=True)
    class Config(SSAST.Config):
        """Settings."""

        kill: bool = False
        """Whether it is killed, or raises."""

    def forward(self, batch, step):
        if step == 2 and distributed.rank() == 1 and not distributed.restarted():
            if self.config.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise DataError("clip 7 is too loud")
        return super().forward(batch, step)
'''
FLAGS = (
    "--size nano --steps 4 --batch-size 8 --seconds 0.4 --workers 0 --log-every 1 --save-every 1 --evaluations 2 "
    "--precision 32-true --front-end.sample-rate 8000"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with sound and the objective."""
    folder = tmp_path_factory.mktemp("place")
    noises(folder / "noise")
    (folder / "fraillab.py").write_text(FRAIL)
    return folder


def words(place, name, *more):
    about = ["--data", str(place / "noise"), "--out", str(place / name)]
    return ["pretrain", "fraillab:Frail", *about, *FLAGS.split(), *more]


def torchrun(place, *arguments):
    """Return what two processes leave behind that torchrun starts."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *arguments,
    ]
    environment = os.environ | {
        "PYTHONPATH": f"{place}{os.pathsep}{ROOT / 'src'}",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def said(done):
    """The lines of melpatch, without those of torchrun."""
    return [line for line in done.stderr.splitlines() if line.startswith("melpatch pretrain: ")]


def test_a_killed_process_costs_nothing_but_a_restart(place, monkeypatch):
    done = torchrun(
        place, "--max-restarts", "1", "-m", "melpatch", *words(place, "two", "--objective.kill")
    )
    assert done.returncode == 0, done.stderr
    assert len(said(done)) <= 1  # torchrun may be faster than the one that is left
    assert all("another process exited without a message" in line for line in said(done))
    monkeypatch.syspath_prepend(place)
    assert main(words(place, "one")) == 0
    one, two = (
        (place / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")
    )
    assert len(one) == len(two) == 6
    for alone, together in zip(map(json.loads, one), map(json.loads, two), strict=True):
        assert together == pytest.approx(alone, rel=1e-4)


def test_the_error_of_one_process_is_that_of_the_run(place):
    done = torchrun(place, "-m", "melpatch", *words(place, "failed"))
    assert done.returncode != 0
    assert said(done) == ["melpatch pretrain: error: clip 7 is too loud"]
    assert done.stderr.count("parameters") == 1  # the first process alone tells what goes on
