"""Learning rate, weight decay, momentum and temperature, step by step, against those of the official ASiT code."""

import json
import math

import pytest
from places import shared

from melpatch.schedules import cosine, lr_factor, ramp

RUNS = [(release, run) for release in ("c23", "c24") for run in ("run100x50", "run40x7", "run12x3")]


@pytest.fixture(params=RUNS, ids=" ".join)
def stated(request):
    release, run = request.param
    return json.loads(shared("golden/asit/schedules.json").read_text())[release][run]


def total(stated):
    return stated["epochs"] * stated["iterations_per_epoch"]


def close(found, stated, key):
    """At the iterations that are stated, and in sum over the run."""
    assert [found[step] for step in stated["iterations"]] == pytest.approx(
        stated[key], rel=1e-12, abs=0
    )
    assert math.fsum(found) == pytest.approx(stated[f"sum_{key}"], rel=1e-12, abs=0)


def test_learning_rate(stated):
    lr = stated["base_lr"] * stated["global_batch"] / 256
    settings = {
        "schedule": "dino",
        "warmup": stated["warmup_epochs_lr"] / stated["epochs"],
        "floor": 1e-6 / lr,
    }
    unused = {"step_start": 0.5, "step_every": 0.1, "step_factor": 0.5}
    steps = range(total(stated))
    assert stated["min_lr"] == 1e-6
    close([lr * lr_factor(step, len(steps), **settings, **unused) for step in steps], stated, "lr")


@pytest.mark.parametrize(
    ("key", "start", "end"), [("weight_decay", 0.04, 0.4), ("ema_momentum", 0.996, 1.0)]
)
def test_weight_decay_and_momentum(stated, key, start, end):
    steps = range(total(stated))
    close([cosine(start, end, step / len(steps)) for step in steps], stated, key)


def test_teacher_temperature(stated):
    last = stated["warmup_epochs_temperature"] - 1
    found = [ramp(0.04, 0.07, epoch / last) for epoch in range(stated["epochs"])]
    assert found == pytest.approx(stated["teacher_temperature_per_epoch"], rel=1e-12, abs=0)
