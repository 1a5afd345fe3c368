"""What torchrun does with a training: the run of one process, its errors, and its restarts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes  # noqa: F401 - what its forkserver imports
from places import ROOT
from tiny_runs import noises
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

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


def said(text):
    """The lines of melpatch, without those of torchrun."""
    return [line for line in text.splitlines() if line.startswith("melpatch pretrain: ")]


@pytest.fixture
def launch(place, monkeypatch):
    """What torchrun does, in this process, with two forked ones that start again once: five imports less."""
    monkeypatch.syspath_prepend(ROOT)  # by which the processes find what they are to do
    monkeypatch.syspath_prepend(place)
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    handlers = {each: signal.getsignal(each) for each in signals}

    def start(words, told):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=2,
            max_restarts=1,
            run_id="journey",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            start_method="forkserver",
        )
        elastic_launch(config, be_melpatch)(words, told)

    yield start
    for each, handler in handlers.items():
        signal.signal(each, handler)


def be_melpatch(words, told):
    """Be a process of torchrun that runs a command, and appends what it tells to a file."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    with Path(told).open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
    if status := main(words):
        sys.exit(status)


def test_a_killed_process_costs_nothing_but_a_restart(place, launch):
    launch(words(place, "two", "--objective.kill"), str(place / "told"))
    lines = said((place / "told").read_text(encoding="utf-8"))
    assert len(lines) <= 1  # torchrun may be faster than the one that is left
    assert all("another process exited without a message" in line for line in lines)
    assert len(json.loads((place / "two" / "environment.json").read_text())) == 2  # starts
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
    assert said(done.stderr) == ["melpatch pretrain: error: clip 7 is too loud"]
    assert done.stderr.count("parameters") == 1  # the first process alone tells what goes on
