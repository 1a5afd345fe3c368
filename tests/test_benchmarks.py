"""The benchmarks run, and print one JSON line per figure."""

import importlib
import itertools
import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context

import numpy as np
import pytest
import two_processes  # noqa: F401 - what its forkserver imports
from forked import Forked
from journeys.three_sounds import settings, write_corpus, write_run, write_sound, write_table
from places import ROOT
from tiny_shards import empty_cache

from melpatch.comparison.summary import Mean, Row, Summary
from melpatch.data import ranges


def lines(script, *words):
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def benchmark(monkeypatch):
    """A benchmark by its name, whose processes are threads, which start faster."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    modules = {}

    def load(name):
        if name not in modules:
            modules[name] = importlib.import_module(name)
            one_thread = partial(ThreadPoolExecutor, 1)
            monkeypatch.setattr(modules[name], "one_process", one_thread, raising=False)
        return modules[name]

    return load


TINY = {"sizes": ("nano",), "rounds": 1}


def records(benchmark, capsys, **settings):
    """What the benchmark of speed prints."""
    speed = benchmark("speed")
    speed.main(speed.Config(**TINY | settings))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_task_is_timed_in_every_arithmetic(benchmark, capsys):
    tasks, precisions = ("ssast", "classify", "embed"), ("32-true", "bf16-mixed")
    found = records(
        benchmark,
        capsys,
        tasks=tasks,
        precisions=precisions,
        seconds=(1.0,),
        batch_size=(2,),
        rounds=2,
    )
    assert [(one["precision"], one["task"]) for one in found] == list(product(precisions, tasks))
    for one in found:
        assert 0 < one["cpu_seconds_per_clip"] <= one["median_cpu_seconds_per_clip"]
        assert one["tflops"] == pytest.approx(
            one["gflop_per_clip"] / one["cpu_seconds_per_clip"] / 1e3, rel=0.01
        )
        assert one["share"] == pytest.approx(one["tflops"] / one["ceiling_tflops"], rel=0.05)
        assert one["peak_memory_mib"] > 0
    training, vectors = found[0]["gflop_per_clip"], found[2]["gflop_per_clip"]
    assert 2 < training / vectors < 5  # forwards once, backwards twice, and heads


def test_operations_are_those_of_the_arithmetic_by_hand(benchmark, capsys):
    (found,) = records(
        benchmark,
        capsys,
        tasks=("embed",),
        precisions=("32-true",),
        seconds=(1.0,),
        batch_size=(1,),
    )
    tokens, dim, depth, pixels, mels = 8 * 7 + 1, 96, 4, 256, 128  # 98 frames
    blocks = depth * (12 * dim**2 * tokens + 2 * tokens**2 * dim)
    ears = 98 * mels * 257
    assert found["gflop_per_clip"] * 1e9 == pytest.approx(
        2 * (blocks + (tokens - 1) * pixels * dim + ears), rel=0.02
    )


def test_the_published_steps_take_the_operations_of_ours_and_ssast_of_two_passes(benchmark):
    """Counted alone: their time would be several times as many steps, of 10 s, which is what is published."""
    speed = benchmark("speed")
    two_passes, one_pass, theirs, ours = (
        speed.Stepper(
            speed.Setting("tiny", "32-true", 1, 10.0, 1, task, "eager"), speed.Config(**TINY)
        ).count()
        for task in ("ssast_published", "ssast_patch", "asit_published", "asit_2023")
    )
    assert two_passes == pytest.approx(2 * one_pass, rel=0.03)
    assert theirs == pytest.approx(ours, rel=0.08)


def test_the_length_of_a_published_step_is_that_of_its_release(benchmark, capsys, monkeypatch):
    speed = benchmark("speed")
    for published in speed.PUBLISHED.values():
        monkeypatch.setattr(published, "step", lambda _, spectrograms: spectrograms.square().sum())
    found = records(
        benchmark, capsys, tasks=tuple(speed.PUBLISHED), precisions=("32-true",), sizes=("tiny",)
    )
    assert [one["clip_seconds"] for one in found] == [10.24, 5.92]


def test_the_cost_is_drawn_against_the_length_of_clips(benchmark, capsys, tmp_path, draws):
    settings = {
        "tasks": ("ssast",),
        "precisions": ("32-true",),
        "seconds": (0.5, 1.0),
        "batch_seconds": 2.0,
    }
    found = records(benchmark, capsys, plot=tmp_path / "lengths.png", **settings)
    assert [(one["clip_seconds"], one["batch_size"]) for one in found] == [(0.5, 4), (1.0, 2)]
    assert (tmp_path / "lengths.png").stat().st_size > 1000


def test_two_processes_train_together(benchmark, monkeypatch, capsys):
    context = get_context("forkserver")  # with what two_processes has imported
    monkeypatch.setattr(benchmark("speed"), "one_process", lambda: ProcessPoolExecutor(1, context))
    (found,) = records(
        benchmark,
        capsys,
        tasks=("ssast",),
        precisions=("32-true",),
        processes=(2,),
        seconds=(1.0,),
        batch_size=(2,),
        operators=True,
    )
    assert found["processes"] == 2
    assert found["clips_per_second"] > 0
    assert len(found["operators"]) == 10


def test_memory_is_measured_and_drawn_against_files_and_hours(monkeypatch, capsys, tmp_path, draws):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    memory = importlib.import_module("memory")
    monkeypatch.setattr(memory, "alone", lambda function, *arguments: function(*arguments))
    clock = itertools.count(start=1.0, step=0.001)  # a machine so fast that nothing takes longer
    monkeypatch.setattr(memory, "cpu_seconds", lambda: next(clock))
    settings = {
        "files": (2, 3),
        "hours": (1 / 60,),
        "workers": 0,
        "seconds": 5.0,
        "plot": tmp_path / "memory.png",
    }
    memory.main(memory.Config(**settings))
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["files"], one["rows"]) for one in found] == [(2, 2), (3, 3), (1, 63)]
    assert [one["cpu_seconds"] for one in found] == [0.001] * 3
    assert all(one["peak_mib"] > 0 for one in found)
    assert (tmp_path / "memory.png").stat().st_size > 1000


def test_a_search_is_timed():
    (found,) = lines("search.py", "--rows", "500", "--dims", "8")
    assert (found["rows"], found["dim"]) == (500, 8)
    assert 0 <= found["median_ms"] <= found["worst_ms"]


def test_every_request_of_the_page_is_timed():
    found = lines("page.py", "--rows", "600", "--dim", "24", "--answers", "12")
    assert {"like a label", "like a stretch", "like a file of 10 s", "spectrogram/5", "keep"} <= {
        one["figure"] for one in found
    }
    assert all(0 <= one["median_ms"] <= one["worst_ms"] for one in found)
    assert all(one["peak_mib"] > 0 for one in found)


def test_attention_is_timed_both_ways():
    found = lines("attention.py", "--clips", "2", "--tokens", "9", "--repetitions", "1")
    assert [(one["precision"], one["way"]) for one in found] == [
        (precision, way)
        for precision in ("float32", "bfloat16")
        for way in ("fused", "plain", "blocks")
    ]
    assert all(one["forward_ms"] >= 0 and one["backward_ms"] >= 0 for one in found)


def test_a_run_survives(benchmark, monkeypatch, capsys):
    survival = benchmark("survival")
    Forked(["list"]).communicate()  # no start takes as long as the first of this test session
    monkeypatch.setattr(survival.subprocess, "Popen", lambda command, **_: Forked(command[3:]))
    assert survival.main(survival.Config(kills=1, steps=4, save_every=2)) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (found[0]["after"], found[0]["logged"] <= 4) == ("start", True)
    assert (found[1]["equal_metrics"], found[1]["equal_model"]) == (True, True)


def test_poolings_are_scored_on_validation_clips(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    corpus = write_corpus(tmp_path / "sounds")
    run = write_run(tmp_path / "run", settings())
    words = [run, "--data", corpus, "--split-column", "split", "--train", "train", "--val", "val"]
    poolings = importlib.import_module("pooling")
    poolings.main([*map(str, words), "--poolings", "mean", "rows+std"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["pooling"], line["dim"]) for line in found] == [("mean", 16), ("rows+std", 32)]
    # Three clips, of three classes that what is in which row tells apart.
    assert found[1]["linear, C 0.1"] >= 0.6


def test_ways_to_find_what_is_of_no_class_are_compared(tmp_path):
    corpus = write_corpus(tmp_path / "sounds", per_class=18)
    run = write_run(tmp_path / "run", settings(seconds=1.0))
    words = ("--data", corpus, "--train", "train", "--val", "val", "--others", corpus)
    found = lines("novelty.py", run, *words, "--pooling", "mean", "--clips", 60)
    assert len(found) == 6
    for line in found:
        assert {"way", "sounds", "silence", "hiss", "hum", "pink noise", "white noise"} == {*line}
        assert all(0 <= line[kind] <= 1 for kind in line if kind != "way")


def test_a_part_of_remote_shards_is_counted_in_both_ways(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    empty_cache(tmp_path, monkeypatch)
    monkeypatch.setattr(ranges, "_REQUEST", 0)
    remote_clips = importlib.import_module("remote_clips")
    monkeypatch.setattr(ranges, "_WHOLE_SHARE", ranges._WHOLE_SHARE)
    words = "--shares 0.05 1 --clips 40 --seconds 0.3 --shards 2 --workers 0 --latency-ms 0"
    remote_clips.main(remote_clips.parser().parse_args(words.split()))
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["way"] for line in found] == ["whole shards", "clips where few"] * 2
    assert [line["of_all_bytes"] for line in found] == [1, pytest.approx(0.05, abs=0.02), 1, 1]
    assert [line["requests"] for line in found] == [2, 2, 2, 2]


def test_token_statistics_tell_place_from_time(monkeypatch):
    """Tokens that are made of a place's own part, and of one that changes along a row."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    statistics = importlib.import_module("budget_curve").token_statistics
    draw = np.random.default_rng(0).normal
    of_place = np.broadcast_to(draw(size=(1, 3, 5, 4)), (50, 3, 5, 4))
    assert statistics(of_place)["position"] == pytest.approx(1)
    changing = statistics(of_place + draw(size=(50, 3, 5, 4)))
    assert changing["position"] == pytest.approx(0.5, abs=0.1)
    # Of five columns the variance about their own mean is four fifths.
    assert changing["time"] == pytest.approx(0.4, abs=0.1)
    still = statistics(of_place + draw(size=(50, 3, 1, 4)))
    assert still["time"] == pytest.approx(0, abs=0.02)


