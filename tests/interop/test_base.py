"""Saying whose weights are, and filling an encoder with them."""

import json
import math
from dataclasses import replace

import pytest
import torch
from interop.inventories import ast, blank, cnn14, drawn, hugging_face, timm
from safetensors.torch import save_file
from tiny_runs import settings

from melpatch.encoders.cnn14 import CNN14
from melpatch.encoders.vit import ViT
from melpatch.errors import CheckpointError, ConfigError
from melpatch.interop.base import Reading, published_settings, recognise, start_from_weights
from melpatch.objectives.classify import Classify
from melpatch.training.config import build
from melpatch.weight_files import Weights

# -------------------------------------------------------------------------------------------------------------- whose


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        (timm(distilled=True), "TimmViT"),
        (hugging_face(), "HFViT"),
        (hugging_face(version=5, prefix="audio_spectrogram_transformer.", distilled=True), "HFViT"),
        ({name.removeprefix("module."): shape for name, shape in ast().items()}, "AST"),
        (cnn14(), "PANNs"),
    ],
)
def test_each_format_is_recognised_by_itself(shapes, found):
    assert type(recognise(Weights(blank(shapes), {}))).__name__ == found


@pytest.mark.parametrize(
    ("keys", "family"),
    [
        (["modality_encoders.AUDIO.local_encoder.conv_layers.0.0.weight"], "data2vec 2.0"),
        (
            ["feature_extractor.conv_layers.0.0.weight", "encoder.layers.0.fc1.weight"],
            "wav2vec 2.0, HuBERT or WavLM",
        ),
        (["hubert.feature_extractor.conv_layers.0.conv.weight"], "wav2vec 2.0, HuBERT or WavLM"),
        (["encoder.layers.0.conv_module.pointwise_conv1.weight"], "a Conformer"),
        (["tscam_conv.weight", "layers.0.blocks.0.attn.relative_position_bias_table"], "HTS-AT"),
        (["layers.0.blocks.0.attn.relative_position_bias_table"], "a Swin transformer or BEiT"),
    ],
)
def test_a_family_that_cannot_be_taken_is_named(keys, family):
    with pytest.raises(
        ConfigError,
        match=rf"looks like {family} .*no encoder here can take \(.* .*\); allowed: ASiT; AST or",
    ):
        recognise(Weights(dict.fromkeys(keys, torch.zeros(())), {}))


def test_unknown_keys_are_shown():
    with pytest.raises(
        ConfigError, match=r"of an unknown format \(keys fc\.bias, fc\.weight\.\.\.\); allowed: "
    ):
        recognise(Weights(dict.fromkeys(("fc.weight", "fc.bias"), torch.zeros(())), {}))


# -------------------------------------------------------------------------------------------------------------- start


def classifier(encoder):
    config = replace(settings(), objective=Classify.Config(), labels=("a", "b"), encoder=encoder)
    return build(replace(config, front_end=replace(config.front_end, n_mels=64)))


def plain(**changes):
    return ViT.Config(
        **{"embed_dim": 16, "depth": 2, "num_heads": 2, "positions": "learned", "columns": 6}
        | changes
    )


def test_the_encoder_is_filled_and_the_head_left(tmp_path):
    path = str(tmp_path / "vit.safetensors")
    state = {name: value.float() for name, value in drawn(timm(16, 2, patches=16)).items()}
    save_file(state, path)
    target = classifier(plain())
    head = {name: value.clone() for name, value in target.head.state_dict().items()}
    told = start_from_weights(target, path)
    assert told == (
        f"the encoder starts from {path}: a ViT under timm's names; 3 colours summed; positions 4 x 4 fitted to 4 x 6 "
        "(legacy); left out: head"
    )
    kernel = state["patch_embed.proj.weight"]
    assert torch.equal(target.encoder.projection.weight, kernel.sum(dim=1).flatten(1))
    assert all(torch.equal(value, target.head.state_dict()[name]) for name, value in head.items())
    assert "averaged" in start_from_weights(target, path, Reading(channels="mean", how="bicubic"))
    assert torch.equal(target.encoder.projection.weight, kernel.mean(dim=1).flatten(1))


