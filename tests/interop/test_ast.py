import pytest
import torch
from golden.official import config, load_official, official_state
from interop.inventories import ast, blank, drawn, timm

from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.interop.ast import AST, STATISTICS
from melpatch.interop.base import Reading
from melpatch.nn.positions import resize
from melpatch.weight_files import Weights, read_weights

GRID = {
    "stride": (10, 10),
    "partial": "drop",
    "positions": "learned",
    "columns": 101,
    "cls_tokens": 2,
}


def test_every_published_weight_has_its_place(tmp_path):
    shapes = ast(width=192)
    torch.save(
        {name: value.clone() for name, value in blank(shapes).items()}, tmp_path / "audioset.pth"
    )
    weights = read_weights(str(tmp_path / "audioset.pth"))
    assert len(weights.state) == len(shapes) == 159
    assert AST().recognises(weights)
    encoder = ViT(ViT.Config.of_size("tiny", **GRID), 128)
    found = AST().convert(weights, encoder, Reading())
    encoder.load_state_dict(found.state)
    assert found.notes == ["left out: head, head_dist, mlp_head"]


@pytest.mark.parametrize("variant", ["patch", "frame", "ast"])
def test_it_is_the_encoder_whose_golden_numbers_are_tested(variant):
    """tests/golden holds what the published code computes with these weights, under a mapping of its own."""
    expected = load_official(ViT(config(variant), 128), variant).state_dict()
    weights = Weights(official_state(variant), {})
    found = AST().convert(weights, ViT(config(variant), 128), Reading()).state
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_ssast_says_how_many_rows_its_positions_have():
    """With a stride of 10 the encoder has 12 rows, which 512 positions do not make: they are 8 x 64."""
    state = official_state("patch")
    encoder = ViT(ViT.Config.of_size("tiny", **GRID), 128)
    found = AST().convert(Weights(state, {}), encoder, Reading())
    expected = resize(state["v.pos_embed"][0, 2:], (8, 64), (12, 101), "legacy")
    assert torch.equal(found.state["position_table"], expected)
    assert found.notes[0] == "positions 8 x 64 fitted to 12 x 101 (legacy)"
    assert (
        found.notes[1] == "left out: cpredlayer, gpredlayer, mask_embed, p_input_fdim, p_input_tdim"
    )


def written(patches, patch=(16, 16), width=64):
    """A file of AST at a small depth, whose keys hold no geometry."""
    shapes = timm(width, 1, colours=1, patches=patches, distilled=True, patch=patch)
    return Weights({f"v.{name}": value for name, value in drawn(shapes).items()}, {})


@pytest.mark.parametrize(
    ("patches", "patch", "stride", "grid", "frames"),
    [
        (1212, (16, 16), (10, 10), (12, 101), 1024),
        (600, (16, 16), (10, 10), (12, 50), 512),
        (144, (16, 16), (10, 10), (12, 12), 128),
        (512, (16, 16), (16, 16), (8, 64), 1024),
        (299, (128, 2), (128, 1), (1, 299), 300),
    ],
    ids=["AudioSet", "ESC-50", "Speech Commands", "no overlap", "frames"],
)
def test_the_number_of_positions_tells_the_geometry(patches, patch, stride, grid, frames):
    published = AST().published(written(patches, patch), Reading())
    config = published.encoder
    encoder = ViT(config, 128)
    assert (config.stride, config.partial) == (stride, "drop")
    assert (encoder.grid.rows, config.columns) == grid
    assert published.front_end.target_frames == frames
    assert (published.front_end.mean, published.front_end.std) == STATISTICS.get(
        frames, STATISTICS[1024]
    )


def test_a_table_is_read_at_its_own_geometry_whatever_the_encoder_has():
    """12 x 101 positions are not 4 x 303, though 64 mels in steps of 16 make 4 rows."""
    weights = written(1212)
    config = ViT.Config(
        embed_dim=64, depth=1, num_heads=1, positions="learned", columns=64, cls_tokens=2
    )
    encoder = ViT(config, 64)
    found = AST().convert(weights, encoder, Reading())
    table = weights.state["v.pos_embed"][0, 2:]
    expected = resize(table, (12, 101), (4, 64), "legacy")
    assert torch.equal(found.state["position_table"], expected)
    assert found.notes[0] == "positions 12 x 101 fitted to 4 x 64 (legacy)"


@pytest.mark.parametrize("patches", [1200, 1213], ids=["two geometries", "none"])
def test_positions_of_unknown_geometry_are_refused_unless_the_encoder_has_as_many(patches):
    weights = written(patches)
    settings = {"embed_dim": 64, "depth": 1, "num_heads": 1, "positions": "learned"}
    other = ViT(ViT.Config(**settings, columns=50), 128)
    message = rf"pos_embed has {patches} positions of unknown geometry, .*; give the geometry"
    with pytest.raises(ConfigError, match=message):
        AST().convert(weights, other, Reading())
    published = AST().published(weights, Reading())
    assert published.front_end is None
    same = ViT(ViT.Config(**settings, patch=(128, 16), columns=patches), 128)
    wrong_patch = "patches of 16 x 16"
    with pytest.raises(ConfigError, match=wrong_patch):
        AST().convert(weights, same, Reading())
    rows = ViT(ViT.Config(**settings, columns=patches // 8), 128)
    if patches % 8 == 0:
        table = AST().convert(weights, rows, Reading()).state["position_table"]
        assert torch.equal(table, weights.state["v.pos_embed"][0, 2:])


def test_a_size_that_contradicts_the_positions_is_refused():
    state = dict(written(512).state)
    state |= {"p_input_fdim": torch.tensor(128), "p_input_tdim": torch.tensor(998)}
    with pytest.raises(ConfigError, match=r"512 positions, but p_input_fdim = 128 .* make 8 x 62"):
        AST().published(Weights(state, {}), Reading())
