import pytest
import torch
from interop.inventories import blank, drawn, mae, with_sines
from interop.slow_vit import slow_timm

from melpatch.encoders.vit import ViT
from melpatch.interop.base import Reading
from melpatch.interop.maskspec import MaskSpec
from melpatch.recipes.base import recipe
from melpatch.weight_files import Weights

RECIPES = ("maskspec_32k", "maskspec_16k", "maskspec_finetune", "maskspec_finetune_cls")


def test_every_published_weight_has_its_place():
    shapes = mae()
    assert len(shapes) == 254
    with torch.device("meta"):
        encoder = ViT(ViT.Config.of_size("base", positions="learned", columns=62), 128)
    found = MaskSpec().convert(Weights(blank(shapes), {}), encoder, Reading()).state
    expected = {name: value.shape for name, value in encoder.state_dict().items()}
    assert {name: value.shape for name, value in found.items()} == expected


@pytest.mark.parametrize("positions", ["sincos_mae", "learned"])
def test_it_computes_what_the_foreign_model_computes(positions):
    """The column is in the first half of the channels, and patches are numbered as ours."""
    state = with_sines(drawn(mae(16, 2, patches=248, decoder=8, decoder_depth=1)), 8, 31)
    config = ViT.Config(
        embed_dim=16, depth=2, num_heads=2, partial="drop", positions=positions, columns=31
    )
    encoder = ViT(config, 128).double().eval()
    found = MaskSpec().convert(Weights(state, {}), encoder, Reading())
    assert not any("position" in note for note in found.notes)
    encoder.load_state_dict(found.state)
    spectrogram = torch.randn(2, 128, 496, dtype=torch.float64)
    with torch.inference_mode():
        encoded = encoder(spectrogram)
    found = torch.cat([encoded.cls, encoded.patches], dim=1)
    expected = slow_timm(state, spectrogram[:, None], heads=2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # sines in single precision


@pytest.mark.parametrize("name", RECIPES)
def test_its_recipes_have_the_positions_of_its_files(name):
    assert recipe(name)("base").encoder.positions == "sincos_mae"


def test_the_missing_statistics_by_mel_bin_are_named():
    state = with_sines(drawn(mae(64, 2, patches=496, decoder=8, decoder_depth=1)), 8, 62)
    published = MaskSpec().published(Weights(state, {}), Reading())
    assert "mean_std_128.npy" in published.notes[0]
    assert published.encoder.positions == "sincos_mae"
    assert published.front_end.sample_rate == 32000