def test_augmentations_of_views_are_timed_beside_the_front_end(benchmark, capsys):
    views = benchmark("view_augment")
    views.main(views.Config(clips=2, seconds=0.2, rounds=1))
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(found) == 1 + len(views.ON_WAVES) + len(views.ON_SPECTROGRAMS)
    assert found[0] == found[0] | {"augmentation": "front end", "of_front_end": 1.0}
    assert all(line["ms_per_clip"] > 0 for line in found)


def test_few_and_uneven_labels_are_trained_on_and_scored_by_the_step_that_validation_chose(
    benchmark, tmp_path, capsys
):
    corpus = write_corpus(tmp_path / "sounds", per_class=12)
    run = write_run(tmp_path / "run", settings(depth=1))
    words = (run, "--data", corpus, "--split-column", "split", "--sizes", 4, 1, "--seeds", 3)
    words += ("--probes", "--variants", "plain", "probe+balanced", "probe+rank2", "--epochs", 1)
    # As long as the longest clip, so that training too hears it whole.
    words += ("--seconds", 1.4)
    out = tmp_path / "few.jsonl"
    benchmark("few_labels").main([*map(str, words), "--evaluations", "1", "--out", str(out)])
    records = {record["variant"]: record for record in map(json.loads, out.open())}
    rules = ["linear equal", "linear sqrt", "linear balanced"]
    assert list(records) == [*rules, "plain", "probe+balanced", "probe+rank2"]
    for record in records.values():
        assert sorted(record["train_sizes"]) == [1, 2, 4]
        assert all(len(found) == 6 + 12 for found in record["evaluations"])
    # The start and the end of a head that starts from the probe with the same weights.
    first, _ = records["probe+balanced"]["evaluations"]
    assert [first] == records["linear balanced"]["evaluations"]
    capsys.readouterr()
    benchmark("few_labels_table").main([str(out)])
    scored = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["variant"] for line in scored] == [*records]
    assert [line["variant"] for line in scored if "gain" in line] == [
        *rules[1:],
        "probe+balanced",
        "probe+rank2",
    ]


