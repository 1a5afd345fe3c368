"""The SSAST objective with official weights and masks, against numbers of the official SSAST code."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from golden.official import (
    draw,
    encoder_state,
    golden,
    official_encoder,
    official_state,
    spectrogram,
)
from torch import nn

from melpatch.audio.logmel import LogMel
from melpatch.data.clip import Batch
from melpatch.nn.masking import PatchSplit, Subset
from melpatch.objectives.base import Features
from melpatch.objectives.ssast import SSAST

# Largest deviation by kind of number: golden/ssast/README.md, section "Precision".
TOLERANCE = {
    torch.float64: {
        "loss": 1e-9,
        "joint": 1e-9,
        "token": 1e-9,
        "head": 1e-9,
        "score": 1e-9,
        "gradient": 1e-9,
    },
    torch.float32: {
        "loss": 3e-6,
        "joint": 2e-5,
        "token": 1e-5,
        "head": 1e-6,
        "score": 1e-5,
        "gradient": 1e-4,
    },
}


def objective(variant, dtype=torch.float64, **settings):
    """SSAST as the published code computes it, with all official weights."""
    official = official_state(variant)
    ssast = SSAST(
        SSAST.Config(softmax_axis="predictions", **settings), LogMel(), official_encoder(variant)
    )
    state = {f"encoder.{key}": value for key, value in encoder_state(official).items()}
    for key, value in official.items():
        name = key.replace("cpredlayer", "discriminative_head").replace(
            "gpredlayer", "generative_head"
        )
        if name != key or key == "mask_embed":
            state[name] = value
    ssast.load_state_dict(state)
    return ssast.to(dtype).eval()


def hide(index):
    """The hidden patches that a list of patch numbers per clip states."""
    tokens = torch.tensor(index)
    return Subset(tokens, torch.ones_like(tokens, dtype=torch.bool))


def always(hidden):
    """An objective's choice of patches that is always the same; the visible ones are not looked at."""
    return lambda *_: PatchSplit(hidden, visible=hidden)


@pytest.fixture(scope="module", params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request):
    return request.param


@pytest.fixture(scope="module", params=["patch", "frame"])
def variant(request):
    return request.param


@pytest.fixture(scope="module", params=["N400", "N100"])
def case(request, variant, dtype):
    """One step of the objective on the golden input: forward and backward, with the official mask."""
    stated = golden(f"pretrain_{variant}")["float64"][request.param]
    ssast = objective(variant, dtype)
    features, hidden = Features(spectrogram().to(dtype), None), hide(stated["mask_index"])
    seen = {}
    for name in ("encoder.transformer", "discriminative_head", "generative_head"):
        ssast.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: seen.update({name: out})
        )
    ssast.features, ssast.mask_patches = lambda _: features, always(hidden)
    output = ssast(
        Batch(torch.zeros(2, 1), torch.ones(2, dtype=torch.int64), torch.arange(2)), step=0
    )
    output.loss.backward()
    return SimpleNamespace(
        variant=variant,
        dtype=dtype,
        stated=stated,
        ssast=ssast,
        features=features,
        hidden=hidden,
        output=output,
        tokens=seen["encoder.transformer"][0].detach(),
        heads={
            "head_c": seen["discriminative_head"].detach(),
            "head_g": seen["generative_head"].detach(),
        },
    )


def close(actual, stated, tolerance):
    difference = torch.as_tensor(actual).detach().double() - torch.tensor(
        stated, dtype=torch.float64
    )
    assert difference.abs().max() <= tolerance


def stats(values):
    return torch.stack([values.double().mean(), values.double().std(correction=0)])


def count(share, case):
    return round(float(share) * float(case.output.weight), 3)


def test_published_losses_and_accuracy(case):
    stated, tolerance, metrics = case.stated, TOLERANCE[case.dtype], case.output.metrics
    close(metrics["nce"], stated["nce_legacy"], tolerance["loss"])
    close(metrics["mse"], stated["mse"], tolerance["loss"])
    close(case.output.loss, stated["joint"], tolerance["joint"])
    assert case.output.weight == 2 * len(stated["mask_index"][0])
    assert count(metrics["accuracy"], case) == stated["acc_legacy_count"]


def test_paper_loss_and_accuracy(case, monkeypatch):
    monkeypatch.setattr(case.ssast, "config", replace(case.ssast.config, softmax_axis="patches"))
    metrics = case.ssast.discriminative_loss(
        case.features, case.hidden, case.hidden.gather(case.tokens[:, 2:])
    )
    close(metrics["nce"], case.stated["nce_paper"], TOLERANCE[case.dtype]["loss"])
    assert count(metrics["accuracy"], case) == case.stated["acc_paper_count"]


