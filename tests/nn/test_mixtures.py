"""Mixtures of clips with partners, frame by frame."""

import pytest
import torch

from melpatch.errors import ConfigError
from melpatch.nn.grid import PatchGrid
from melpatch.nn.mixtures import Mixtures, mix, stretches
from melpatch.rng import stream

GRID = PatchGrid(n_mels=16, patch=(8, 8), stride=(8, 8))


def states(count, step=0):
    return stream(0, "alone", torch.arange(count), step)


def test_published_stretches_of_15_of_64_columns():
    columns = torch.full((2000,), 64)
    alone = stretches(states(2000), columns, 64, 15 / 64)
    assert (alone.sum(dim=1) == 30).all()
    start = alone.int().argmax(dim=1)
    end = 64 - alone.flip(1).int().argmax(dim=1)
    assert (start.min(), start.max()) == (0, 31)
    assert (end.min(), end.max()) == (30, 63)  # the second begins before column 49


@pytest.mark.parametrize("columns", range(9))
def test_stretches_of_short_clips_lie_within_them(columns):
    alone = stretches(states(50), torch.full((50,), columns), 9, 0.25)
    assert not alone[:, columns:].any()
    assert (alone.sum(dim=1) == 2 * int(columns * 0.25)).all()


def test_a_mixture_is_the_louder_of_both_where_both_are():
    spectrogram = torch.randn(3, 16, 80, generator=torch.Generator().manual_seed(0))
    frames = torch.tensor([80, 43, 70])
    partners = torch.tensor([1, 0, 2])
    mixture = mix(spectrogram, frames, partners, states(3), GRID, 0.2)
    alone = stretches(states(3), torch.tensor([10, 6, 9]), 10, 0.2)
    for clip, partner in enumerate(partners.tolist()):
        for frame in range(80):
            inside = frame < min(frames[clip], frames[partner])
            mixed = inside and clip != partner and not alone[clip, frame // 8]
            expected = spectrogram[clip, :, frame]
            if mixed:
                expected = torch.maximum(expected, spectrogram[partner, :, frame])
            assert torch.equal(mixture.spectrogram[clip, :, frame], expected)
        in_patches = mixture.mixed[clip].view(2, 10)
        assert torch.equal(in_patches[0], in_patches[1])
    assert mixture.mixed[0].any()
    assert not mixture.mixed[0].view(2, 10)[:, 6:].any()
    assert not mixture.mixed[2].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alone": 0.3}, r"alone = 0.3; allowed: 0 to 0\.25"),
        ({"retention_weight": -1.0}, r"retention_weight = -1\.0; allowed: 0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Mixtures(**settings)
