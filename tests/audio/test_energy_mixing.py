import pytest
import torch

from melpatch.audio import energy_mixing
from melpatch.audio.energy_mixing import mix_energies
from melpatch.audio.logmel import LogMel
from melpatch.rng import stream

STATE = stream(0, "test", torch.arange(2))


@pytest.mark.parametrize(
    "settings", [{}, {"mean": 0.0, "std": 1.0, "scale": 1.0}, {"spectrum": "magnitude"}]
)
def test_energies_are_mixed_before_the_logarithm(monkeypatch, settings):
    monkeypatch.setattr(energy_mixing, "uniform", lambda state, n: torch.tensor([[0.5], [1.0]]))
    front_end = LogMel(**settings)
    power = 2.0 if settings.get("spectrum") == "magnitude" else 1.0
    energies = torch.tensor([[2.0, 3.0, 5.0], [0.5, 8.0, 1.0]])[:, None]
    config = front_end.config
    log_mel = energies.log() / power
    spectrogram = (log_mel - config.mean) / (config.scale * config.std)
    frames = torch.tensor([3, 2])
    mixed = mix_energies(spectrogram, frames, torch.tensor([1, 0]), STATE, 0.4, front_end)
    got = (front_end.denormalise(mixed) * power).exp()
    silence = config.floor**power
    assert got[0, 0].tolist() == pytest.approx([1.7, 4.0, 4.0 + 0.2 * silence], rel=1e-4)
    assert got[1, 0].tolist() == pytest.approx([0.6 * 0.5 + 0.8, 0.6 * 8 + 1.2, 1.0], rel=1e-4)


def test_a_clip_that_is_its_own_partner_stays():
    spectrogram = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    frames = torch.tensor([5, 5])
    mixed = mix_energies(spectrogram, frames, torch.tensor([0, 0]), STATE, 0.4, LogMel(n_mels=4))
    assert torch.equal(mixed[0], spectrogram[0])
    assert not torch.equal(mixed[1], spectrogram[1])


def test_two_silent_clips_stay_silent():
    front_end = LogMel()
    spectrogram = torch.full((2, 128, 5), front_end.silence)
    mixed = mix_energies(
        spectrogram, torch.tensor([5, 5]), torch.tensor([1, 0]), STATE, 0.4, front_end
    )
    torch.testing.assert_close(mixed, spectrogram)
