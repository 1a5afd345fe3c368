"""What MAE-AST's files must hold; tests/golden holds what the published code makes of them."""

import pytest
import torch
from interop.inventories import drawn

from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.interop.base import Reading, recognise
from melpatch.interop.mae_ast import MAEAST
from melpatch.weight_files import Weights

MODEL = {"ast_kernel_size_chan": 128, "ast_kernel_size_time": 2, "encoder_attention_heads": 2}


def weights(**model):
    shapes = {"encoder_mask_emb": (16,), "post_extract_proj.weight": (16, 256)}
    shapes |= {"post_extract_proj.bias": (16,)}
    shapes |= {f"batch_norm.{name}": (1,) for name in ("running_mean", "running_var")}
    shapes |= {"batch_norm.num_batches_tracked": ()}
    layers = {f"self_attn.{name}_proj": (16, 16) for name in ("q", "k", "v", "out")}
    layers |= {"fc1": (64, 16), "fc2": (16, 64)}
    for number in range(2):
        for name, shape in layers.items():
            at = f"encoder.layers.{number}.{name}"
            shapes |= {f"{at}.weight": shape, f"{at}.bias": shape[:1]}
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            at = f"encoder.layers.{number}.{name}"
            shapes |= {f"{at}.weight": (16,), f"{at}.bias": (16,)}
    shapes |= {"encoder.layer_norm.weight": (16,), "encoder.layer_norm.bias": (16,)}
    return Weights(drawn(shapes), {"cfg": {"model": MODEL | model}})


def test_patches_of_frames_are_told_by_the_checkpoint():
    given = weights()
    assert type(recognise(given)) is MAEAST
    published = MAEAST().published(given, Reading())
    config = published.encoder
    assert (config.patch, config.num_heads, config.cls_tokens) == ((128, 2), 2, 0)
    assert (config.norm, config.norm_eps, config.positions) == ("post", 1e-5, "interleaved")
    assert (published.front_end.mean, published.front_end.scale) == (0.0, 1.0)
    encoder = ViT(config, 128)
    encoder.load_state_dict(MAEAST().convert(given, encoder, Reading()).state)
    kernel = given.state["post_extract_proj.weight"][:, 3 + 128]
    assert torch.equal(encoder.projection.weight[:, 2 * 3 + 1].detach().double(), kernel.float())


def test_a_checkpoint_without_its_settings_is_refused():
    given = weights()._replace(facts={})
    with pytest.raises(ConfigError, match=r"cfg\.model with ast_kernel_size_chan.* is missing"):
        MAEAST().published(given, Reading())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "pre"}, r"encoder\.norm = 'pre', .*; use --encoder\.norm post"),
        ({"positions": "sequence"}, r"use --encoder\.positions interleaved"),
        ({"patch": (16, 8)}, r"takes 256 values of a patch, but encoder\.patch = \(16, 8\)"),
    ],
)
def test_an_encoder_of_another_kind_is_refused_with_the_flag(changes, message):
    settings = {
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "cls_tokens": 0,
        "norm": "post",
        "norm_eps": 1e-5,
        "positions": "interleaved",
        "input_norm": "batch",
    }
    encoder = ViT(ViT.Config(**settings | changes), 128)
    with pytest.raises(ConfigError, match=message):
        MAEAST().convert(weights(), encoder, Reading())
