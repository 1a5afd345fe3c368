"""Our encoder with official weights, against numbers of the official SSAST and AST code, in float64."""

import pytest
import torch
import torch.nn.functional as F
from golden.official import PATCH, golden, official_encoder, official_state, spectrogram, weight

from melpatch.nn.grid import PatchGrid


def stats(values):
    return torch.stack([values.mean(), values.std(correction=0)])


def close(actual, stated, tolerance=1e-9):
    assert (
        torch.as_tensor(actual) - torch.tensor(stated, dtype=torch.float64)
    ).abs().max() <= tolerance


@pytest.fixture(scope="module", params=["patch", "frame"])
def pretrained(request):
    """Name, encoder and projected patches of the golden input."""
    vit = official_encoder(request.param)
    with torch.inference_mode():
        return request.param, vit, vit.embed(spectrogram())


def test_patch_projection(pretrained):
    variant, _, embedded = pretrained
    stated = golden(f"pretrain_{variant}")["float64"]
    close(stats(embedded), stated["patch_embed_stats"])
    for clip, patch, channel, value in stated["patch_embed_points"]:
        close(embedded[clip, patch, channel], value)


@pytest.mark.parametrize("masked", ["N400", "N100"])
def test_tokens_of_a_masked_input(pretrained, masked):
    variant, vit, embedded = pretrained
    stated = golden(f"pretrain_{variant}")["float64"][masked]
    tokens = embedded.clone()
    for clip, index in enumerate(stated["mask_index"]):
        tokens[clip, index] = official_state(variant)["mask_embed"][0, 0].double()
    with torch.inference_mode():
        encoded = vit.encode_tokens(tokens + vit.positions(vit.grid.columns(1024)), layers=True)
    close(torch.stack([stats(layer) for layer in encoded.layers]), stated["block_stats"])
    final = torch.cat([encoded.cls, encoded.patches], dim=1)
    close(stats(final), stated["norm_stats"])
    for point in stated["norm_points"]:
        close(final[:, point["token"], point["channel"]], [point["clip0"], point["clip1"]])


def logits(pooled, classes):
    """The official classifier: LayerNorm (epsilon 1e-5) and a linear layer."""
    shapes = {
        "0.weight": (192,),
        "0.bias": (192,),
        "1.weight": (classes, 192),
        "1.bias": (classes,),
    }
    head = {key: weight(f"mlp_head.{key}", shape).double() for key, shape in shapes.items()}
    normed = F.layer_norm(pooled, (192,), head["0.weight"], head["0.bias"], eps=1e-5)
    return F.linear(normed, head["1.weight"], head["1.bias"])


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("variant", ["patch", "frame"])
def test_finetuned_positions_pooling_and_logits(variant, case):
    stated = golden(f"finetune_{variant}")["float64"][case]
    frames, stride = stated["T"], (stated["fstride"], stated["tstride"])
    vit = official_encoder(variant)
    grid = PatchGrid(n_mels=128, patch=PATCH[variant], stride=stride, partial="drop")
    vit.resize_positions(grid.columns(frames), "legacy", grid)
    assert [grid.rows, vit.config.columns] == stated["grid"]

    positions = torch.cat([vit.cls_position, vit.position_table]).detach()
    close(stats(positions), stated["pos_embed"]["stats_all"], 1e-12)
    close(stats(vit.position_table.detach()), stated["pos_embed"]["stats_patches"], 1e-12)
    for token, channel, value in stated["pos_embed"]["points"]:
        close(positions[token, channel], value, 1e-12)

    with torch.inference_mode():
        encoded = vit(spectrogram(frames))
    for name, pooled in {"avgtok": encoded.patches.mean(1), "cls": encoded.cls.mean(1)}.items():
        close(pooled[:, :8], stated[name]["pooled_first8"])
        close(stats(pooled), stated[name]["pooled_stats"])
        close(logits(pooled, 35), stated[name]["logits"])


def test_supervised_ast():
    stated = golden("ast_supervised")["float64"]
    with torch.inference_mode():
        encoded = official_encoder("ast")(spectrogram())
    final = torch.cat([encoded.cls, encoded.patches], dim=1)
    close(stats(final), stated["norm_stats"])
    for point in stated["norm_points"]:
        close(final[:, point["token"], point["channel"]], [point["clip0"], point["clip1"]])
    pooled = encoded.cls.mean(1)
    close(pooled[:, :8], stated["pooled_first8"])
    close(logits(pooled, 527), stated["logits"])