def test_a_step_is_chosen_by_balanced_accuracy_at_the_rates_of_training(benchmark):
    table = benchmark("few_labels_table")
    val, test = [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1]
    evaluations = [[0] * 8 + [0, 0, 0, 0], [0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1]]
    run = table.chosen(
        {"train_sizes": [8, 2], "val": val, "test": test, "evaluations": evaluations}
    )
    # One validation clip of class 1 remains, which the second step has right.
    assert run.predicted.tolist() == [0, 1, 1, 1]
    assert table.scores(run) == {
        "balanced": 0.75,
        "macro_f1": pytest.approx((2 / 3 + 4 / 5) / 2),
        "at_training_rates": 0.8 * 0.5 + 0.2,
        "rarest_third": 1.0,
        "commonest_third": 0.5,
    }
    always = run._replace(predicted=np.array([0, 0, 0, 0]))
    assert table.difference([run], [always])["gain"] == 0.25


def test_start_up_is_measured_for_every_kind_of_list(benchmark, capsys):
    corpus_size = benchmark("corpus_size")
    kinds = ("csv", "parquet", "shards", "folder")
    corpus_size.main(corpus_size.Config(clips=(9,), kinds=kinds, per_shard=4, labels=3))
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["kind"] for record in records] == [*kinds]
    assert all(record["clips"] == 9 for record in records)


