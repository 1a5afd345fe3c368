"""Dasheng: statistics by mel bin and two position tables become part of the projection and one table."""

from dataclasses import replace

import pytest
import torch
from interop.inventories import drawn, timm
from interop.slow_vit import slow_timm

from melpatch.audio import front_ends
from melpatch.audio.framing import DECIBELS
from melpatch.audio.logmel import LogMel
from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.interop.base import Reading, recognise
from melpatch.interop.dasheng import Dasheng
from melpatch.weight_files import Weights
from melpatch.workflows.finetune import finetune_defaults

COLUMNS = 6
PARTS = {"weight": 1.0, "bias": 0.0, "running_mean": -25.0, "running_var": 250.0}


def tensors(width=16, columns=COLUMNS, patch=(64, 4), rows=1):
    shapes = timm(width, 2, colours=1, patches=1, patch=patch)
    kept = ("blocks.", "patch_embed.", "norm.")
    state = {key: value for key, value in drawn(shapes).items() if key.startswith(kept)}
    tables = {"time_pos_embed": (1, width, 1, columns), "freq_pos_embed": (1, width, rows, 1)}
    state |= drawn(tables)
    norm = drawn({f"init_bn.1.{part}": (64, 2) for part in PARTS})
    for part, about in PARTS.items():
        spread = max(1.0, abs(about))
        state[f"init_bn.1.{part}"] = about + 0.2 * spread * norm[f"init_bn.1.{part}"][:, 0]
    return state


def weights(hugging_face=False, **sizes):
    state = tensors(**sizes)
    if hugging_face:
        return Weights({f"encoder.{key}": value for key, value in state.items()}, HUGGING_FACE)
    state["front_end.0.spectrogram.window"] = torch.zeros(512)
    return Weights(state, {"config": {"num_heads": 2, "depth": 2}})


HUGGING_FACE = {"config": {"encoder_kwargs": {"num_heads": 2}}}


def slow(wave):
    """Tokens of the published model, from the wave: decibels, statistics by bin, patches, positions."""
    state = tensors()
    decibels = DECIBELS * LogMel(replace(front_ends.dasheng(), mean=0.0, std=1.0))(wave)
    gain, offset, mean, variance = (state[f"init_bn.1.{part}"][:, None] for part in PARTS)
    image = (decibels - mean) / (variance + 1e-5).sqrt() * gain + offset
    columns = image.shape[2] // 4
    positions = state["time_pos_embed"][..., :columns] + state["freq_pos_embed"]
    state["pos_embed"] = positions.flatten(2).transpose(1, 2)
    return slow_timm(state, image[:, None], 2, (64, 4))


@pytest.mark.parametrize("hugging_face", [False, True])
def test_it_computes_what_the_foreign_model_computes_from_the_wave_on(hugging_face):
    given = weights(hugging_face)
    assert type(recognise(given)) is Dasheng
    published = Dasheng().published(given, Reading())
    assert (published.encoder.num_heads, published.encoder.cls_tokens) == (2, 0)
    encoder = ViT(published.encoder, 64).double().eval()
    converted = Dasheng().convert(given, encoder, Reading())
    assert not any("init_bn" in note or "pos_embed" in note for note in converted.notes)
    encoder.load_state_dict(converted.state)
    wave = 0.1 * torch.randn(2, 2900, dtype=torch.float64)
    with torch.inference_mode():
        found = encoder(LogMel(published.front_end)(wave)).patches
    assert found.shape == (2, 4, 16)
    torch.testing.assert_close(found, slow(wave), rtol=0, atol=1e-10)


def test_init_alone_takes_statistics_and_the_published_length(tmp_path):
    path = str(tmp_path / "dasheng.pt")
    state = weights(width=64, columns=252).state
    content = {"model": {key: value.float() for key, value in state.items()}}
    torch.save(content | {"config": {"num_heads": 2}}, path)
    training = finetune_defaults(path).training
    # 1008 frames, centred.
    assert training.loader.seconds == 10.07
    assert (training.encoder.num_heads, training.encoder.columns) == (2, 252)
    assert training.front_end.mean * DECIBELS == pytest.approx(-25.0, abs=2.0)
    assert finetune_defaults(path).stats_clips == 0


@pytest.mark.parametrize(("width", "heads"), [(768, 12), (1280, 16), (1536, 24)])
def test_published_widths_have_their_heads(width, heads):
    """Not one for each 64 channels."""
    assert Dasheng().num_heads(Weights({}, {}), width, Reading()) == heads


def test_patches_of_fewer_bins_are_refused():
    """Bins of one patch then have other statistics than those of the next."""
    given = weights(patch=(16, 16), rows=4)
    with pytest.raises(ConfigError, match=r"patches of 16 mel bins, .* as in CED; allowed:"):
        Dasheng().published(given, Reading())
