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


def test_the_parts_of_an_asit_step_are_told_apart():
    words = ("--recipe", "asit_short", "--sizes", "nano", "--precisions", "32-true", "--seconds", "1")
    (found,) = lines("step.py", *words, "--batch-size", "2", "--steps", "1", "--parts")
    heads = ["local_head_and_loss", "global_head_and_loss"]
    assert sorted(found["parts"]) == sorted(["views", "student", "teacher", "reconstruction", *heads])
    assert 0 < found["parts"]["student"] < found["cpu_seconds_per_clip"] * 2


def test_attention_is_timed_both_ways():
    found = lines("attention.py", "--clips", "2", "--tokens", "9", "--repetitions", "1")
    assert [(one["precision"], one["way"]) for one in found] == [
        (precision, way) for precision in ("float32", "bfloat16") for way in ("fused", "plain")
    ]
    assert all(one["forward_ms"] >= 0 and one["backward_ms"] >= 0 for one in found)


def test_probe_scores_a_run_beside_random_weights(tmp_path):
    run = write_run(tmp_path / "run", settings())
    found = lines("probe.py", run, "--data", write_corpus(tmp_path / "sounds"), "--few", "2", "--draws", "1")
    assert [(one["weights"], one["pooling"]) for one in found] == [
        (weights, pooling) for weights in ("random", "trained") for pooling in ("mean", "frequency")
    ]
    assert all(0 <= one[score] <= 1 for one in found for score in ("knn", "linear", "linear_2_per_class"))
