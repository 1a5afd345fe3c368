"""M2D and MSM-MAE have the names of MAE: statistics, a teacher or 80 mel bins tell them apart."""

import pytest
import torch
from interop.inventories import drawn, mae, with_sines
from interop.slow_vit import slow_timm

from melpatch.encoders.vit import ViT
from melpatch.interop.base import Reading, recognise
from melpatch.interop.m2d import M2D
from melpatch.weight_files import Weights
from melpatch.workflows.finetune import finetune_defaults

HEADS = Reading(num_heads=2)


def weights(rows=5, columns=38, **extra):
    shapes = mae(16, 2, patches=rows * columns, decoder=8, decoder_depth=1)
    return Weights(with_sines(drawn(shapes), rows, columns) | extra, {})


@pytest.mark.parametrize(
    ("given", "family"),
    [
        (weights(), "M2D"),
        (weights(8, 62, norm_stats=torch.tensor([-7.0, 4.0])), "M2D"),
        (weights(8, 62, **{"target_blocks.0.attn.qkv.weight": torch.zeros(48, 16)}), "M2D"),
        (weights(8, 62), "MaskSpec"),
        (weights(8, 64), "AudioMAE"),
    ],
    ids=["80 mels", "statistics", "teacher", "MaskSpec", "Audio-MAE"],
)
def test_signs_tell_the_families_apart(given, family):
    assert type(recognise(given)).__name__ == family


def test_it_computes_what_the_foreign_model_computes():
    given = weights(columns=6)
    encoder = ViT(M2D().published(given, HEADS).encoder, 80).double().eval()
    encoder.load_state_dict(M2D().convert(given, encoder, HEADS).state)
    spectrogram = torch.randn(2, 80, 96, dtype=torch.float64)
    with torch.inference_mode():
        encoded = encoder(spectrogram)
    found = torch.cat([encoded.cls, encoded.patches], dim=1)
    expected = slow_timm(given.state, spectrogram[:, None], 2)
    # The sines in a file are rounded to float32.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_init_alone_takes_statistics_and_the_published_length(tmp_path):
    shapes = mae(64, 1, patches=5 * 38, decoder=8, decoder_depth=1)
    state = {key: value.float() for key, value in with_sines(drawn(shapes), 5, 38).items()}
    path = str(tmp_path / "m2d.pth")
    torch.save({"model": state | {"norm_stats": torch.tensor([-6.5, 3.5])}}, path)
    training = finetune_defaults(path).training
    front_end = training.front_end
    assert (front_end.n_mels, front_end.mean, front_end.std) == (80, -6.5, 3.5)
    # 608 frames, centred.
    assert training.loader.seconds == 6.07
    assert (training.encoder.positions, training.encoder.partial) == ("sincos_mae", "pad")
    assert finetune_defaults(path).stats_clips == 0


def test_without_statistics_a_note_names_the_published_ones():
    notes = M2D().published(weights(), HEADS).notes
    assert "no norm_stats in it: mean and std are the published -7.1 and 4.2" in notes


def test_models_that_grew_from_it_have_it_behind_a_prefix():
    state = weights(columns=6).state
    given = Weights({f"backbone.{key}": value for key, value in state.items()}, {})
    assert type(recognise(given)) is M2D
    settings = M2D().published(given, HEADS)
    assert settings.frames == 96
    encoder = ViT(settings.encoder, 80)
    found = M2D().convert(given, encoder, HEADS).state
    expected = M2D().convert(weights(columns=6), encoder, HEADS).state
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
