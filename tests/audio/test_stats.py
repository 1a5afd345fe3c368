import pytest
import torch

from melpatch.audio.logmel import LogMel
from melpatch.audio.stats import measure
from melpatch.errors import DataError

WAVE = (
    torch.randn(6, 8000, generator=torch.Generator().manual_seed(0))
    * torch.logspace(-3, 0, 6)[:, None]
)
LENGTHS = torch.tensor([8000, 400, 2000, 100, 5000, 7999])


@pytest.fixture(scope="module")
def expected():
    """Mean and deviation of all values of all clips, each computed alone."""
    front = LogMel()
    clips = [
        front(wave[None, :length].double(), length[None])[0]
        for wave, length in zip(WAVE, LENGTHS, strict=True)
    ]
    values = torch.cat([front.denormalise(clip).flatten() for clip in clips])
    return values.mean().item(), values.std(correction=0).item()


@pytest.mark.parametrize("batch", [1, 4, 6])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mean": 3.0, "std": 0.5, "scale": 1.0},
        {"padding": "legacy"},
        {"padding": "legacy", "target_frames": 99},
    ],
)
def test_batches_padding_and_previous_statistics_have_no_effect(expected, settings, batch):
    front = LogMel(LogMel.Config(**settings))
    mean, std = measure(front, zip(WAVE.split(batch), LENGTHS.split(batch), strict=True))
    assert mean == pytest.approx(expected[0], abs=1e-5)
    assert std == pytest.approx(expected[1], abs=1e-5)


def test_measured_statistics_normalise_to_mean_0_and_deviation_1():
    mean, std = measure(LogMel(), [(WAVE, LENGTHS)])
    front = LogMel(LogMel.Config(mean=mean, std=std, scale=1.0))
    assert measure(front, [(WAVE, LENGTHS)]) == pytest.approx((mean, std), abs=1e-5)
    values = torch.cat(
        [front(w[None, :n], n[None])[0].flatten() for w, n in zip(WAVE, LENGTHS, strict=True)]
    )
    assert values.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert values.std().item() == pytest.approx(1.0, abs=1e-4)


def test_an_empty_corpus_is_an_error():
    with pytest.raises(DataError, match="no clip"):
        measure(LogMel(), [])
