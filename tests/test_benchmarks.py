"""The benchmarks run, and print one JSON line per figure."""

import dataclasses
import importlib
import json
import shlex
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor

import pytest
from journeys.three_sounds import SHORT, SMALL, settings, write_corpus, write_run
from places import ROOT


def lines(script, *words):
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def benchmark(monkeypatch):
    """A benchmark by its name, whose processes are threads, which start faster."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def load(name):
        module = importlib.import_module(name)
        monkeypatch.setattr(module, "one_process", lambda: ThreadPoolExecutor(1))
        return module

    return load


@pytest.fixture
def budget(benchmark):
    return benchmark("budget")


def test_step_times_every_setting_and_recipes_side_by_side(benchmark, capsys):
    step, precisions = benchmark("step"), ("32-true", "bf16-mixed")
    rest = {"sizes": ("nano",), "precisions": precisions, "seconds": 1.0, "batch_size": (2,), "steps": 2}
    step.main(step.Config(recipes=("ssast", "maskspec"), **rest))
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    settings = [(precision, recipe) for precision in precisions for recipe in ("ssast", "maskspec")]
    assert [(one["precision"], one["recipe"]) for one in found] == settings
    assert all(0 < one["cpu_seconds_per_clip"] <= one["median_cpu_seconds_per_clip"] for one in found)
    assert all(one["peak_memory_mib"] > 0 for one in found)
    for first, second in (found[:2], found[2:]):
        assert first["ratio"] == 1
        assert second["ratio"] == pytest.approx(
            second["cpu_seconds_per_clip"] / first["cpu_seconds_per_clip"], abs=1e-3
        )


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


def results(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def plain(budget, tmp_path, **changes):
    corpus = str(tmp_path / "sounds/corpus.csv")
    if not (tmp_path / "sounds").exists():
        write_corpus(tmp_path / "sounds")
    given = {"data": (corpus,), "probe": (f"three={corpus}:split:test",), "out": tmp_path / "out", "sizes": ("nano",)}
    return budget.Config(**{**given, "cpu_seconds": (0.1,), "timed_steps": 1, **changes})


def test_budget_trains_and_scores_each_recipe(budget, tmp_path):
    recipes = (f"ssast {shlex.join((*SHORT, *SMALL))}", "nonsense")
    budget.main(plain(budget, tmp_path, recipes=recipes))
    cost, run, random, trained, failed = results(tmp_path / "out")
    assert run["steps"] == max(1, round(0.1 / cost["cpu_seconds_per_step"]))
    assert run["clips"] == 6 * run["steps"]
    assert run["passes"] == pytest.approx(run["clips"] / 9, abs=0.01)  # neither val nor test
    assert 0 < run["cpu_seconds"] < run["cpu_seconds_with_start"]
    (folder,) = (tmp_path / "out/runs").iterdir()
    assert tomllib.loads((folder / "config.toml").read_text())["train"]["steps"] == run["steps"]
    assert (random["recipe"], random["budget"], trained["recipe"]) == ("random vit", 0, recipes[0])
    for line in (random, trained):
        assert all(0 <= line[f"{probe}_{pooling}"] <= 1 for probe in budget.PROBES for pooling in budget.POOLINGS)
    assert failed["recipe"] == "nonsense"
    assert "nonsense" in failed["error"]
    table = (tmp_path / "out/table.md").read_text()
    assert f"| nano | `{recipes[0]}` | 0.1 | {run['cpu_seconds']:.4g} | {run['steps']} |" in table
    assert f"{trained['knn_mean']:.3f} / {trained['linear_mean']:.3f}" in table
    assert "Failed: " in table
    assert (tmp_path / "out/budget.png").read_bytes().startswith(b"\x89PNG")


def test_budget_goes_on_where_it_was(budget, tmp_path, monkeypatch):
    made = []

    def counted(name, answer):
        def make(*arguments):
            made.append((name, *arguments))
            if name == "train" and "cola" in arguments[0]:
                raise ValueError("no such luck")
            return answer

        return make

    scored = dict.fromkeys((f"{probe}_{pooling}" for probe in budget.PROBES for pooling in budget.POOLINGS), 0.5)
    spent = {"steps": 2, "clips": 12, "passes": 1.0, "cpu_seconds": 1.0, "encoder": "vit"}
    for name, answer in (("step_cost", {"cpu_seconds_per_step": 0.05}), ("train", spent), ("score", scored)):
        monkeypatch.setattr(budget, name, counted(name, answer))
    once = plain(budget, tmp_path, recipes=("ssast", "cola"))
    budget.main(once)
    assert [name for name, *_ in made] == ["step_cost", "train", "score", "score", "step_cost", "train"]
    assert made[1][2] == 2  # 0.1 / 0.05 steps
    del made[:]
    budget.main(once)
    assert [(name, words[0]) for name, words, *_ in made] == [("train", "cola")]  # a failure is no result
    del made[:]
    budget.main(dataclasses.replace(once, recipes=("ssast",), cpu_seconds=(0.1, 0.2)))
    assert [(name, rest[1]) for name, *rest in made if name == "train"] == [("train", 4)]
    assert [name for name, *_ in made] == ["train", "score"]
    with pytest.raises(SystemExit, match="other --data"):
        budget.main(dataclasses.replace(once, exclude=("test",)))


def test_budget_refuses_to_score_what_was_heard(budget, tmp_path):
    with pytest.raises(SystemExit, match=r"scored by three but pretrained on"):
        budget.main(plain(budget, tmp_path, exclude=("val",)))
    assert not (tmp_path / "out").exists()


def test_a_step_costs_the_mean_after_the_warm_up(budget, monkeypatch):
    clock = budget.Clock(None)
    clock.marks = [0.0, 90.0, 91.0, 92.0, 93.0, 94.0, 97.0]  # the start, and after each step
    monkeypatch.setattr(budget, "pretrained", lambda words: clock)
    assert budget.step_cost([], 2) == {"cpu_seconds_per_step": 2.0}


def test_the_table_gives_mean_and_spread_over_seeds(budget):
    tasks = [budget.task("a=b.csv:fold:1")]
    place = {"size": "nano", "recipe": "ssast", "budget": 60.0}
    lines = [
        line
        for seed, score in ((0, 0.4), (1, 0.6))
        for line in (
            {"what": "run", **place, "seed": seed, "cpu_seconds": 58.0 + seed, "steps": 9, "passes": 1.0},
            {"what": "score", **place, "seed": seed, "task": ["a", "b.csv", "fold", "1"], "knn_mean": score}
            | {"linear_mean": 0.5, "knn_frequency": 0.5, "linear_frequency": score},
        )
    ]
    (row,) = budget.rows_of(lines, tasks)
    cells = "0.500 ± 0.141 / 0.500 ± 0.000 | 0.500 ± 0.000 / 0.500 ± 0.141"
    assert row == f"| nano | `ssast` | 60 | 58.5 | 9 | 1 | 2 | {cells} |"
