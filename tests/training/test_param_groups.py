import re
from dataclasses import replace

import pytest
from tiny_runs import settings

from melpatch.encoders.cnn14 import CNN14
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.objectives.classify import Classify
from melpatch.objectives.maskspec import MaskSpec
from melpatch.training.config import build
from melpatch.training.param_groups import param_groups


def objective(**changes):
    config = settings()
    encoder = replace(config.encoder, depth=3, cls_tokens=2, positions="learned", columns=5)
    return build(replace(config, encoder=encoder, **changes))


def by_name(model, **changes):
    groups = param_groups(
        model, **{"weight_decay": 0.1, "layer_decay": 1.0, "head_lr_scale": 1.0} | changes
    )
    return {name: group for group in groups for name in group["names"]}


def test_every_trainable_parameter_is_in_one_group_under_its_name():
    model = objective()
    groups = param_groups(model, weight_decay=0.1, layer_decay=0.5, head_lr_scale=2.0)
    listed = [
        pair for group in groups for pair in zip(group["names"], group["params"], strict=True)
    ]
    assert sorted(name for name, _ in listed) == sorted(
        name for name, _ in model.named_parameters()
    )
    assert all(dict(model.named_parameters())[name] is parameter for name, parameter in listed)


def test_frozen_parameters_are_in_none():
    model = objective(objective=Classify.Config(frozen=True), labels=("a", "b"))
    assert sorted(by_name(model)) == [
        "head.0.bias",
        "head.0.weight",
        "head.1.bias",
        "head.1.weight",
    ]


def test_matrices_are_decayed_and_nothing_else():
    decayed = {name for name, group in by_name(objective()).items() if group["weight_decay"]}
    blocks = [
        f"transformer.blocks.{n}.{part}"
        for n in range(3)
        for part in ("attn.qkv", "attn.proj", "mlp.0", "mlp.2")
    ]
    heads = [
        f"{head}_head.{layer}" for head in ("discriminative", "generative") for layer in (0, 2)
    ]
    assert decayed == {
        f"{name}.weight"
        for name in ("encoder.projection", *(f"encoder.{b}" for b in blocks), *heads)
    }


@pytest.mark.parametrize(
    "name", ["mask_embed", "encoder.cls_token", "encoder.cls_position", "encoder.position_table"]
)
def test_tokens_and_positions_are_not_decayed(name):
    """They are tables of two or more dimensions, so their names alone tell them from matrices."""
    model = objective()
    assert model.get_parameter(name).ndim > 1
    assert by_name(model)[name]["weight_decay"] == 0


def test_with_decayed_tokens_only_biases_and_norms_are_not_decayed():
    model = objective()
    undecayed = {
        name
        for name, group in by_name(model, decay_tokens=True).items()
        if not group["weight_decay"]
    }
    assert undecayed == {
        name for name, _ in model.named_parameters() if re.search(r"bias$|norm\d?\.weight$", name)
    }


def test_where_all_is_decayed_nothing_is_left_out():
    groups = by_name(objective(), decay_all=True)
    assert {group["weight_decay"] for group in groups.values()} == {0.1}


@pytest.mark.parametrize("decay_tokens", [True, False])
def test_the_mask_embedding_of_a_decoder_is_a_token_too(decay_tokens):
    """Though it has one dimension, as a bias has."""
    model = objective(objective=MaskSpec.Config(decoder=MAEDecoder.Config(depth=1)))
    group = by_name(model, decay_tokens=decay_tokens)["decoder.mask_embed"]
    assert group["weight_decay"] == (0.1 if decay_tokens else 0)


@pytest.mark.parametrize("weight_decay", [0.1, 0.0])
def test_a_group_says_whether_it_is_decayed_even_where_the_decay_is_nought_so_far(weight_decay):
    decayed = {name: group["weight_decay"] > 0 for name, group in by_name(objective()).items()}
    groups = by_name(objective(), weight_decay=weight_decay)
    assert {name: group["decay_scale"] for name, group in groups.items()} == decayed
    assert {group["weight_decay"] for group in groups.values()} == {0.0, weight_decay}


def test_layer_decay_falls_from_the_final_norm_to_the_patches():
    model = objective(objective=Classify.Config(), labels=("a", "b"))
    scales = {name: group["lr_scale"] for name, group in by_name(model, layer_decay=0.5).items()}
    expected = {r"head\.": 1, r"encoder\.transformer\.norm\.": 1}
    expected |= {
        rf"encoder\.transformer\.blocks\.{number}\.": 0.5 ** (3 - number) for number in range(3)
    }
    expected |= {r"encoder\.(projection|cls_token|cls_position|position_table)": 0.5**4}
    for name, scale in scales.items():
        (wanted,) = [value for pattern, value in expected.items() if re.match(pattern, name)]
        assert scale == pytest.approx(wanted), name


def test_layer_decay_of_a_cnn_falls_from_the_neck_to_the_first_norm():
    model = build(
        replace(
            settings(),
            encoder=CNN14.Config(width=1),
            objective=Classify.Config(),
            labels=("a", "b"),
        )
    )
    scales = {name: group["lr_scale"] for name, group in by_name(model, layer_decay=0.5).items()}
    expected = {r"head\.": 1, r"encoder\.neck\.": 1, r"encoder\.bn0\.": 0.5**7}
    expected |= {rf"encoder\.blocks\.{number}\.": 0.5 ** (6 - number) for number in range(6)}
    for name, scale in scales.items():
        (wanted,) = [value for pattern, value in expected.items() if re.match(pattern, name)]
        assert scale == pytest.approx(wanted), name


def test_what_is_not_the_encoder_has_its_own_rate():
    scales = {
        name: group["lr_scale"] for name, group in by_name(objective(), head_lr_scale=10.0).items()
    }
    assert {
        name: scale
        for name, scale in scales.items()
        if (scale == 10) == name.startswith("encoder.")
    } == {}
    assert set(scales.values()) == {1.0, 10.0}


def test_groups_come_in_the_same_order_every_time():
    first, second = (
        [
            group["names"]
            for group in param_groups(
                objective(), weight_decay=0.1, layer_decay=0.7, head_lr_scale=1.0
            )
        ]
        for _ in range(2)
    )
    assert first == second
