"""One training forward of the published AudioMosaic: masks, vectors of both views, loss and gradients.

The numbers are those of shared/golden/weights/audiomosaic: the official code at random weights, in float64.
"""

import json

import pytest
import torch
from golden.newer_weights import opened
from golden.published_weights import folder, numbers

from melpatch.audio.logmel import LogMel
from melpatch.nn.masking import Masking, PatchSplit, Subset
from melpatch.nn.nt_xent import nt_xent
from melpatch.objectives.audiomosaic import AudioMosaic
from melpatch.objectives.base import Features
from melpatch.recipes.base import recipe

ROWS = 8
COLUMNS = 12
PROJECTOR = {
    "fc_norm.weight": "0.weight",
    "fc_norm.bias": "0.bias",
    "projector.0.weight": "1.layers.0.weight",
    "projector.1.weight": "1.layers.1.weight",
    "projector.1.bias": "1.layers.1.bias",
    "projector.3.weight": "1.layers.3.weight",
    "projector.4.weight": "1.layers.4.weight",
}
"""Our names of the published projector's parameters, but for the last shift, which is not trained."""


@pytest.fixture(scope="module")
def expected():
    return numbers("audiomosaic", "training")


@pytest.fixture
def objective(tmp_path):
    state = torch.load(folder("audiomosaic") / "checkpoint.pt", weights_only=True)
    encoder, _ = opened("audiomosaic", tmp_path)
    config = AudioMosaic.Config(hidden_dims=(64,), projection=32)
    made = AudioMosaic(config, LogMel(), encoder)
    made.projector.load_state_dict({own: state[key] for key, own in PROJECTOR.items()})
    # Trained from scratch, this shift stays 0; the weights here were drawn.
    shift = torch.nn.Parameter(state["projector.4.bias"], requires_grad=False)
    made.projector[1].layers[4].bias = shift
    return made.double()


def features(number):
    """Return a view, of which half of the mels is stored."""
    half = numbers("audiomosaic", "input")[f"view{number}_low_half"].double()
    whole = torch.cat([half, half.flip(3)], dim=3)
    return Features(whole[:, 0].transpose(1, 2), None)


def visible(expected, number):
    """Return the visible patches in our numbers; the published ones count column by column."""
    in_time = expected[f"view{number}_kept"].long()
    indices = in_time % ROWS * COLUMNS + in_time // ROWS
    return Subset(indices, torch.ones_like(indices, dtype=torch.bool))


@pytest.fixture
def vectors(objective, expected):
    """The pooled vectors of both views, (clip, view, dim), at the published draw of the masks."""
    nothing = Subset(torch.zeros(4, 1, dtype=torch.long), torch.zeros(4, 1, dtype=torch.bool))
    views = [
        objective.pooled_rest(features(number), PatchSplit(nothing, visible(expected, number)))
        for number in range(2)
    ]
    return torch.stack(views, dim=1)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs.double(), atol=2e-6, rtol=1e-6)


def test_vectors_embeddings_and_loss_are_the_published_ones(objective, vectors, expected):
    views = objective.projector(vectors)
    for number in range(2):
        close(vectors[:, number], expected[f"view{number}_feature"])
        close(views[:, number], expected[f"view{number}_embedding"])
    losses, _ = nt_xent(views, torch.arange(4), objective.config.temperature)
    assert losses.mean().item() == pytest.approx(expected["loss"].item(), abs=1e-6)


def test_gradients_are_the_published_ones(objective, vectors, expected):
    losses, _ = nt_xent(objective.projector(vectors), torch.arange(4), 0.1)
    losses.mean().backward()
    order = json.loads((folder("audiomosaic") / "keys.json").read_text())["grad_norms_order"]
    norms = dict(zip(order, expected["grad_norms"].tolist(), strict=True))
    parameters = dict(objective.projector.named_parameters())
    ours = {key: parameters[own] for key, own in PROJECTOR.items()}
    encoder = objective.encoder
    ours |= {
        "cls_token": encoder.cls_token,
        "patch_embed.proj.weight": encoder.projection.weight,
        "patch_embed.norm.bias": encoder.patch_norm.bias,
        "norm_pre.weight": encoder.transformer.norm.weight,
        "blocks.0.attn.qkv.weight": encoder.transformer.blocks[0].attn.qkv.weight,
        "blocks.1.mlp.fc2.weight": encoder.transformer.blocks[1].mlp[2].weight,
    }
    for name, parameter in ours.items():
        assert parameter.grad.norm().item() == pytest.approx(norms[name], rel=1e-5), name


@pytest.mark.parametrize(("number", "ratio"), [(0, 5 / 8), (1, 5 / 12)])
def test_masks_have_the_shape_of_the_published_draw(expected, objective, number, ratio):
    """Whole runs of the time-major patches, or the same places in all runs."""
    mask = (
        recipe("audiomosaic_released")("base").objective.first_mask,
        recipe("audiomosaic_released")("base").objective.second_mask,
    )[number]
    ours = Masking(Masking.Config(kind=mask.kind, ratio=ratio), objective.encoder.grid)
    indices = ours(4, COLUMNS).visible.indices
    drawn = indices % COLUMNS * ROWS + indices // COLUMNS
    for kept in (drawn, expected[f"view{number}_kept"].long()):
        runs = torch.zeros(4, ROWS, COLUMNS).flatten(1).scatter(1, kept, 1.0).view(4, ROWS, -1)
        alike = runs if number == 1 else runs.transpose(1, 2)
        assert torch.equal(alike, alike[:, :1].expand_as(alike))
        assert runs.sum(dim=(1, 2)).tolist() == [(36, 56)[number]] * 4
