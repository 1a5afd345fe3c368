"""What is said about a corpus before training: energy outside the front end's band, channels that cancel."""

import numpy as np
import pytest
import soundfile

from melpatch.audio.logmel import LogMel
from melpatch.data.glimpses import notice_of_empty_bands, notices_about_sound
from melpatch.data.manifest import load_corpus


def tone(hz, rate, seconds=0.5):
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def notices(folder, wave, rate, **front_end):
    for name in "ab":
        soundfile.write(folder / f"{name}.wav", wave, rate, subtype="FLOAT")
    clips = load_corpus([folder]).clips
    return notices_about_sound(clips, LogMel.Config(**front_end))


@pytest.mark.parametrize(
    ("hz", "rate", "front_end", "lost", "flags"),
    [
        (45_000, 384_000, {}, "100%", "--front-end.sample-rate 384000"),
        # Above four times the rate it is said even of a noise floor.
        (1000, 384_000, {}, "0%", "--front-end.sample-rate 384000"),
        (12_000, 44_100, {}, "100%", "--front-end.sample-rate 44100"),
        (6000, 16_000, {"high_hz": 4000.0}, "100%", "--front-end.high-hz 8000"),
        (
            12_000,
            44_100,
            {"high_hz": 4000.0},
            "100%",
            "--front-end.sample-rate 44100 --front-end.h",
        ),
    ],
)
def test_lost_energy_is_told_with_the_flags_that_keep_it(
    tmp_path, hz, rate, front_end, lost, flags
):
    (text,) = notices(tmp_path, tone(hz, rate), rate, **front_end)
    assert f"Hz: {lost} of the energy of 2 clips" in text
    assert f"to keep it: {flags}" in text


@pytest.mark.parametrize(
    ("hz", "rate", "front_end"),
    [(1000, 44_100, {}), (6000, 16_000, {}), (12_000, 44_100, {"sample_rate": 44_100})],
)
def test_energy_that_is_kept_is_not_mentioned(tmp_path, hz, rate, front_end):
    assert notices(tmp_path, tone(hz, rate), rate, **front_end) == []


def test_channels_that_cancel_are_told(tmp_path):
    wave = tone(1000, 16_000)
    (text,) = notices(tmp_path, np.stack([wave, -wave], axis=1), 16_000)
    assert "channels of 2 of 2 clips" in text
    assert "--channel left, right or loudest" in text
    clips = load_corpus([tmp_path]).on_channel("left").clips
    assert notices_about_sound(clips, LogMel.Config()) == []


def test_clips_that_cannot_be_read_are_left_to_others(tmp_path):
    notices(tmp_path, tone(1000, 16_000), 16_000)
    clips = load_corpus([tmp_path]).clips
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "b.wav").unlink()
    assert notices_about_sound(clips, LogMel.Config()) == []


@pytest.mark.parametrize(("rate", "told"), [(8000, True), (22_050, True), (32_000, False)])
def test_sound_that_ends_below_a_front_end_is_told(tmp_path, rate, told):
    notices(tmp_path, tone(1000, rate), rate)
    clips = load_corpus([tmp_path]).clips
    text = notice_of_empty_bands(clips, LogMel.Config(sample_rate=32_000, high_hz=14_000.0))
    assert bool(text) == told
    assert (
        not told
        or f"2 of 2 clips that were looked at end below, most of them at {rate // 2:,} Hz" in text
    )
