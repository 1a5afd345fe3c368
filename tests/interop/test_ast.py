import pytest
import torch
from golden.official import config, load_official, official_state
from interop.inventories import ast, blank

from melpatch.encoders.vit import ViT
from melpatch.interop.ast import AST
from melpatch.interop.base import read_state
from melpatch.nn.positions import resize

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
    state = read_state(str(tmp_path / "audioset.pth"))
    assert len(state) == len(shapes) == 159
    assert AST().recognises(state.keys())
    encoder = ViT(ViT.Config.of_size("tiny", **GRID), 128)
    found = AST().convert(state, encoder, "sum", "legacy")
    encoder.load_state_dict(found.state)
    assert found.notes == ["left out: head, head_dist, mlp_head"]


@pytest.mark.parametrize("variant", ["patch", "frame", "ast"])
def test_it_is_the_encoder_whose_golden_numbers_are_tested(variant):
    """tests/golden holds what the published code computes with these weights, under a mapping of its own."""
    expected = load_official(ViT(config(variant), 128), variant).state_dict()
    found = AST().convert(official_state(variant), ViT(config(variant), 128), "sum", "legacy").state
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_ssast_says_how_many_rows_its_positions_have():
    """With a stride of 10 the encoder has 12 rows, which 512 positions do not make: they are 8 x 64."""
    state = official_state("patch")
    found = AST().convert(state, ViT(ViT.Config.of_size("tiny", **GRID), 128), "sum", "legacy")
    expected = resize(state["v.pos_embed"][0, 2:], (8, 64), (12, 101), "legacy")
    assert torch.equal(found.state["position_table"], expected)
    assert found.notes[0] == "positions 8 x 64 fitted to 12 x 101 (legacy)"
    assert (
        found.notes[1] == "left out: cpredlayer, gpredlayer, mask_embed, p_input_fdim, p_input_tdim"
    )
