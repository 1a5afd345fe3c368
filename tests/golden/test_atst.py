"""One training forward of the published ATST-Clip and ATST-Frame: outputs, loss and gradients.

The numbers are those of shared/golden/weights/atst_clip and atst_frame: the official code at random
weights, in float64.
"""

import json

import numpy as np
import pytest
import torch
from places import shared

from melpatch.audio import front_ends
from melpatch.audio.logmel import LogMel
from melpatch.data.clip import Batch
from melpatch.encoders.vit import ViT
from melpatch.interop.atst import ATST
from melpatch.interop.base import Reading
from melpatch.nn.masking import Subset
from melpatch.objectives.atst_frame import ATSTFrame
from melpatch.objectives.base import Features
from melpatch.objectives.bootstrap import crossed_loss
from melpatch.objectives.byol import BYOL
from melpatch.weight_files import Weights

WIDTH = 48


def arrays(name, file):
    with np.load(shared(f"golden/weights/{name}/{file}.npz")) as saved:
        return {key: torch.from_numpy(saved[key]) for key in saved.files}


def close(ours, expected, atol=2e-6):
    torch.testing.assert_close(ours, expected.double(), atol=atol, rtol=1e-5)


def weights(name):
    state = torch.load(shared(f"golden/weights/{name}/checkpoint.pt"), weights_only=True)
    return state["state_dict"]


def load_encoder(encoder, state, who):
    """Give an encoder the weights of the student or the teacher."""
    own = {key: value for key, value in state.items() if key.startswith(f"model.{who}.encoder.")}
    converted = ATST().convert(Weights(own, {}), encoder, Reading(num_heads=4))
    encoder.load_state_dict(converted.state)


def load_head(head, state, name):
    parts = head.state_dict()
    head.load_state_dict(
        {key: state[f"model.{name}.{key.removeprefix('layers.')}"] for key in parts}
    )


def objective(kind, name, cls_tokens, pooling):
    state = weights(name)
    config = ViT.Config(
        embed_dim=WIDTH,
        depth=2,
        num_heads=4,
        patch=(64, 4),
        partial="drop",
        cls_tokens=cls_tokens,
        positions="learned",
        columns=25,
    )
    encoder = ViT(config, n_mels=64)
    settings = kind.Config(hidden_dim=64, projection=32, pooling=pooling)
    made = kind(settings, LogMel(front_ends.atst()), encoder)
    load_encoder(made.encoder, state, "student")
    load_encoder(made.teacher, state, "teacher")
    load_head(made.projector, state, "student.projector")
    load_head(made.predictor, state, "student.predictor")
    load_head(made.teacher_projector, state, "teacher.projector")
    if kind is ATSTFrame:
        made.mask_embed.data.copy_(state["model.student.encoder.mask_embed"].flatten())
    return made.double().train()


def give_views(made, name):
    """Give an objective the published views, in place of those of its clips."""
    inputs = arrays(name, "input")
    views = torch.cat([inputs["view1"], inputs["view2"]])[:, 0].double()
    tokens = inputs["view_lengths"] // 4
    valid = torch.arange(views.shape[2] // 4) < tokens[:, None]
    made.both_views = lambda batch, step: Features(views, valid.repeat(2, 1))
    if isinstance(made, ATSTFrame):
        hidden = inputs["frame_mask"] & valid
        places = (~hidden).int().argsort(dim=1, stable=True)
        made.hidden = lambda batch, both, step: Subset(places, hidden.gather(1, places))
    return Batch(torch.zeros(3, 1), torch.ones(3, dtype=torch.long), torch.arange(3))


def view_after_view(rows):
    return rows.transpose(0, 1).flatten(0, 1)


@pytest.fixture(params=["atst_clip", "atst_frame"])
def case(request):
    name = request.param
    if name == "atst_clip":
        made = objective(BYOL, name, cls_tokens=1, pooling="cls")
    else:
        made = objective(ATSTFrame, name, cls_tokens=0, pooling="mean")
    return name, made, give_views(made, name)


def test_outputs_and_loss_are_the_published_ones(case):
    name, made, batch = case
    expected = arrays(name, "training")
    rows = made.encode(batch, 0)
    student, teacher = rows.features.split(2, dim=1)
    projections = made.projector(student)
    close(view_after_view(student), expected["student_encoder"])
    close(view_after_view(projections), expected["student_projection"])
    close(view_after_view(made.predictor(projections)), expected["student_prediction"])
    close(view_after_view(made.teacher_projector(teacher)), expected["teacher_projection"])
    output = made(batch, 0)
    assert output.loss.item() == pytest.approx(expected["loss"].item(), abs=1e-6)


def test_gradients_are_the_published_ones(case):
    name, made, batch = case
    made(batch, 0).loss.backward()
    keys = json.loads(shared(f"golden/weights/{name}/keys.json").read_text())
    order = keys["grad_norms_order"]
    norms = dict(zip(order, arrays(name, "training")["grad_norms"].tolist(), strict=True))
    blocks = made.encoder.transformer.blocks
    norm = "norm" if name == "atst_clip" else "norm_frame"
    ours = {
        "encoder.patch_embed.patch_embed.weight": made.encoder.projection.weight,
        "encoder.blocks.0.attn.qkv.weight": blocks[0].attn.qkv.weight,
        "encoder.blocks.1.mlp.fc2.bias": blocks[1].mlp[2].bias,
        f"encoder.{norm}.weight": made.encoder.transformer.norm.weight,
        "projector.0.weight": made.projector.layers[0].weight,
        "projector.1.bias": made.projector.layers[1].bias,
        "predictor.3.weight": made.predictor.layers[3].weight,
    }
    if name == "atst_clip":
        ours["encoder.cls_token"] = made.encoder.cls_token
    else:
        ours["encoder.mask_embed"] = made.mask_embed
    for key, parameter in ours.items():
        assert parameter.grad.norm().item() == pytest.approx(norms[f"student.{key}"], rel=1e-4), key
    for part in (made.teacher, made.teacher_projector):
        assert all(parameter.grad is None for parameter in part.parameters())


def test_the_sum_of_both_directions_is_that_of_byol_a():
    """Of the package that BYOL-A patches, on fixed embeddings."""
    saved = json.loads(shared("golden/weights/losses/losses.json").read_text())
    two = saved["byol_two_directions"]
    predictions = [saved["embeddings"][name] for name in ("first", "second")]
    targets = [two[name] for name in ("third", "fourth")]
    pairs = (torch.tensor(views).double().transpose(0, 1) for views in (predictions, targets))
    assert crossed_loss(*pairs).mean().item() == pytest.approx(two["value"], abs=1e-6)
