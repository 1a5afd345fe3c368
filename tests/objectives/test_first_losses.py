"""At initial weights M2D's and EAT's losses are those of predictions that know nothing of the targets."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from melpatch.data.clip import Batch
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.nn.masking import Masking, join_splits
from melpatch.objectives.base import Plan
from melpatch.recipes.base import recipe
from melpatch.training.config import build

SECONDS = 2.575
CLIPS = 3
DIM = 384


def first(name, seed=0, **settings):
    """Return a recipe's objective before its first step, wide and of one layer, and noise for it."""
    config = recipe(name)("small")
    front_end = config.front_end
    if front_end.padding == "legacy":
        front_end = replace(front_end, target_frames=256)
    objective = build(
        replace(
            config,
            seed=seed,
            front_end=front_end,
            loader=replace(config.loader, seconds=SECONDS),
            encoder=replace(config.encoder, depth=1),
            objective=replace(config.objective, **settings),
        )
    )
    objective.begin(Plan(steps=10, batch_size=CLIPS, seconds=SECONDS, longest_segment=SECONDS))
    samples = round(SECONDS * objective.front_end.sample_rate)
    generator = torch.Generator().manual_seed(seed)
    loudness = torch.rand(CLIPS, 16, generator=generator).repeat_interleave(samples // 16, dim=1)
    noise = torch.randn(loudness.shape, generator=generator) * loudness
    lengths = torch.full((CLIPS,), noise.shape[1])
    return objective.eval(), Batch(noise, lengths, torch.arange(CLIPS))


@torch.inference_mode()
def test_m2ds_first_loss_is_that_of_unrelated_unit_vectors():
    """2 - 2 cos is the squared distance of two unit vectors, and 2 for orthogonal ones."""
    decoder = MAEDecoder.Config(dim=64, depth=1, num_heads=2)
    losses = []
    for seed in range(8):
        objective, data = first("m2d", seed, decoder=decoder)
        losses.append(objective(data, 0).loss.item())
    assert losses == [pytest.approx(2.0, abs=0.25)] * 8
    assert sum(losses) / 8 == pytest.approx(2.0, abs=0.1)


def first_eat(**settings):
    mask = Masking.Config(kind="inverse_block", ratio=0.8)
    return first("eat", mask=mask, views=2, **settings)


@torch.inference_mode()
def test_eats_first_patch_loss_is_sqrt_dim_for_a_prediction_of_zero():
    """Targets have variance 1. The published value of 27.7 is that of 768 channels."""
    objective, data = first_eat()
    nn.init.zeros_(objective.decoder.head.weight)
    nn.init.zeros_(objective.decoder.head.bias)
    metrics = objective(data, 0).metrics
    assert metrics["patch"].item() == pytest.approx(math.sqrt(DIM), rel=1e-3)


@torch.inference_mode()
def test_eats_first_predictions_are_unrelated_to_the_targets():
    """So the first patch loss is the energy of both, 2.8 times sqrt(dim): the decoder's outputs are not near 0."""
    objective, data = first_eat()
    features = objective.features(data)
    split = join_splits(objective.mask_views(data, features, 0))
    predictions, _ = objective.predict(features, split, objective.noise(data, features, 0))
    energy = predictions.square().mean().item()
    loss = objective(data, 0).metrics["patch"].item()
    assert loss == pytest.approx(math.sqrt(DIM) * (1 + energy), rel=0.05)
    assert energy == pytest.approx(1.7, abs=0.4)


@torch.inference_mode()
def test_eats_first_utterance_loss_is_the_energy_of_the_class_token():
    """The class token comes out of a LayerNorm, and the instance norm leaves its target next to nothing."""
    objective, data = first_eat()
    metrics = objective(data, 0).metrics
    assert metrics["utterance"].item() == pytest.approx(math.sqrt(DIM), rel=0.05)
