"""The fuzzers: the driver tells what came of a case, and a few cases of each fuzzer do no harm."""

import functools
import importlib
import os
import signal
import time
from shutil import copytree

import pytest
from places import ROOT

from melpatch.errors import DataError


@pytest.fixture
def fuzzers(monkeypatch):
    """A module of ``benchmarks/fuzz`` by its name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "fuzz")
    return importlib.import_module


def refuse(text):
    raise DataError(text)


def fill_memory():
    bytearray(1 << 36)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("call", "verdict"),
    [
        (lambda: None, "taken"),
        (lambda: refuse("no"), "refused"),
        (lambda: 1 / 0, "defect"),
        (lambda: time.sleep(60), "hang"),
        (fill_memory, "defect"),
        (kill, "killed"),
    ],
)
def test_the_driver_tells_what_came_of_a_case(fuzzers, call, verdict):
    driver = fuzzers("driver")
    seconds = 0.5 if verdict == "hang" else 60.0  # the others may be slow beside other work
    (outcome,) = driver.fuzz(
        lambda folder: None,
        lambda rng, base, folder: driver.Case("made up", call=call),
        seed=0,
        count=1,
        limits=driver.Limits(seconds=seconds),
    )
    assert outcome.verdict == verdict
    assert bool(driver.bad([outcome])) == (verdict not in ("taken", "refused"))


def test_damaged_audio_does_no_harm(fuzzers):
    driver, audio = fuzzers("driver"), fuzzers("audio")
    outcomes = driver.fuzz(audio.prepare, audio.case, seed=0, count=10)
    assert driver.bad(outcomes) == []
    assert {outcome.verdict for outcome in outcomes} == {"taken", "refused"}


def test_a_case_depends_on_seed_and_number_alone(fuzzers):
    driver, mutations = fuzzers("driver"), fuzzers("mutations")

    def names(seed, first, count):
        def case(rng, base, folder):
            return driver.Case(mutations.damaged(rng, b"RIFF" * 100)[1], call=lambda: None)

        outcomes = driver.fuzz(lambda folder: None, case, seed=seed, count=count, first=first)
        return [outcome.name for outcome in outcomes]

    assert names(1, 0, 4)[2:] == names(1, 2, 2)
    assert names(1, 0, 4) != names(2, 0, 4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A tiny run of a recipe or ``classify``, trained once for all fuzzers, by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks" / "fuzz")
        tiny = importlib.import_module("tiny")
    folder = tmp_path_factory.mktemp("runs")
    data = tiny.sounds(folder / "sounds")
    pretrained, classifier = tiny.pretrained, tiny.classifier

    @functools.cache
    def run(name):
        if name == "classify":
            return classifier(folder / name, data)
        return pretrained(folder / name, name, data)

    return run


@pytest.mark.parametrize(
    "name", ["weights", "configs", "run_folders", "manifests", "shards", "flags", "servers"]
)
def test_a_few_cases_of_each_fuzzer_do_no_harm(fuzzers, runs, monkeypatch, name):
    driver, fuzzer, tiny = fuzzers("driver"), fuzzers(name), fuzzers("tiny")
    monkeypatch.setattr(tiny, "pretrained", lambda to, recipe, data: copytree(runs(recipe), to))
    monkeypatch.setattr(tiny, "classifier", lambda to, data: copytree(runs("classify"), to))
    if name == "configs":
        monkeypatch.setattr(fuzzer, "RECIPES", ("ssast",))
    outcomes = driver.fuzz(fuzzer.prepare, fuzzer.case, seed=15, count=3)
    assert driver.bad(outcomes) == []