def test_tokens_heads_and_scores(case):
    stated, tolerance = case.stated, TOLERANCE[case.dtype]
    close(stats(case.tokens), stated["norm_stats"], tolerance["token"])
    for point in stated["norm_points"]:
        close(
            case.tokens[:, point["token"], point["channel"]],
            [point["clip0"], point["clip1"]],
            tolerance["token"],
        )
    for name, found in case.heads.items():
        close(
            torch.stack([stats(clip) for clip in found]), stated[name]["stats"], tolerance["head"]
        )
        for row in stated[name]["rows"]:
            assert case.hidden.indices[row["clip"], row["position"]] == row["patch"]
            close(found[row["clip"], row["position"], :8], row["first8"], tolerance["head"])
    patches = case.hidden.gather(case.ssast.encoder.grid.split(case.features.spectrogram))
    scores = torch.bmm(patches, case.heads["head_c"].transpose(1, 2))
    close(torch.stack([stats(clip) for clip in scores]), stated["score_stats"], tolerance["score"])


def official_gradients(ssast):
    """Gradients of our parameters under the official names."""
    ours = {name: p.grad for name, p in ssast.named_parameters()}
    cls, dist = ours.pop("encoder.cls_token").unbind()
    positions = torch.cat([ours.pop("encoder.cls_position"), ours.pop("encoder.position_table")])
    found = {"v.cls_token": cls, "v.dist_token": dist, "v.pos_embed": positions}
    renamed = [
        ("encoder.projection", "v.patch_embed.proj"),
        ("encoder.transformer", "v"),
        ("mlp.0", "mlp.fc1"),
        ("mlp.2", "mlp.fc2"),
        ("discriminative_head", "cpredlayer"),
        ("generative_head", "gpredlayer"),
    ]
    for name, gradient in ours.items():
        for our_part, official_part in renamed:
            name = name.replace(our_part, official_part)
        found[name] = gradient
    return found


def test_gradients(case):
    stated, relative = case.stated["grad_norm"], TOLERANCE[case.dtype]["gradient"]
    norms = {
        name: float(gradient.double().norm())
        for name, gradient in official_gradients(case.ssast).items()
    }
    assert norms.keys() == stated.keys()
    total = sum(norm**2 for norm in norms.values()) ** 0.5
    assert total == pytest.approx(case.stated["grad_norm_total"], rel=relative)
    # One vector added to all predictions shifts each published softmax by a constant: no gradient but rounding.
    assert norms.pop("cpredlayer.2.bias") < {torch.float64: 1e-13, torch.float32: 1e-6}[case.dtype]
    assert norms == {name: pytest.approx(stated[name], rel=relative) for name in norms}


def test_losses_far_from_chance(variant, dtype):
    stated, tolerance = golden(f"pretrain_{variant}")["float64"], TOLERANCE[dtype]["loss"]
    features, hidden = Features(spectrogram().to(dtype), None), hide(stated["N100"]["mask_index"])
    ssast = objective(variant, dtype)
    ssast.discriminative_head = ssast.generative_head = nn.Identity()
    target = hidden.gather(ssast.encoder.grid.split(features.spectrogram))
    prediction = 0.02 * target + 0.12 * draw("loss_noise", (2, 100, 256)).to(dtype)

    stated = stated["loss_only"]
    close(ssast.generative_loss(features, hidden, prediction)["mse"], stated["mse"], tolerance)
    for name, axis in {"legacy": "predictions", "paper": "patches"}.items():
        ssast.config = replace(ssast.config, softmax_axis=axis)
        found = ssast.discriminative_loss(features, hidden, prediction)
        close(found["nce"], stated[f"nce_{name}"], tolerance)
        assert round(200 * float(found["accuracy"]), 3) == stated[f"acc_{name}_count"]


@pytest.mark.parametrize(
    ("pretext", "stated"), [("discriminative", "nce_legacy"), ("generative", "mse")]
)
def test_one_pretext_alone(pretext, stated):
    ssast = SSAST(
        SSAST.Config(softmax_axis="predictions", pretext=pretext),
        LogMel(),
        official_encoder("patch"),
    )
    whole = objective("patch").state_dict()
    ssast.load_state_dict({name: whole[name] for name in ssast.state_dict()})
    case = golden("pretrain_patch")["float64"]["N100"]
    ssast.features = lambda _: Features(spectrogram(), None)
    ssast.mask_patches = always(hide(case["mask_index"]))
    with torch.inference_mode():
        output = ssast.double()(
            Batch(torch.zeros(2, 1), torch.ones(2, dtype=torch.int64), torch.arange(2)), step=0
        )
    close(output.loss, case[stated], 1e-9)
