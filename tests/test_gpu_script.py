"""The script for a GPU runs its parts as far as a processor can, and clusters are simulated."""

import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from places import ROOT


@pytest.fixture
def benchmark(monkeypatch):
    """A benchmark by its name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def test_an_order_without_a_list_has_every_clip_once_and_can_be_entered_anywhere(benchmark):
    cluster = benchmark("cluster")
    counts = np.array([3, 0, 5, 1, 4])
    whole = [*cluster.shard_order(counts, 2, 0, 0)]
    assert sorted(whole) == [(shard, n) for shard, count in enumerate(counts) for n in range(count)]
    assert whole != [*cluster.shard_order(counts, 2, 0, 1)]
    assert all([*cluster.shard_order(counts, 2, 0, 0, n)] == whole[n:] for n in range(13))


def test_a_cluster_is_simulated(benchmark, capsys):
    cluster = benchmark("cluster")
    cluster.main(
        cluster.Config(
            clips=1000,
            shards=50,
            hours=40.0,
            hours_per_fault=800.0,
            gpus=(8,),
            trials=50,
            save_seconds=0.1,
        )
    )
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    cut_off = [record for record in found if record["what"] == "interruptions"]
    # 40 h of work, and a fault each 100 h: more where less is saved, and more than saving alone.
    assert cut_off[0]["share_lost"] < cut_off[-1]["share_lost"] < 0.1
    assert 0.2 < cut_off[1]["faults"] < 0.8
    assert cut_off[0]["best_save_minutes"] == pytest.approx(
        60 * (2 * 0.1 / 3600 * 100) ** 0.5, abs=0.1
    )
    stopped = [record["runs_that_stop"] for record in found if record["what"] == "shards"]
    assert stopped[0] == 0
    assert stopped[-1] > 0


TOLD = "import json, sys; print(json.dumps({'task': sys.argv[1], 'clips_per_second': 2.5}))"


@pytest.fixture
def gpu(benchmark, monkeypatch):
    """The benchmark of a GPU, with parts of its own, on a machine that seems to have one."""
    script = benchmark("gpu")
    monkeypatch.setattr(script.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(script.torch.cuda, "get_device_name", lambda number: "a made-up GPU")
    told = (sys.executable, "-c", TOLD)
    toys = {
        "fine": script.Part(60, ((*told, "a"), (*told, "b"))),
        "wrong": script.Part(60, ((sys.executable, "-c", "raise SystemExit(3)"), (*told, "c"))),
        "slow": script.Part(2, ((sys.executable, "-c", "import time; time.sleep(600)"),)),
        "both": script.Part(60, ((*told, "d"), (*told, "e")), at_once=True),
    }
    monkeypatch.setattr(script, "parts", lambda config: toys)
    return script


def test_the_parts_of_a_gpu_are_run_kept_and_summarised(gpu, tmp_path, capsys):
    gpu.main(gpu.Config(out=tmp_path))
    whole = json.loads((tmp_path / "gpu.json").read_text())
    assert whole["device"] == "a made-up GPU"
    status = {name: part["status"] for name, part in whole["parts"].items()}
    wrong = "failed (exit code 3)"
    assert status == {"fine": "done", "wrong": wrong, "slow": "timed out", "both": "done"}
    assert [record["task"] for record in whole["parts"]["fine"]["records"]] == ["a", "b"]
    table = (tmp_path / "gpu.md").read_text()
    assert "| both | e |  |  |  |  | 2.5 |  |  |" in table
    capsys.readouterr()
    # What is done is not done again, unless it is asked for.
    gpu.main(gpu.Config(out=tmp_path, parts=("fine", "both"), again=("both",)))
    printed = capsys.readouterr().out
    assert "both: done" in printed
    assert "fine" not in printed


def test_parts_of_a_gpu_for_which_no_time_is_left_wait_for_the_next_call(
    gpu, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(gpu, "LIMIT", 10.0)
    gpu.main(gpu.Config(out=tmp_path, parts=("fine",)))
    assert "fine: left for the next call" in capsys.readouterr().out
    assert not (tmp_path / "fine.json").exists()


def test_the_parts_of_a_gpu_take_less_than_nine_minutes_together(benchmark):
    script = benchmark("gpu")
    assert (
        sum(part.seconds for part in script.parts(script.Config()).values()) <= script.LIMIT < 540
    )


def test_without_a_gpu_one_line_says_so(tmp_path):
    command = ["sh", str(ROOT / "benchmarks" / "gpu.sh"), "--out", str(tmp_path / "out")]
    environment = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "sees no GPU here" in done.stderr
    assert not (tmp_path / "out").exists()


def test_graphs_are_timed_and_noise_is_written_for_a_gpu(benchmark, tmp_path, capsys):
    graphs = benchmark("cuda_graphs")
    graphs.main(graphs.Config(ways=("eager",), size="nano", batch_size=(1, 2), frames=64, steps=1))
    assert [json.loads(line)["batch_size"] for line in capsys.readouterr().out.splitlines()] == [
        1,
        2,
    ]
    noise = benchmark("gpu_noise")
    noise.main(noise.Config(tmp_path / "noise", clips=2, seconds=0.1))
    assert sorted(path.name for path in (tmp_path / "noise").iterdir()) == [
        "0000.flac",
        "0001.flac",
    ]
