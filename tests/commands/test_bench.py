"""``melpatch bench data``: every stage on the way from a file to a training step, over the same clips."""

import json
import multiprocessing
import re
from itertools import count
from types import SimpleNamespace

import pytest
from journeys.three_sounds import melpatch, settings, write_corpus, write_run

from melpatch.cli import main
from melpatch.commands import bench

FAST = (
    "--size",
    "nano",
    "--batch-size",
    "4",
    "--batches",
    "3",
    "--rounds",
    "1",
    "--precision",
    "32-true",
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"), per_class=6)


@pytest.fixture
def clock(monkeypatch):
    """Clocks of which every reading is later than the last, by 2 s for the wall clock, 1 s for CPU time.

    The CPU time is read before and after each stage. After it, the loader's processes must have ended, since only
    then are theirs included.
    """
    wall = count(0.0, 2.0)
    readings = count()

    def cpu_seconds():
        reading = next(readings)
        if reading % 2 == 1:
            assert not multiprocessing.active_children()
        return float(reading)

    monkeypatch.setattr(bench, "time", SimpleNamespace(monotonic=lambda: next(wall)))
    monkeypatch.setattr(bench, "cpu_seconds", cpu_seconds)


def test_every_stage_has_its_rates(corpus, capsys, clock):
    melpatch("bench", "data", "--data", corpus, "--json", "--workers", "1", *FAST)
    measured = json.loads(capsys.readouterr().out)
    *stages, held, fed = measured["stages"]
    assert [stage["stage"].partition(",")[0] for stage in stages] == [
        "decode",
        "pack",
        "load",
        "front end",
    ]
    assert {(stage["clips"], stage["audio_seconds"]) for stage in measured["stages"]} == {
        (12, fed["audio_seconds"])
    }
    for stage in measured["stages"]:
        assert stage["clips_per_second"] == pytest.approx(12 / stage["seconds"])
        assert stage["cpu_ms_per_clip"] == pytest.approx(1000 * stage["cpu_seconds"] / 12)
    assert measured["share"]["by_clock"] == pytest.approx(held["seconds"] / fed["seconds"])
    assert measured["share"]["by_cpu_seconds"] == pytest.approx(
        held["cpu_seconds"] / fed["cpu_seconds"]
    )


def test_of_several_rounds_the_middle_one_counts():
    rates = [bench.Rate("a", 4, 8.0, *times) for times in [(9.0, 2.0), (1.0, 5.0), (3.0, 7.0)]]
    assert bench.median_rate(rates) == bench.Rate("a", 4, 8.0, 3.0, 5.0)


def test_a_table_for_people_and_what_to_do_when_the_training_waits(corpus, capsys, monkeypatch):
    monkeypatch.setattr(bench, "_ENOUGH", 1000.0)
    melpatch("bench", "data", "--data", corpus, "--workers", "0", *FAST)
    captured = capsys.readouterr()
    assert re.search(
        r"With loading, training keeps \d[\d.]*% of its rate by the clock", captured.out
    )
    assert "training waits for data" in captured.err
    monkeypatch.setattr(bench, "_ENOUGH", 0.0)
    melpatch("bench", "data", "--data", corpus, "--workers", "0", *FAST)
    assert "training does not wait for data" in capsys.readouterr().err


def test_a_training_with_labels_is_fed_labels(corpus, capsys):
    melpatch(
        "bench", "data", "--data", corpus, "--recipe", "classify", "--workers", "0", "--json", *FAST
    )
    assert len(json.loads(capsys.readouterr().out)["stages"]) == 6


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("data", "--batches", "1"), "--batches 1; allowed: 2 or more"),
        (("data", "--rounds", "0"), "--rounds 0; allowed: 1 or more"),
        (("data",), "--data is missing"),
    ],
)
def test_what_cannot_be_measured_is_told(words, told, capsys):
    assert main(["bench", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_distillation_is_measured_with_its_teacher(corpus, tmp_path, capsys):
    teacher = write_run(tmp_path / "teacher", settings(seconds=2.0))
    flags = ("--recipe", "distill", "--seconds", "1", "--objective.teacher", teacher)
    melpatch("bench", "data", "--data", corpus, *FAST, *flags, "--json")
    assert len(json.loads(capsys.readouterr().out)["stages"]) == 6
    words = ("bench", "data", "--data", str(corpus), *FAST, "--recipe", "distill")
    assert main(list(words)) == 2
    assert "--objective.teacher is missing" in capsys.readouterr().err
