"""What every objective promises of several processes: the run of one."""

import json
import os
from dataclasses import replace
from functools import partial

import pytest
import torch
from small_objectives import NAMES, find, small
from tiny_runs import noises, settings
from torch.optim import AdamW
from two_processes import in_both

from melpatch.audio.augment import Augment
from melpatch.checkpoint import load_weights
from melpatch.data.clip import Batch
from melpatch.data.manifest import load_corpus
from melpatch.encoders.vit import ViT
from melpatch.objectives.base import Plan
from melpatch.objectives.classify import Classify
from melpatch.training import feeding, launching, loop, trainer
from melpatch.training.config import build
from melpatch.training.run import Run

LABELS = ("a", "b", "c")
SECONDS = (0.4, 0.15, 0.33, 0.4, 0.22, 0.9, 0.4, 0.18, 0.29, 0.6, 0.4, 0.25) + (0.3, 0.4, 0.2) * 2
_EPSILON = 1e-6
"""Of Adam. By its usual 1e-8 a bias before a batch norm, which has no gradient but rounding of some
1e-15, moves by as much as is compared here; true gradients are far above both."""
BAD = 3  # a clip that turns out to be unreadable
SPLITS = {"2 x 4": 1, "2 x 2 x 2": 2}
"""Batches that each of two processes makes a step of 8 clips of, or of 16 where fours are mixed."""


def config(name, **train):
    """Two steps of an objective with its defaults and narrow heads, drop path and mixup."""
    piece = find(name)
    mixup = Augment.Config(mixup_rate=0.7)
    objective = Classify.Config(augment=mixup) if piece is Classify else piece.Config()
    base = settings(steps=2, **train)
    clips = 16 if piece.clips_together(objective) == 4 else 8
    return replace(
        base,
        encoder=ViT.Config(embed_dim=16, depth=4, num_heads=2, patch=(8, 8), drop_path=0.3),
        objective=small(objective),
        labels=LABELS if piece.needs_labels else (),
        loader=replace(base.loader, batch_size=clips, max_bad_share=0.5),
    )


def trained(folder, sounds, settings):
    """Train in double precision; return what is logged of each step, the weights, and what could not be read."""
    run = Run.create(folder, settings)
    corpus = load_corpus([sounds])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "precision", lambda wanted: "64-true")
        patch.setattr(feeding, "on_device", doubled)
        patch.setattr(trainer, "AdamW", partial(AdamW, eps=_EPSILON))
        loop.fit(build(settings), with_damage(corpus, sounds), run)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rejected = (folder / "rejected.csv").read_text().splitlines()
    return (
        [line for line in lines if "loss" in line],
        load_weights(folder / "model.safetensors"),
        rejected,
    )


def doubled(batches, device):
    """The batches in double precision, where Fabric's conversion comes too late for what looks at them before."""
    for loaded in batches:
        batch = loaded.batch
        yield replace(loaded, batch=batch and replace(batch, wave=batch.wave.double()))


def with_damage(corpus, sounds):
    """The corpus as it was before one of its files was damaged."""
    clip = corpus.clips[BAD]
    return replace(
        corpus,
        clips=(
            *corpus.clips[:BAD],
            replace(clip, path=sounds / "gone.wav"),
            *corpus.clips[BAD + 1 :],
        ),
    )


def process(rank, folder):
    """Be one of two that torchrun has started."""
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
    return {
        (name, split): trained(
            folder / f"{name} {split}", folder / "noise", config(name, accumulate=accumulate)
        )
        for name in NAMES
        for split, accumulate in SPLITS.items()
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What two processes find, and the folder with the sound."""
    folder = tmp_path_factory.mktemp("both")
    noises(folder / "noise", seconds=SECONDS, labels=LABELS)
    with pytest.MonkeyPatch.context() as patch:
        return in_both(process, folder, patch), folder


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_and_accumulated_batches_train_as_one_process_does(both, name, tmp_path):
    (first, second), folder = both
    alone, weights, rejected = trained(tmp_path / "alone", folder / "noise", config(name))
    assert len(alone) == 2
    for split in SPLITS:
        for found in (first[name, split], second[name, split]):
            lines, theirs, missed = found
            assert missed == rejected
            for one, other in zip(alone, lines, strict=True):
                assert other == pytest.approx(one, rel=1e-6)  # Fabric makes them float32
            for key, value in weights.items():
                torch.testing.assert_close(
                    theirs[key], value, rtol=0, atol=1e-10, msg=f"{split}: {key}"
                )


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_clips_weighs_and_teaches_nothing(name):
    """That of a process that can read none of its own."""
    objective = build(config(name)).train()
    objective.begin(Plan(steps=3, batch_size=8, seconds=0.4, longest_segment=0.4))
    output = objective(Batch.empty(3200, len(LABELS) if objective.needs_labels else None), 0)
    assert output.weight == 0
    torch.where(
        output.weight > 0, output.loss * output.weight, 0.0
    ).backward()  # as the loop weighs it
    gradients = [
        parameter.grad for parameter in objective.parameters() if parameter.grad is not None
    ]
    assert gradients
    assert not any(gradient.any() for gradient in gradients)
