"""What BEATs' files must hold; tests/golden holds what the published code makes of them."""

import pytest
import torch
from interop.inventories import drawn

from melpatch.encoders.beats import BEATs
from melpatch.errors import ConfigError
from melpatch.interop.base import Foreign, Reading, recognise
from melpatch.interop.beats import BEATsWeights
from melpatch.weight_files import Weights

CFG = {"deep_norm": True, "layer_norm_first": False, "max_distance": 50}


def layout(width=16, depth=2, heads=2, patch_dim=8):
    shapes = {"patch_embedding.weight": (patch_dim, 1, 16, 16)}
    norms = {"layer_norm": patch_dim, "encoder.layer_norm": width}
    linears = {"post_extract_proj": (width, patch_dim)} if patch_dim != width else {}
    shapes |= {"encoder.pos_conv.0.bias": (width,)}
    shapes |= {"encoder.pos_conv.0.weight_g": (1, 1, 4)}
    shapes |= {"encoder.pos_conv.0.weight_v": (width, width // 4, 4)}
    for number in range(depth):
        at = f"encoder.layers.{number}."
        shapes |= {f"{at}self_attn.grep_a": (1, heads, 1, 1)}
        shapes |= {f"{at}self_attn.relative_attention_bias.weight": (32, heads)}
        linears |= {f"{at}self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")}
        linears |= {f"{at}self_attn.grep_linear": (8, width // heads)}
        linears |= {f"{at}fc1": (4 * width, width), f"{at}fc2": (width, 4 * width)}
        norms |= {f"{at}self_attn_layer_norm": width, f"{at}final_layer_norm": width}
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name, size in norms.items():
        shapes |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    return shapes


def weights(cfg=CFG, **sizes):
    return Weights(drawn(layout(**sizes)), {} if cfg is None else {"cfg": cfg})


def loaded(given):
    published = BEATsWeights().published(given, Reading())
    encoder = BEATs(published.encoder, 128).double().eval()
    converted = BEATsWeights().convert(given, encoder, Reading())
    encoder.load_state_dict(converted.state)
    return encoder, published, converted


@pytest.mark.parametrize("patch_dim", [8, 16])
def test_every_weight_has_its_place_and_the_shapes_tell_the_settings(patch_dim):
    given = weights(patch_dim=patch_dim)
    assert type(recognise(given)) is BEATsWeights
    encoder, published, converted = loaded(given)
    assert published.encoder == BEATs.Config(
        embed_dim=16,
        depth=2,
        num_heads=2,
        patch_dim=patch_dim,
        conv_kernel=4,
        conv_groups=4,
        buckets=32,
        max_distance=50,
        partial="drop",
    )
    assert (published.notes, converted.notes) == ([], [])
    # (mel 2, frame 3) of ours is (frame 3, mel 2) of theirs.
    kernel = given.state["patch_embedding.weight"][:, 0, 3, 2]
    assert torch.equal(encoder.patch_embedding.weight[:, 2 * 16 + 3], kernel)


def test_a_file_without_settings_has_the_published_distance_and_a_note():
    _, published, _ = loaded(weights(cfg=None))
    assert published.encoder.max_distance == 800
    assert published.notes == ["no cfg in the file, so max_distance is the published 800"]


def test_a_kernel_under_the_names_of_todays_torch_is_the_same():
    given = weights()
    renamed = {}
    for name, value in given.state.items():
        name = name.replace("weight_g", "parametrizations.weight.original0")
        renamed[name.replace("weight_v", "parametrizations.weight.original1")] = value
    expected = loaded(given)[0].state_dict()
    for name, value in loaded(given._replace(state=renamed))[0].state_dict().items():
        assert torch.equal(value, expected[name])


def test_another_architecture_is_refused():
    with pytest.raises(ConfigError, match=r"cfg\.layer_norm_first = True in the file"):
        BEATsWeights().published(weights(CFG | {"layer_norm_first": True}), Reading())


def test_other_heads_than_the_weights_have_are_refused(tmp_path):
    given = weights()
    torch.save({"cfg": CFG, "model": given.state}, tmp_path / "beats.pt")
    assert Foreign(str(tmp_path / "beats.pt"), Reading(num_heads=2)).published()
    with pytest.raises(
        ConfigError, match=r"beats\.pt: num_heads = 4; allowed: 2, as the weights say"
    ):
        Foreign(str(tmp_path / "beats.pt"), Reading(num_heads=4)).published()


def test_an_encoder_of_another_size_is_refused_with_the_flag():
    encoder = BEATs(BEATs.Config(embed_dim=32, num_heads=2), 128)
    with pytest.raises(ConfigError, match=r"weights have 16; use --encoder\.embed-dim 16"):
        BEATsWeights().convert(weights(), encoder, Reading())


def test_the_classes_are_named_in_their_order():
    given = weights()
    assert BEATsWeights().head(given, Reading()) is None
    given.state["predictor.weight"] = torch.zeros(2, 16)
    given.facts["label_dict"] = {1: "/m/02", 0: "/m/01"}
    head = BEATsWeights().head(given, Reading())
    assert (head.linear, head.pooling, head.multi_label) == ("predictor", "mean", True)
    assert head.labels == ["/m/01", "/m/02"]
