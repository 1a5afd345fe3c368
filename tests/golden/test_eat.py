"""One training forward of the published EAT: targets, predictions, both losses and gradients.

The numbers are those of shared/golden/weights/eat: the official code at random weights, in float64.
"""

import numpy as np
import pytest
import torch
from places import shared

from melpatch.audio.logmel import LogMel
from melpatch.encoders.vit import ViT
from melpatch.nn.conv_decoder import ConvDecoder
from melpatch.nn.latent import latent_loss
from melpatch.nn.masking import PatchSplit, Subset
from melpatch.objectives.base import Features
from melpatch.objectives.eat import EAT

FOLDER = "golden/weights/eat"
ROWS = 8
COLUMNS = 10
PART = "modality_encoders.IMAGE"


def arrays(name):
    with np.load(shared(f"{FOLDER}/{name}.npz")) as saved:
        return {key: torch.from_numpy(saved[key]).double() for key in saved.files}


def frequency_major(tokens):
    """Return tokens (..., token, dim) that are numbered column by column, row by row."""
    grid = tokens.unflatten(-2, (-1, ROWS))
    return grid.transpose(-3, -2).flatten(-3, -2)


def places(masks):
    """Return the numbers, in our order, of the masked and of the visible patches of each view."""
    ours = frequency_major(masks[..., None])[..., 0] > 0.5
    return [torch.stack([row.nonzero()[:, 0] for row in chosen]) for chosen in (ours, ~ours)]


def encoder_state(state):
    positions = state[f"{PART}.fixed_positional_encoder.positions"][0, : ROWS * COLUMNS]
    kernel = state[f"{PART}.local_encoder.proj.weight"]
    ours = {
        "cls_token": state[f"{PART}.extra_tokens"][0],
        "cls_position": torch.zeros(1, 48),
        "position_table": frequency_major(positions),
        # Theirs is a convolution over (frame, mel).
        "projection.weight": kernel[:, 0].transpose(1, 2).flatten(1),
        "projection.bias": state[f"{PART}.local_encoder.proj.bias"],
        "transformer.norm.weight": state[f"{PART}.context_encoder.norm.weight"],
        "transformer.norm.bias": state[f"{PART}.context_encoder.norm.bias"],
    }
    for key, value in state.items():
        if key.startswith("blocks."):
            ours[f"transformer.{key}".replace("fc1", "0").replace("fc2", "2")] = value
    return ours


@pytest.fixture
def objective():
    state = torch.load(shared(f"{FOLDER}/checkpoint.pt"), weights_only=True)["model"]
    settings = {"embed_dim": 48, "depth": 2, "num_heads": 4, "norm": "post"}
    config = ViT.Config(**settings, positions="learned", columns=COLUMNS)
    made = EAT(
        EAT.Config(views=2, decoder=ConvDecoder.Config(depth=6, groups=16)),
        LogMel(),
        ViT(config, n_mels=128),
    )
    made.encoder.load_state_dict(encoder_state(state))
    made.teacher.load_state_dict(encoder_state(state["_ema"]))
    decoder = {}
    for layer in range(6):
        kernel = state[f"{PART}.decoder.blocks.{layer}.0.weight"]
        decoder[f"convolutions.{layer}.weight"] = kernel.transpose(2, 3)
        decoder[f"convolutions.{layer}.bias"] = state[f"{PART}.decoder.blocks.{layer}.0.bias"]
    for name in ("weight", "bias"):
        decoder[f"head.{name}"] = state[f"{PART}.decoder.proj.{name}"]
    made.decoder.load_state_dict(decoder)
    return made.double()


@pytest.fixture
def features():
    # (clip, 1, frame, mel)
    return Features(arrays("input")["input"][:, 0].transpose(1, 2), None)


def close(ours, expected, atol=5e-6):
    torch.testing.assert_close(ours, expected, atol=atol, rtol=1e-5)


def test_targets_are_the_published_ones(objective, features):
    expected = arrays("training")
    tokens = objective.teacher.tokens(features.spectrogram)
    outputs = torch.stack(objective.teacher.mlp_outputs(tokens))
    close(outputs, frequency_major(expected["teacher_mlp_outputs"]))
    targets = objective.targets(features)
    close(targets.patches, frequency_major(expected["target"]))
    close(targets.utterance, expected["target"].mean(dim=1))


def test_losses_and_gradients_are_the_published_ones(objective, features):
    """Their views are clip-major, ours view-major; their noise is that of the masked places in their order."""
    order = torch.tensor([0, 2, 1, 3])
    inputs = arrays("input")
    expected = arrays("training")
    masked, visible = places(inputs["masks"][order])
    split = PatchSplit(
        Subset(masked, torch.ones_like(masked, dtype=torch.bool)),
        Subset(visible, torch.ones_like(visible, dtype=torch.bool)),
    )
    empty = frequency_major(expected["decoder_input"][order])
    predictions, cls = objective.predict(features, split, empty)
    close(cls[:, 0], expected["student_class"][order])
    close(predictions, split.masked.gather(frequency_major(expected["decoder_output"][order])))

    targets = objective.targets(features)
    wanted = split.masked.gather(targets.patches.repeat(2, 1, 1))
    patch = latent_loss(predictions, wanted, split.masked.valid, "l2")
    utterance = objective.utterance_loss(cls, targets.utterance, split)
    assert patch.item() == pytest.approx(expected["loss_patch"].item(), abs=1e-5)
    mean = expected["loss_utterance_mean_over_views"].item()
    assert utterance.item() == pytest.approx(mean, abs=1e-5)

    # As run there, the utterance loss is a sum over the four views.
    (patch + 4 * utterance).backward()
    parts = {
        f"{PART}.extra_tokens": objective.encoder.cls_token,
        "blocks.0.norm2.weight": objective.encoder.transformer.blocks[0].norm2.weight,
        f"{PART}.decoder.proj.bias": objective.decoder.head.bias,
    }
    for name, parameter in parts.items():
        close(parameter.grad.flatten(), expected[f"grad.{name}"].flatten(), atol=1e-4)
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
