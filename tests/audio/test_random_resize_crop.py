import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from melpatch.audio import random_resize_crop as module
from melpatch.audio.random_resize_crop import random_resize_crop
from melpatch.rng import stream, uniform

STATE = stream(0, "test", torch.arange(6))
FRAMES = torch.tensor([50, 60, 1, 33, 7, 60])


def slow(spectrogram: Tensor, draws: list[float], mels, times, canvas) -> Tensor:
    """Return the crop of one clip by torch's interpolation."""
    rows, frames = spectrogram.shape
    length = int(frames * canvas + 1e-4)
    width = min(max(1, int(frames * (times[0] + draws[0] * (times[1] - times[0])))), length)
    height = min(max(1, int(rows * (mels[0] + draws[2] * (mels[1] - mels[0])))), rows)
    left = int(draws[1] * (length - width + 1))
    low = int(draws[3] * (rows - height + 1))
    whole = torch.zeros(rows, length)
    begin = (length - frames) // 2
    whole[:, begin : begin + frames] = spectrogram
    piece = whole[None, None, low : low + height, left : left + width]
    return F.interpolate(piece, (rows, frames), mode="bicubic", align_corners=True)[0, 0]


def batch():
    return torch.randn(6, 20, 60, generator=torch.Generator().manual_seed(0))


def test_it_equals_torch_interpolation_of_the_same_rectangle():
    spectrogram = batch()
    cropped = random_resize_crop(spectrogram, FRAMES, STATE, (0.6, 1.5), (0.6, 1.5))
    for i, frames in enumerate(FRAMES.tolist()):
        draws = uniform(STATE[i : i + 1], 4)[0].tolist()
        expected = slow(spectrogram[i, :, :frames], draws, (0.6, 1.5), (0.6, 1.5), 1.5)
        torch.testing.assert_close(cropped[i, :, :frames], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("garbage", [7.0, math.nan])
def test_padding_stays_and_has_no_effect(garbage):
    spectrogram = batch()
    inside = torch.arange(60) < FRAMES[:, None, None]
    padded = spectrogram.where(inside, garbage)
    whole = random_resize_crop(padded, FRAMES, STATE, (0.6, 1.5), (0.6, 1.5))
    for i, frames in enumerate(FRAMES.tolist()):
        own = spectrogram[i : i + 1, :, :frames]
        alone = random_resize_crop(own, FRAMES[i : i + 1], STATE[i : i + 1], (0.6, 1.5), (0.6, 1.5))
        torch.testing.assert_close(whole[i, :, :frames], alone[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(
            whole[i, :, frames:], padded[i, :, frames:], rtol=0, atol=0, equal_nan=True
        )


def test_a_ramp_gives_the_right_piece_of_it(monkeypatch):
    # Height 10 from mel 4, all frames.
    monkeypatch.setattr(module, "uniform", lambda state, n: torch.tensor([[0.0, 0.0, 0.0, 0.4]]))
    ramp = torch.arange(20.0)[None, :, None].expand(1, 20, 30).clone()
    cropped = random_resize_crop(ramp, torch.tensor([30]), STATE[:1], (0.5, 1.5), None)[0]
    expected = 4 + torch.arange(20) * 9 / 19
    # Torch's cubic interpolation of a line is within 0.05 of the line.
    torch.testing.assert_close(cropped[:, 7], expected, rtol=0, atol=0.1)
    torch.testing.assert_close(cropped[[0, -1], 7], expected[[0, -1]])


def test_frequency_only_keeps_frames_where_they_are():
    clicks = torch.zeros(6, 20, 60)
    clicks[:, :, [5, 20]] = 1.0
    cropped = random_resize_crop(clicks, torch.full((6,), 60), STATE, (0.6, 1.5), None)
    torch.testing.assert_close(cropped, clicks, rtol=0, atol=1e-6)


def test_sizes_and_places_cover_their_ranges():
    state = stream(0, "test", torch.arange(3000))
    frames = torch.full((3000,), 100)
    extent, start = module._piece(uniform(state, 2), frames, (0.6, 1.5), frames * 3 // 2)
    assert extent.min() == 60
    assert extent.max() == 149
    assert (start >= 0).all()
    assert (start + extent <= 150).all()
    assert (start == 0).any()
    assert (start + extent == 150).any()


def test_something_of_a_clip_is_in_every_crop():
    state = stream(0, "test", torch.arange(2000))
    frames = 1 + torch.arange(2000) % 40
    ones = torch.ones(2000, 4, 40)
    cropped = random_resize_crop(ones, frames, state, (0.6, 1.5), (0.6, 1.5))
    inside = torch.arange(40) < frames[:, None, None]
    assert (cropped.where(inside, 0.0).amax(dim=(1, 2)) > 0.9).all()
