"""The benchmarks run, and print one JSON line per figure."""

import json
import subprocess
import sys

from journeys.three_sounds import settings, write_corpus, write_run
from places import ROOT


def lines(script, *words):
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_step_times_every_setting():
    words = ("--sizes", "nano", "--precisions", "32-true", "bf16-mixed", "--seconds", "1", "--batch-size", "2")
    found = lines("step.py", *words, "--steps", "1")
    assert [one["precision"] for one in found] == ["32-true", "bf16-mixed"]
    assert all(one["cpu_seconds_per_clip"] > 0 and one["peak_memory_mib"] > 0 for one in found)


def test_probe_scores_a_run_beside_random_weights(tmp_path):
    run = write_run(tmp_path / "run", settings())
    found = lines("probe.py", run, "--data", write_corpus(tmp_path / "sounds"), "--few", "2", "--draws", "1")
    assert [(one["weights"], one["pooling"]) for one in found] == [
        (weights, pooling) for weights in ("random", "trained") for pooling in ("mean", "frequency")
    ]
    assert all(0 <= one[score] <= 1 for one in found for score in ("knn", "linear", "linear_2_per_class"))
