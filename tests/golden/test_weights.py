"""The rule that makes the golden weights: if this fails, no other golden test can pass."""

import zlib

import pytest
import torch
from golden.official import config, draw, encoder_state, golden, official_state, weight

from melpatch.encoders.vit import ViT


def is_as_stated(value, stated):
    assert list(value.shape) == stated["shape"]
    assert value.flatten()[:3].tolist() == pytest.approx(stated["first3"], abs=1e-12)
    assert value.double().mean().item() == pytest.approx(stated["mean"], abs=1e-12)
    assert value.double().std(correction=0).item() == pytest.approx(stated["std"], abs=1e-12)
    assert (
        zlib.crc32(value.contiguous().numpy().astype("<f4").tobytes())
        == stated["crc32_of_float32_le_bytes"]
    )


@pytest.mark.parametrize("group", ["patch", "frame", "ast", "finetune_35_classes"])
def test_weights_are_those_of_the_rule(group):
    for key, stated in golden("rule_check")["check"][group].items():
        is_as_stated(weight(key, tuple(stated["shape"])), stated)


def test_inputs_are_those_of_the_rule():
    for named, stated in golden("rule_check")["check"]["inputs"].items():
        is_as_stated(draw(named.split()[0], tuple(stated["shape"])), stated)


@pytest.mark.parametrize("variant", ["patch", "frame", "ast"])
def test_every_official_encoder_weight_has_its_place(variant):
    state = encoder_state(official_state(variant))
    expected = {
        key: value.shape for key, value in ViT(config(variant), n_mels=128).state_dict().items()
    }
    assert {key: value.shape for key, value in state.items()} == expected
    taken = sum(
        value.numel() for key, value in official_state(variant).items() if key.startswith("v.")
    )
    assert sum(value.numel() for value in state.values()) == taken


def test_integers_stay_as_they_are():
    state = official_state("patch")
    for key, stated in golden("rule_check")["integer_entries"].items():
        assert torch.equal(state[key], torch.tensor(stated))
