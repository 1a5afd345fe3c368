"""COLA on two processes."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from lightning_fabric import Fabric
from objectives.tiny_asit import batch, samples
from objectives.tiny_cola import cola, config, plan
from two_processes import fabric_of, in_both

from melpatch.data.clip import Batch
from melpatch.training.config import TrainConfig
from melpatch.training.param_groups import param_groups
from melpatch.training.stepping import training_step
from melpatch.training.trainer import Trainer

TRAIN = TrainConfig(steps=2, accumulate=2, lr=0.5, lr_warmup=0.0, grad_clip=None, weight_decay=0.0)
FRAMES = [((48, 20, 31), (30, 5)), ((40,), (25, 48, 12, 33))]
"""Of the clips of each process, per step."""
SETTINGS = [
    {"symmetric": True, "noise_snr_db": 6.0},
    {"similarity": "cosine"},
    {"negatives": "batch"},
]


def sound(at, rank):
    """Return what a process hears in a step."""
    one = batch(FRAMES[at][rank])
    return Batch(one.wave * (1 + at + 0.3 * rank), one.lengths, one.keys + 100 * at + 10 * rank)


def joined(at):
    """Return the clips of both as one batch."""
    both = [sound(at, rank) for rank in range(2)]
    wave = torch.zeros(sum(map(len, both)), samples(48), dtype=torch.float64)
    for row, clip in zip(wave, (clip for one in both for clip in one.wave), strict=True):
        row[: len(clip)] = clip
    return Batch(
        wave, *(torch.cat([getattr(one, name) for one in both]) for name in ("lengths", "keys"))
    )


def trained(fabric, batches, settings):
    """Do the steps by plain descent, so that weights are sums of gradients; return the record and weights of each."""
    objective = cola(**settings)
    objective.begin(plan())
    run_config = replace(config(**settings), train=TRAIN)
    optimizer = torch.optim.SGD(
        param_groups(objective, weight_decay=0.0, layer_decay=1.0, head_lr_scale=1.0)
    )
    module, wrapped = fabric.setup(objective, optimizer)
    trainer = Trainer(fabric, objective, module, wrapped, run_config, len(batches))
    found = []
    for at, parts in enumerate(batches):
        record = training_step(trainer, parts, at)
        found.append(
            (record, {name: value.clone() for name, value in objective.state_dict().items()})
        )
    return found


def process(rank, folder):
    """Be one of two."""
    fabric = fabric_of("64-true")
    batches = [[sound(at, rank)] for at in range(len(FRAMES))]
    return [trained(fabric, batches, settings) for settings in SETTINGS]


def test_two_processes_learn_what_one_learns_from_both_batches(tmp_path, monkeypatch):
    """Joined into one, or accumulated: where each batch has its own negatives, or none."""
    both = in_both(process, tmp_path, monkeypatch)
    fabric = Fabric(accelerator="cpu", devices=1, precision="64-true")
    for number, settings in enumerate(SETTINGS):
        steps = range(len(FRAMES))
        parts = [[sound(at, 0), sound(at, 1)] for at in steps]
        apart = settings.get("negatives") == "batch"
        alone = trained(fabric, parts if apart else [[joined(at)] for at in steps], settings)
        accumulated = trained(fabric, parts, settings)
        for (one, state), (other, again) in zip(alone, accumulated, strict=True):
            assert one == pytest.approx(other, rel=1e-6)
            for name, value in state.items():
                torch.testing.assert_close(
                    value, again[name], rtol=0, atol=1e-9, msg=f"{settings}, {name}"
                )
        for (at, (record, state)), rank in product(enumerate(alone), range(2)):
            told, weights = both[rank][number][at]
            assert told == pytest.approx(record, rel=1e-6)
            for name, value in weights.items():
                torch.testing.assert_close(
                    value, state[name], rtol=0, atol=1e-9, msg=f"{settings}, step {at}: {name}"
                )
        started, ended = cola(**settings).projection[0].weight, alone[-1][1]["projection.0.weight"]
        assert (ended - started).abs().max() > 1e-3
