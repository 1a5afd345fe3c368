import re

import pytest
import torch
from golden.official import golden
from interop.inventories import blank, drawn, hugging_face
from interop.slow_vit import slow_hugging_face

from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.interop.base import Reading
from melpatch.interop.hf_vit import HFViT
from melpatch.weight_files import Weights

AST = {
    "stride": (10, 10),
    "partial": "drop",
    "positions": "learned",
    "columns": 101,
    "cls_tokens": 2,
    "norm_eps": 1e-12,
}
NAMES = {
    4: (
        "encoder.layer.",
        *(f"attention.attention.{name}" for name in ("query", "key", "value")),
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ),
    5: (
        "layers.",
        *(f"attention.{name}_proj" for name in ("q", "k", "v", "o")),
        "mlp.fc1",
        "mlp.fc2",
    ),
}


def convert(state, encoder):
    return HFViT().convert(Weights(state, {}), encoder, Reading())


def recognised(shapes):
    return HFViT().recognises(Weights(blank(shapes), {}))


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    ("published", "tensors", "settings"),
    [
        ({}, 200, {}),
        ({"prefix": "deit.", "distilled": True}, 201, {"positions": "learned", "cls_tokens": 2}),
        (
            {
                "prefix": "audio_spectrogram_transformer.",
                "distilled": True,
                "colours": 1,
                "patches": 1212,
            },
            201,
            AST,
        ),
    ],
    ids=["ViT", "DeiT", "AST"],
)
def test_every_published_weight_has_its_place(published, tensors, settings, version):
    shapes = hugging_face(**published, version=version)
    assert len(shapes) == tensors
    assert recognised(shapes)
    with torch.device("meta"):
        encoder = ViT(ViT.Config.of_size("base", **settings), 128)
    found = convert(blank(shapes), encoder)
    expected = {name: value.shape for name, value in encoder.state_dict().items()}
    assert {name: value.shape for name, value in found.state.items()} == expected
    assert "left out: classifier" in found.notes


def test_the_keys_that_transformers_writes_are_all_known():
    shapes = {
        name: tuple(shape)
        for name, shape in golden("ast_supervised")["huggingface"]["on_disk_keys"].items()
    }
    assert recognised(shapes)
    encoder = ViT(ViT.Config.of_size("tiny", **AST), 128)
    found = convert(blank(shapes), encoder)
    encoder.load_state_dict(found.state)
    assert found.notes == ["left out: classifier"]


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("version", [4, 5])
def test_it_computes_what_the_foreign_model_computes(version, distilled):
    shapes = hugging_face(16, 2, version=version, prefix="deit.", distilled=distilled, patches=16)
    state = drawn(shapes)
    settings = {"embed_dim": 16, "depth": 2, "num_heads": 2, "positions": "learned", "columns": 4}
    encoder = ViT(ViT.Config(**settings, cls_tokens=1 + distilled), 64).double().eval()
    encoder.load_state_dict(convert(state, encoder).state)
    spectrogram = torch.randn(2, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        found = encoder(spectrogram)
    image = spectrogram[:, None].expand(-1, 3, -1, -1)
    expected = slow_hugging_face(state, image, 2, "deit.", NAMES[version])
    torch.testing.assert_close(
        torch.cat([found.cls, found.patches], dim=1), expected, rtol=0, atol=1e-12
    )


def test_a_model_without_a_head_has_no_prefix():
    shapes = {
        name.removeprefix("vit."): shape
        for name, shape in hugging_face(16, 2, patches=16).items()
        if name.startswith("vit.")
    }
    assert recognised(shapes)
    encoder = ViT(ViT.Config(embed_dim=16, depth=2, num_heads=2), 64)
    encoder.load_state_dict(
        convert(drawn(shapes | {"pooler.dense.weight": (16, 16)}), encoder).state
    )


@pytest.mark.parametrize(
    "part", ["encoder.layer.0.attention.attention.relative", "encoder.layer.0.lambda_1"]
)
def test_a_part_that_a_plain_vit_has_not_is_refused(part):
    shapes = hugging_face(16, 2, patches=16) | {f"vit.{part}": (16,)}
    with pytest.raises(ConfigError, match="has no place in a plain ViT"):
        convert(blank(shapes), ViT(ViT.Config(embed_dim=16, depth=2, num_heads=2), 64))


def test_queries_without_their_keys_are_refused():
    shapes = hugging_face(16, 2, patches=16)
    del shapes["vit.encoder.layer.1.attention.attention.key.weight"]
    with pytest.raises(ConfigError, match=r"blocks\.1\.attn\.q\.weight has no place"):
        convert(blank(shapes), ViT(ViT.Config(embed_dim=16, depth=2, num_heads=2), 64))


def test_a_model_without_biases_of_q_k_and_v_gets_zeros():
    """``qkv_bias: false``; a file in which only some are missing is half a download."""
    shapes = hugging_face(16, 2, patches=16)
    bare = {
        name: shape
        for name, shape in shapes.items()
        if not re.search(r"\.(query|key|value)\.bias$", name)
    }
    encoder = ViT(ViT.Config(embed_dim=16, depth=2, num_heads=2), 64)
    found = convert(drawn(bare), encoder).state
    assert not found["transformer.blocks.1.attn.qkv.bias"].any()
    encoder.load_state_dict(found)
    del shapes["vit.encoder.layer.1.attention.attention.key.bias"]
    with pytest.raises(ConfigError, match=r"blocks\.1\.attn\.k\.bias is missing, though other"):
        convert(drawn(shapes), encoder)


def test_without_its_settings_ast_has_those_that_were_published():
    prefix = "audio_spectrogram_transformer."
    shapes = hugging_face(64, 2, prefix=prefix, distilled=True, colours=1, patches=1212)
    published = HFViT().published(Weights(drawn(shapes), {}), Reading())
    config = published.encoder
    assert (config.stride, config.columns, config.norm_eps) == ((10, 10), 101, 1e-12)
    assert published.front_end.target_frames == 1024
    assert "no preprocessor_config.json" in published.notes[0]


def test_a_model_that_was_not_normalised_gets_plain_log_mels():
    prefix = "audio_spectrogram_transformer."
    shapes = hugging_face(64, 2, prefix=prefix, distilled=True, colours=1, patches=1212)
    facts = {"preprocessor_config": {"do_normalize": False, "max_length": 1024}}
    front_end = HFViT().published(Weights(drawn(shapes), facts), Reading()).front_end
    assert (front_end.mean, front_end.std, front_end.scale) == (0.0, 1.0, 1.0)
