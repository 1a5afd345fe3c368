"""PaSST: a table of positions for each axis, and one for class and distillation token."""

import pytest
import torch
from interop.inventories import drawn, timm
from interop.slow_vit import slow_timm

from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.interop.base import Reading, recognise
from melpatch.interop.passt import PaSST
from melpatch.weight_files import Weights

HEADS = Reading(num_heads=2)
COLUMNS = 4


def weights(rows=12):
    shapes = timm(16, 2, colours=1, patches=1, distilled=True)
    del shapes["pos_embed"]
    shapes |= {"new_pos_embed": (1, 2, 16), "freq_new_pos_embed": (1, 16, rows, 1)}
    return Weights(drawn(shapes | {"time_new_pos_embed": (1, 16, 1, COLUMNS)}), {})


@pytest.mark.parametrize(("rows", "stride"), [(12, 10), (10, 12), (9, 14), (8, 16)])
def test_it_computes_what_the_foreign_model_computes_on_shorter_clips(rows, stride):
    given = weights(rows)
    assert type(recognise(given)) is PaSST
    published = PaSST().published(given, HEADS)
    assert published.frames == 3 * stride + 16
    assert published.front_end.sample_rate == 32000
    encoder = ViT(published.encoder, 128).double().eval()
    encoder.load_state_dict(PaSST().convert(given, encoder, HEADS).state)
    # Three columns of the four.
    spectrogram = torch.randn(2, 128, 2 * stride + 20, dtype=torch.float64)
    with torch.inference_mode():
        encoded = encoder(spectrogram)
    state = dict(given.state)
    table = [
        state["freq_new_pos_embed"][0, :, row, 0] + state["time_new_pos_embed"][0, :, 0, column]
        for row in range(rows)
        for column in range(3)
    ]
    state["pos_embed"] = torch.cat([state["new_pos_embed"][0], torch.stack(table)])[None]
    expected = slow_timm(state, spectrogram[:, None], 2, stride)
    found = torch.cat([encoded.cls, encoded.patches], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_rows_of_no_published_stride_are_refused():
    with pytest.raises(ConfigError, match=r"has 11 rows of patches; allowed: 8, 9, 10, 12"):
        PaSST().published(weights(11), HEADS)
