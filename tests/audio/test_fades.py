import math

import pytest
import torch

from melpatch.audio import fades
from melpatch.audio.fades import fade, linear_fader, noise_burst, still_sounds
from melpatch.rng import stream

LENGTHS = torch.tensor([900, 1000, 1, 640])
STATE = stream(0, "test", torch.tensor([11, -7, 3, 2**40]))


def drawn(monkeypatch, *numbers):
    monkeypatch.setattr(fades, "uniform", lambda state, n: torch.tensor([numbers]))


@pytest.mark.parametrize(
    ("shape", "half"),
    list(enumerate([0.5, 0.5 * 2**-0.5, 1 + math.log10(0.6), math.sin(math.pi / 4), 0.5])),
)
def test_fades_rise_and_fall_in_their_shape(monkeypatch, shape, half):
    # A fade in over 201 samples, and one out over 101.
    drawn(monkeypatch, 0.402, 0.202, (shape + 0.5) / 5)
    level = fade(torch.ones(1, 1000), torch.tensor([1000]), STATE[:1], 0.5)[0]
    assert level[0] == level[-1] == 0
    assert float(level[100]) == pytest.approx(half, abs=1e-5)
    assert float(level[-51]) == pytest.approx(half, abs=1e-5)
    assert (level[200:-100] == 1).all()
    assert (level[:201].diff() >= 0).all()
    assert (level[-101:].diff() <= 0).all()


def test_shapes_and_lengths_of_fades_are_all_drawn():
    state = stream(0, "test", torch.arange(500))
    level = fade(torch.ones(500, 400), torch.full((500,), 400), state, 0.5)
    starts = (level < 1).int().argmin(dim=1)
    assert starts.max() in range(190, 201)
    assert starts.min() < 5
    assert (level[:, 200] == 1).all()
    assert level.min() >= 0
    assert (
        len(
            {
                round(float(row[start // 2]), 1)
                for row, start in zip(level, starts, strict=True)
                if start > 50
            }
        )
        >= 3
    )


def test_a_fade_leaves_a_clip_of_one_sample():
    assert fade(torch.ones(1, 3), torch.tensor([1]), STATE[2:3], 0.5).tolist() == [[1.0, 1.0, 1.0]]


def test_a_burst_replaces_its_share_with_noise():
    state = stream(0, "test", torch.arange(200))
    burst = noise_burst(torch.ones(200, 800), torch.full((200,), 800), state, 0.125, 0.01)
    covered = burst != 1
    assert (covered.sum(dim=1) == 100).all()
    assert ((covered.int().diff(dim=1) == 1).sum(dim=1) <= 1).all()
    assert float(burst[covered].std()) == pytest.approx(0.01, rel=0.05)
    assert abs(float(burst[covered].mean())) < 3e-4
    assert covered.any(dim=0)[10:-10].all()  # everywhere in the clip


def test_a_burst_does_not_cover_the_only_sound():
    wave = torch.zeros(1, 800)
    wave[0, 400:410] = 0.5
    state = stream(0, "test", torch.arange(300))
    burst = noise_burst(wave.expand(300, -1).clone(), torch.full((300,), 800), state, 0.5, 0.01)
    assert (burst[:, 400:410] == 0.5).any(dim=1).all()


def test_a_fader_adds_a_line_over_the_valid_frames():
    frames = torch.tensor([50, 60, 1, 33])
    line = linear_fader(torch.zeros(4, 3, 60), frames, STATE, 1.0)
    for clip, count in zip(line, frames.tolist(), strict=True):
        assert (clip == clip[:1]).all()
        own = clip[0, :count]
        assert own.abs().max() <= 1
        assert own[0] != 0
        assert (clip[:, count:] == 0).all()
        if count > 2:
            torch.testing.assert_close(
                own.diff(), own.diff()[:1].expand(count - 1), rtol=0, atol=1e-6
            )
            assert own[0] != own[-1]
    many = linear_fader(
        torch.zeros(2000, 1, 5), torch.full((2000,), 5), stream(0, "test", torch.arange(2000)), 0.5
    )[:, 0]
    assert -0.5 <= many.min() < -0.49
    assert 0.49 < many.max() <= 0.5


def test_a_clip_still_sounds_above_a_thousandth_of_its_amplitude():
    wave = torch.ones(3, 10)
    changed = torch.tensor([[1.1e-3], [0.9e-3], [0.0]]) * wave
    lengths = torch.tensor([10, 10, 10])
    assert still_sounds(changed, wave, lengths)[:, 0].tolist() == [True, False, False]
    assert still_sounds(wave * 0, wave * 0, lengths).all()