def test_an_index_that_streams_yields_each_clip_once_and_from_any_draw(
    benchmark, monkeypatch, tmp_path
):
    cluster = benchmark("cluster")
    monkeypatch.setattr(cluster, "_BLOCK", 1000)  # shorter than the lines of a shard
    index, counts = tmp_path / "index.csv", np.full(30, 100)
    cluster.write_index(index, 3000)
    places = cluster.shard_places(index, counts)
    config = cluster.Config(shards_at_once=7)
    keys = [int(cells[5]) for cells in cluster.streamed(index, places, counts, config)]
    draws = cluster.shard_order(counts, 7, config.seed, 0)
    assert keys == [100 * shard + place for shard, place in draws]
    assert sorted(keys) == [*range(3000)]
    late = cluster.streamed(index, places, counts, config, first=1234)
    assert [int(cells[5]) for cells in late] == keys[1234:]


def test_vectors_are_those_of_transformers(benchmark, capsys):
    pytest.importorskip("transformers", reason="transformers is not installed")
    inference = benchmark("inference")
    inference.main(inference.Config(sizes=("nano",), clips=2, batch_size=2, rounds=1))
    half, exact = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert exact["cosine"] > 0.99999
    assert half["cosine"] > 0.999
    assert half["ratio"][1] <= half["ratio"][0] <= half["ratio"][2]


