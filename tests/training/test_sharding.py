"""FSDP2 on two processes: the run of DDP, and states that anybody can go on from."""

import json
import os

import pytest
import torch
from tiny_runs import noises, settings
from two_processes import in_both

from melpatch.checkpoint import load_weights
from melpatch.data.manifest import load_corpus
from melpatch.distributed import on_rank_zero
from melpatch.training.config import build
from melpatch.training.loop import fit
from melpatch.training.run import Run

STEPS = 4


def trained(folder, sounds, **train):
    """Train, or go on; return what is logged, the weights, and what the optimiser remembers."""
    started = on_rank_zero(
        (folder / "config.toml").exists
    )  # or one would find what the first one makes
    config = settings(steps=STEPS, save_every=2, evaluations=2, **train)
    run = Run.reopen(folder) if started else Run.create(folder, config)
    corpus = load_corpus([sounds])
    fit(build(run.config), corpus, run, evaluate=score, select="score")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    saved = folder / "resume" / f"step-{STEPS:09d}"
    moments = torch.load(saved / "optimizer.pt", weights_only=True)
    return lines, load_weights(saved / "model.safetensors"), moments["state"]


def score(objective, step):
    """A number that hangs on all weights."""
    return {
        "score": float(
            sum(parameter.double().square().sum() for parameter in objective.parameters())
        )
    }


def process(rank, folder):
    """Be one of two that torchrun has started; go on alone with what both have left is for others."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
    }
    return [
        trained(folder / name, folder / "noise", strategy=name, accumulate=2)
        for name in ("ddp", "fsdp")
    ]


def near(found, expected):
    for one, other in zip(found[0], expected[0], strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert found[2].keys() == expected[2].keys()
    for number, values in expected[2].items():
        for name, value in values.items():
            torch.testing.assert_close(
                found[2][number][name], value, rtol=1e-2, atol=1e-4, msg=f"{number} {name}"
            )


def test_shares_train_as_copies_do_and_leave_whole_states(tmp_path, monkeypatch):
    noises(tmp_path / "noise")
    for ddp, fsdp in in_both(process, tmp_path, monkeypatch):
        near(fsdp, ddp)
    again = tmp_path / "fsdp" / "resume"
    (
        again / f"step-{STEPS:09d}" / "SHA256SUMS"
    ).unlink()  # damaged, so that it goes on from the one before
    near(trained(tmp_path / "fsdp", tmp_path / "noise"), ddp)