def test_half_precision_becomes_single(tmp_path):
    state = {name: value.half() for name, value in drawn(timm(16, 2, patches=16)).items()}
    save_file(state, tmp_path / "vit.safetensors")
    target = classifier(plain())
    start_from_weights(target, str(tmp_path / "vit.safetensors"))
    assert {value.dtype for value in target.encoder.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("shapes", "encoder", "message"),
    [
        (
            cnn14(2, 64),
            plain(),
            "looks like CNN14, CNN10 or CNN6 of PANNs .*, but the encoder is vit; use --encoder cnn14",
        ),
        (
            timm(16, 2),
            CNN14.Config(width=2),
            "looks like a ViT under .*, but the encoder is cnn14; use --encoder vit",
        ),
        (timm(32, 2), plain(), "width 32 and 2 blocks, but the encoder has"),
        ({"fc.weight": (1, 1)}, plain(), "weights of an unknown format"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(shapes, encoder, message, tmp_path):
    torch.save(
        {name: value.clone() for name, value in blank(shapes).items()}, tmp_path / "weights.pth"
    )
    with pytest.raises(ConfigError, match=rf"weights\.pth: {message}"):
        start_from_weights(classifier(encoder), str(tmp_path / "weights.pth"))


def test_a_missing_tensor_is_named(tmp_path):
    shapes = timm(16, 2, patches=16)
    del shapes["blocks.1.attn.proj.bias"]
    torch.save(
        {name: value.clone() for name, value in blank(shapes).items()}, tmp_path / "weights.pth"
    )
    with pytest.raises(
        ConfigError,
        match=r"weights\.pth: no weights for transformer\.blocks\.1\.attn\.proj\.bias, 16, of the",
    ):
        start_from_weights(classifier(plain()), str(tmp_path / "weights.pth"))


# ---------------------------------------------------------------------------------- odd tensors


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pos_embed", torch.zeros(3), "the tensors are not those of a ViT"),
        ("pos_embed", torch.zeros(1, 0, 16), "the tensors are not those of a ViT"),
        ("cls_token", torch.zeros(()), "the tensors are not those of a ViT"),
        ("patch_embed.proj.weight", torch.zeros(16), "the tensors are not those of a ViT"),
        ("blocks.0.mlp.fc1.bias", None, "the tensors are not those of a ViT"),
        (
            "norm.weight",
            torch.full((16,), math.nan),
            "norm.weight holds 16 of 16 weights that are NaN",
        ),
        (
            "norm.weight",
            torch.ones(16, dtype=torch.int64),
            "holds torch.int64 numbers instead of float",
        ),
        ("norm.weight", torch.ones(16, dtype=torch.complex64), "holds complex numbers"),
        ("norm.weight", torch.ones(1).expand(1 << 40), "is not a plain tensor"),
        ("norm.weight", torch.ones(16).to_sparse(), "is not a plain tensor"),
        ("head.weight", torch.full((16,), math.nan), None),
    ],
)
def test_an_odd_tensor_is_refused_in_one_line_where_it_is_used(name, value, message, tmp_path):
    state = {key: torch.ones(shape) for key, shape in timm(16, 2, patches=16).items()}
    state[name] = value
    torch.save(
        {key: value for key, value in state.items() if value is not None}, tmp_path / "w.pth"
    )
    objective = classifier(plain())
    if message is None:
        start_from_weights(objective, str(tmp_path / "w.pth"))
        return
    with pytest.raises((CheckpointError, ConfigError), match=message) as caught:
        start_from_weights(objective, str(tmp_path / "w.pth"))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("value", [torch.zeros(3), torch.zeros(1, 0, 16), torch.zeros(())])
def test_odd_positions_of_one_colour_are_refused_in_one_line(value, tmp_path):
    """Formats look at the positions to recognise their files."""
    state = {key: torch.ones(shape) for key, shape in timm(16, 2, colours=1, patches=16).items()}
    torch.save(state | {"pos_embed": value}, tmp_path / "w.pth")
    with pytest.raises(ConfigError) as caught:
        start_from_weights(classifier(plain()), str(tmp_path / "w.pth"))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "facts",
    [
        {"config": {"num_attention_heads": -1}},
        {"config": {"layer_norm_eps": "small"}},
        {"config": {"hidden_size": 1, "frequency_stride": 0, "time_stride": 0}},
        {"preprocessor_config": {"sampling_rate": "fast"}},
        {"preprocessor_config": {"max_length": -5}},
        {"config": 3},
    ],
)
def test_odd_settings_beside_weights_are_refused_in_one_line(facts, tmp_path):
    prefix = "audio_spectrogram_transformer."
    shapes = hugging_face(64, 1, prefix=prefix, distilled=True, colours=1, patches=1212)
    save_file({key: value.float() for key, value in drawn(shapes).items()}, tmp_path / FILE)
    for name, content in facts.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    if "hidden_size" in str(facts):
        # Sizes are incomplete, so that those of the tensors count.
        assert published_settings(str(tmp_path))[1].encoder.columns == 101
        return
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        published_settings(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


FILE = "model.safetensors"