def test_a_listener_finds_calls_in_every_order_and_they_are_drawn(
    benchmark, monkeypatch, capsys, tmp_path, draws
):
    module = benchmark("simulated_listener")
    monkeypatch.setattr(module, "RARE_SCENES", ("sweep_up",))
    run = write_run(tmp_path / "run", settings())
    given = {"calls": 6, "seeds": 1, "errors": 0.0, "most": 24, "minutes": 6}
    module.main(module.Config(kind="scenes", sources=(run,), **given))
    text = capsys.readouterr().out
    trials = [json.loads(line) for line in text.splitlines()]
    assert [trial["order"] for trial in trials] == ["random", "alike", "likely", "unsure", "far"]
    assert len({trial["calls"] for trial in trials}) == 1
    # A listener without errors who hears everything finds all calls but the known one.
    assert len(trials[0]["found_after"]) == trials[0]["calls"] - 1
    for trial in trials[1:]:
        assert trial["found_after"] == sorted(trial["found_after"])
        assert all(1 <= answers <= 24 for answers in trial["found_after"])
    (tmp_path / "lines.jsonl").write_text(text)
    sources = (tmp_path / "lines.jsonl",)
    module.main(module.Config(kind="draw", sources=sources, out=tmp_path / "found.png"))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["order"] for row in rows] == ["random", "alike", "far", "unsure", "likely"]
    needed = trials[0]["found_after"][-(-(trials[0]["calls"] - 1) // 2) - 1]
    assert rows[0]["answers_until_50%"] == [needed] * 3
    assert (tmp_path / "found.png").stat().st_size > 1000


def test_a_class_of_esc50_is_made_rare(benchmark, monkeypatch, capsys, tmp_path):
    module = benchmark("simulated_listener")
    run = write_run(tmp_path / "run", settings())
    rows = []
    for number in range(30):
        label = ("low", "high", "noise")[number % 3]
        write_sound(tmp_path / f"{number}.wav", label, 2.0, seed=number)
        rows.append((f"{number}.wav", label))
    manifest = write_table(tmp_path / "manifest.csv", ("path", "label"), rows)
    config = module.Config(kind="esc50", sources=(run, manifest), calls=6, classes=1, seeds=2)
    module.main(config)
    trials = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(trials) == 10
    assert {trial["rows"] for trial in trials} == {20 + 6}
    assert all(trial["calls"] <= 6 for trial in trials)


def test_recipes_are_searched_with_equal_effort(tmp_path, monkeypatch, capsys):
    """Here a run's score is its learning rate, so that the highest ones must come furthest."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    search = importlib.import_module("recipe_search")
    corpus = write_corpus(tmp_path / "sounds", per_class=2)
    (tmp_path / "spec.toml").write_text(
        f"""
        title = "two recipes"
        sound = {{data = ["{corpus}"]}}
        methods = [
            {{name = "A", recipe = "ssast"}},
            {{name = "B", recipe = "maskspec"}},
            {{name = "C", recipe = "cola"}},
        ]
        tasks = [{{name = "three", data = "{corpus}", split = ["val"]}}]
        budgets = [{{name = "nano", sizes = ["nano"], protocols = ["knn"]}}]
        """
    )
    trained = []

    class Scored:
        def __init__(self, folder, runs, floors):
            self.runs = self.results = runs
            assert floors is False

        def carry_out(self, jobs, after):
            trained.append([(run.method.name, run.amount) for run in self.runs])

    def summarise(runs, results):
        for run in runs:
            flags = run.method.flags.split()
            rate = float(flags[flags.index("--lr") + 1]) if flags else 0.001
            # One of them has failed.
            if run.method.name != "B 2":
                row = Row(run.method.name, run.size, run.budget)
                yield Summary(row, "knn", Mean(rate + 0.0001 * run.amount, None, 1), None)

    monkeypatch.setattr(search, "Comparison", Scored)
    monkeypatch.setattr(search, "summarise", summarise)
    words = [
        "--candidates",
        "6",
        "--cpu-seconds",
        "1",
        "2",
        "4",
        "--only",
        "A",
        "B",
        "--out",
        "out",
    ]
    monkeypatch.chdir(tmp_path)
    search.main(["spec.toml", *words])
    assert [len(rung) for rung in trained] == [6, 3, 1, 6, 3, 1]
    assert trained[0] == [("A", 1.0), *((f"A {number}", 1.0) for number in range(1, 6))]
    shown = (tmp_path / "out" / "search.md").read_text()
    assert shown.strip() == capsys.readouterr().out.strip()
    rows = [line.strip("| ").split(" | ") for line in shown.splitlines() if "--lr" in line]
    assert len(rows) == 10
    assert rows[0][1:4] == ["0.003", "0.003", "0.003"]  # of A, the recipe has a third of this rate
    assert [row[1] for row in rows[:5]] == sorted((row[1] for row in rows[:5]), reverse=True)
    (failed,) = (row for row in rows if "failed" in row)
    assert failed[:2] == ["2", "failed"]
