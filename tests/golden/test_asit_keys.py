"""Our ViT-S objectives of the ASiT recipes against the inventory of the official checkpoints; and the drawing rule."""

import math
import zlib
from functools import cache

import pytest
import torch
from golden.official_asit import RECIPES, draw, golden, of_teacher, ours, weight

from melpatch.training.config import build
from melpatch.training.trainer import make_optimizer

PARTS = {
    "c23": {"backbone": "encoder", "head_cls": "distillation.student", "head_recons": "decoder"},
    "c24": {"backbone": "encoder", "head": "distillation.student", "head_recons": "decoder"},
}


@pytest.fixture(params=["c23", "c24"])
def release(request):
    return request.param


@cache
def recipe(release):
    return RECIPES[release]("small")


@cache
def objective(release):
    """With shapes alone."""
    with torch.device("meta"):
        return build(recipe(release))


def listed(release, network="student"):
    """The official weights: our name and shape, and the inventory's entry."""
    for entry in golden("keys.json")["vit_s"][release][network]:
        key = entry["key"].removeprefix("module.")
        for name, value in ours(key, torch.empty(entry["shape"], device="meta")).items():
            yield name, tuple(value.shape), entry


def test_drawing_rule(release):
    for name, said in golden("rule_check.json")[release].items():
        shape, drawn = tuple(said["shape"]), name.removeprefix("input ")
        value = weight(drawn, shape) if drawn == name else draw(drawn, shape)
        assert value.flatten()[:3].tolist() == said["first3"]
        assert zlib.crc32(value.numpy().tobytes()) == said["crc32_of_bytes"]


def test_every_official_weight_is_one_of_ours(release):
    wanted = {name: shape for name, shape, _ in listed(release)}
    wanted |= {
        of_teacher(name): shape for name, shape, _ in listed(release, "teacher") if of_teacher(name)
    }
    assert {
        name: tuple(value.shape) for name, value in objective(release).named_parameters()
    } == wanted


def test_numbers_of_parameters(release):
    said = golden("keys.json")["vit_s"][release]
    for official, part in PARTS[release].items():
        # Gains that are fixed at 1 are no parameters of ours.
        fixed = sum(
            math.prod(entry["shape"])
            for entry in said["student"]
            if entry["key"].startswith(f"module.{official}.") and not entry["trainable"]
        )
        found = sum(value.numel() for value in objective(release).get_submodule(part).parameters())
        assert found == said["parameters_by_part"][official] - fixed


def test_weight_decay_of_every_parameter(release):
    groups = make_optimizer(objective(release), recipe(release).train).param_groups
    found = {name: group["weight_decay"] > 0 for group in groups for name in group["names"]}
    assert found == {
        name: entry["optimizer_group"] == "decayed" for name, _, entry in listed(release)
    }


def test_drop_path(release):
    said = golden("keys.json")["vit_s"][release]["drop_path_rates"]
    found = [block.drop_path.rate for block in objective(release).encoder.transformer.blocks]
    assert found == pytest.approx(said, abs=1e-8)
