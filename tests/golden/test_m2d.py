"""One training forward of the published M2D: predictions, targets, loss, gradients, one step of the teacher.

The numbers are those of shared/golden/weights/m2d: the official code at random weights, in float64.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from places import shared

from melpatch.audio import front_ends
from melpatch.audio.logmel import LogMel
from melpatch.encoders.vit import ViT
from melpatch.nn.ema import Momentum
from melpatch.nn.latent import latent_loss
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.nn.masking import PatchSplit, Subset
from melpatch.objectives.base import Features
from melpatch.objectives.m2d import M2D
from melpatch.recipes.base import clips_to_measure, recipe_settings

FOLDER = "golden/weights/m2d"


def arrays(name):
    with np.load(shared(f"{FOLDER}/{name}.npz")) as saved:
        return {key: torch.from_numpy(saved[key]) for key in saved.files}


@pytest.fixture(scope="module")
def official():
    state = torch.load(shared(f"{FOLDER}/checkpoint.pt"), weights_only=True)["model"]
    return {key: value for key, value in state.items() if torch.is_tensor(value)}


def renamed(state, blocks, norm):
    """Return a transformer's weights under our names."""
    ours = {}
    for key, value in state.items():
        if key.startswith(f"{blocks}."):
            name = key.removeprefix(f"{blocks}.").replace("fc1", "0").replace("fc2", "2")
            ours[f"transformer.blocks.{name}"] = value
        if key.startswith(f"{norm}."):
            ours[f"transformer.norm.{key.removeprefix(f'{norm}.')}"] = value
    return ours


@pytest.fixture
def objective(official):
    settings = {"embed_dim": 48, "depth": 2, "num_heads": 4, "positions": "learned", "columns": 10}
    encoder = ViT(ViT.Config(**settings), n_mels=80)
    config = M2D.Config(
        decoder=MAEDecoder.Config(dim=32, depth=2, num_heads=4, positions="sincos_mae"),
        teacher_start="random",
        momentum=Momentum(start=0.9),
    )
    made = M2D(config, LogMel(LogMel.Config(n_mels=80)), encoder)
    shared_parts = {
        "cls_token": official["cls_token"][0],
        "cls_position": official["pos_embed"][0, :1],
        "position_table": official["pos_embed"][0, 1:],
        "projection.weight": official["patch_embed.proj.weight"].flatten(1),
        "projection.bias": official["patch_embed.proj.bias"],
    }
    encoder.load_state_dict(shared_parts | renamed(official, "blocks", "norm"))
    made.teacher.load_state_dict(shared_parts | renamed(official, "target_blocks", "target_norm"))
    decoder = {
        "embed.weight": official["decoder_embed.weight"],
        "embed.bias": official["decoder_embed.bias"],
        "mask_embed": official["mask_token"].flatten(),
    }
    made.decoder.load_state_dict(decoder | renamed(official, "decoder_blocks", "decoder_norm"))
    made.head.load_state_dict(
        {name: official[f"decoder_pred.{name}"] for name in ("weight", "bias")}
    )
    return made.double()


@pytest.fixture
def forward(objective):
    """Predictions and targets at the masked places of the published draw, and the loss."""
    inputs = arrays("input")
    everywhere = torch.ones(2, 35, dtype=torch.bool)
    split = PatchSplit(
        Subset(inputs["hidden"], everywhere), Subset(inputs["visible"], everywhere[:, :15])
    )
    features = Features(inputs["input"][:, 0].double(), None)
    tokens = objective.encoder.tokens(features.spectrogram)
    predictions = objective.predictions(features, split, tokens)[:, :, 0]
    targets = objective.targets(features, tokens, split)
    return predictions, targets, latent_loss(predictions, targets, everywhere, "cosine")


def test_front_end_is_the_published_one():
    """Before the z-score; its float32 transform is off by up to 1e-3."""
    inputs = arrays("input")
    front_end = LogMel(replace(front_ends.m2d(), mean=0.0, std=1.0))
    spectrogram, _ = front_end(inputs["wave"][None], torch.tensor([len(inputs["wave"])]))
    torch.testing.assert_close(spectrogram, inputs["logmel"][:, 0], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["m2d", "m2d_06", "jepa", "msm_mae"])
def test_recipes_have_its_positions_and_measure_the_corpus(name, official):
    config = recipe_settings(name, "nano", None, with_labels=False)
    assert clips_to_measure(config) > 0
    encoder = ViT(replace(config.encoder, embed_dim=48), n_mels=80)
    torch.testing.assert_close(encoder.positions(10), official["pos_embed"][0, 1:])


def test_forward_is_the_published_one(forward):
    expected = arrays("training")
    predictions, targets, loss = forward
    torch.testing.assert_close(
        predictions, expected["prediction_hidden"].double(), atol=2e-6, rtol=1e-5
    )
    told = expected["teacher_hidden"].double()
    standardised = (told - told.mean(2, keepdim=True)) / (told.var(2, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(targets, standardised, atol=5e-6, rtol=1e-5)
    assert loss.item() == pytest.approx(expected["loss"].item(), abs=1e-6)


def test_gradients_are_the_published_ones(objective, forward):
    *_, loss = forward
    loss.backward()
    expected = arrays("training")
    parts = {
        "cls_token": objective.encoder.cls_token,
        "mask_token": objective.decoder.mask_embed,
        "norm.weight": objective.encoder.transformer.norm.weight,
    }
    for name, parameter in parts.items():
        wanted = expected[f"grad.{name}"].double().flatten()
        torch.testing.assert_close(parameter.grad.flatten(), wanted, atol=1e-7, rtol=1e-4)
    order = json.loads(shared(f"{FOLDER}/keys.json").read_text())["grad_norms_order"]
    norms = dict(zip(order, expected["grad_norms"].tolist(), strict=True))
    ours = {
        "patch_embed.proj.weight": objective.encoder.projection.weight,
        "blocks.0.attn.qkv.weight": objective.encoder.transformer.blocks[0].attn.qkv.weight,
        "decoder_pred.weight": objective.head.weight,
    }
    for name, parameter in ours.items():
        assert parameter.grad.norm().item() == pytest.approx(norms[name], rel=1e-4)
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())


def test_the_teacher_follows_as_published(objective):
    expected = arrays("training")["teacher_norm_weight_after_follow_0.9"]
    objective.after_step(0)
    torch.testing.assert_close(
        objective.teacher.transformer.norm.weight, expected.double(), atol=1e-6, rtol=0
    )
