"""Audio-MAE and MaskSpec have the same names: signs tell them apart, and what is ambiguous is refused."""

import pytest
import torch
from interop.inventories import drawn, mae, timm, with_sines
from interop.slow_vit import slow_timm

from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.interop.audiomae import AudioMAE
from melpatch.interop.base import Reading, recognise
from melpatch.interop.maskspec import MaskSpec
from melpatch.weight_files import Weights

OWN = {"args": {"use_custom_patch": False, "mask_ratio": 0.8}}
PLAIN = {"args": {"model": "mae_vit_base_patch16", "mask_ratio": 0.75}}
SWIN = "decoder_blocks.0.attn.relative_position_bias_table"


def weights(rows, columns, facts=None, extra=(), pretraining=True):
    """Weights of one colour with MAE's sines for a grid, and what else a file may hold."""
    shapes = mae(16, 2, patches=rows * columns, decoder=8, decoder_depth=1)
    if not pretraining:
        shapes = timm(16, 2, colours=1, patches=rows * columns)
    state = with_sines(drawn(shapes), rows, columns)
    return Weights(state | dict.fromkeys(extra, torch.zeros(49, 16)), facts or {})


@pytest.mark.parametrize(
    ("given", "family"),
    [
        (weights(8, 64, OWN), AudioMAE),
        (weights(8, 64, extra=[SWIN]), AudioMAE),
        (weights(8, 64, pretraining=False), AudioMAE),
        (weights(25, 12, OWN), AudioMAE),
        (weights(8, 62, PLAIN), MaskSpec),
        (weights(8, 31), MaskSpec),
    ],
    ids=["args", "Swin decoder", "fine-tuned", "overlapping", "MaskSpec", "MaskSpec of 5 s"],
)
def test_signs_tell_the_families_apart(given, family):
    assert type(recognise(given)) is family


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            weights(8, 64, PLAIN),
            r"sines of 8 x 64, column first\) may be Audio-MAE's or MaskSpec's",
        ),
        (weights(8, 62, OWN), r"looks like Audio-MAE by args\.use_custom_patch, but its positions"),
        (weights(8, 62, extra=[SWIN]), f"looks like Audio-MAE by {SWIN}, but"),
    ],
    ids=["both", "arguments against sines", "decoder against sines"],
)
def test_signs_that_disagree_are_refused_until_the_axes_are_said(given, message):
    with pytest.raises(ConfigError, match=rf"{message}.*--init-axes frame_mel"):
        recognise(given)
    assert type(recognise(given, Reading(axes="mel_frame"))) is MaskSpec
    other = recognise(given, Reading(axes="frame_mel"))
    assert other.published(given, Reading(axes="frame_mel", num_heads=2)) is not None


def test_sines_of_another_length_are_refused_until_the_axes_are_said():
    given = weights(8, 40)
    with pytest.raises(ConfigError, match=r"give --init-axes mel_frame or frame_mel"):
        recognise(given).published(given, Reading(num_heads=2))
    assert type(recognise(given, Reading(axes="mel_frame"))) is MaskSpec


@pytest.mark.parametrize(
    ("rows", "columns", "stride"), [(8, 64, 16), (25, 12, 10)], ids=["default", "overlapping"]
)
def test_it_computes_what_the_foreign_model_computes_on_frames_first(rows, columns, stride):
    """The table of the default model is written for 8 x 64, and read by tokens of 64 x 8."""
    given = weights(rows, columns, OWN)
    asked = Reading(num_heads=2)
    encoder = ViT(AudioMAE().published(given, asked).encoder, 128).double().eval()
    encoder.load_state_dict(AudioMAE().convert(given, encoder, asked).state)
    steps = max(rows, columns)
    spectrogram = torch.randn(2, 128, (steps - 1) * stride + 16, dtype=torch.float64)
    with torch.inference_mode():
        found = encoder(spectrogram).patches
    expected = slow_timm(given.state, spectrogram.transpose(1, 2)[:, None], 2, stride)[:, 1:]
    expected = expected.unflatten(1, (steps, -1)).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
