"""A front end that fills the memory by itself is refused where it is set."""

import pytest

from melpatch.audio.logmel import LogMel
from melpatch.errors import SettingError


@pytest.mark.parametrize(
    "settings",
    [
        {"sample_rate": 10**9},
        {"sample_rate": 10**18},
        {"window_ms": 1e30},
        {"hop_ms": 1e30},
        {"hop_ms": 1e9},
        {"fft_length": 2**40},
        {"n_mels": 10**6, "fft_length": 2**22},
        {"target_frames": 10**9, "padding": "legacy"},
        {"target_frames": 2**62, "padding": "legacy"},
    ],
    ids=str,
)
def test_a_front_end_without_sense_is_refused(settings):
    with pytest.raises(SettingError, match=f"{next(iter(settings))} = "):
        LogMel.Config(**settings)


def test_front_ends_of_bats_and_of_minutes_are_allowed():
    LogMel.Config(sample_rate=768_000, window_ms=100.0, hop_ms=1.0)
    LogMel.Config(window_ms=60_000.0, hop_ms=60_000.0)
    LogMel.Config(padding="legacy", target_frames=100_000)
