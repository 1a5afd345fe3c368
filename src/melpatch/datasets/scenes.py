"""Synthetic sound scenes, generated offline: ten classes in five pairs that are mirrored in time.

There are five kinds of sound, each played forwards or backwards. Features that ignore time, such as
a mean spectrum, cannot distinguish a class from its mirror image, and fixed positions carry little
information: start, length, pitch, rate, timbre, level, tilt, room, background and distracting bursts
have the same distribution for all classes.

=============  =============  ============================================================  ========
class          mirror image   one event (half to nine tenths of the clip, anywhere in it)   sort
=============  =============  ============================================================  ========
sweep_up       sweep_down     1 to 4 harmonic tones, each gliding up by 0.5 to 2 octaves    swept
notes_up       notes_down     2 steady harmonic tones, the second 3 to 12 semitones higher  pitched
clicks_faster  clicks_slower  8 to 14 clicks, their intervals shrinking three- to sixfold   rhythmic
noise_swell    noise_fade     2 to 5 bursts of band noise that swell, then stop at once     noisy
tone_noise     noise_tone     1 steady harmonic tone, then 1 burst of band noise            mixed
=============  =============  ============================================================  ========
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from melpatch.config import check
from melpatch.datasets.base import Card, Entry
from melpatch.datasets.made_up import (
    check_counts,
    how_to_make,
    list_in_tens,
    make_corpus,
    read_entries,
)
from melpatch.datasets.synthesis import (
    SAMPLE_RATE,
    Rng,
    Wave,
    background,
    draw_band,
    draw_pitch,
    draw_room,
    draw_timbre,
    edges,
    noise,
    tone,
)

# Raise it with every change of the sounds, so that older corpora are not reused.
_VERSION = 1


class Stretch(NamedTuple):
    """An event in a long recording: seconds at which it starts and ends, and its class."""

    start: float
    end: float
    label: str


def _train(rng: Rng, samples: int, count: int, event: Callable[[int], Wave]) -> Wave:
    """Return ``count`` successive events with pauses between them."""
    wave = np.zeros(samples)
    period = samples // count
    length = int(period * rng.uniform(0.6, 0.95))
    for start in range(0, period * count, period):
        wave[start : start + length] = event(length)
    return wave


def _sweeps(rng: Rng, samples: int) -> Wave:
    middle = draw_pitch(rng)
    rise = rng.uniform(0.5, 2.0)
    timbre = draw_timbre(rng)
    count = int(rng.integers(1, 5))
    return _train(
        rng,
        samples,
        count,
        lambda n: tone(rng, middle * 2 ** (rise * np.linspace(-0.5, 0.5, n)), *timbre),
    )


def _notes(rng: Rng, samples: int) -> Wave:
    low = draw_pitch(rng)
    semitones = rng.integers(3, 13)
    timbre = draw_timbre(rng)
    change = int(samples * rng.uniform(0.35, 0.65))
    first = tone(rng, np.full(change, low), *timbre)
    second = tone(rng, np.full(samples - change, low * 2 ** (semitones / 12)), *timbre)
    return np.concatenate([first, second])


def _clicks(rng: Rng, samples: int) -> Wave:
    band = draw_band(rng)
    length = int(SAMPLE_RATE * rng.uniform(0.004, 0.016))
    intervals = rng.uniform(3, 6) ** -np.linspace(0, 1, rng.integers(7, 14))
    # The intervals fill the event; the last click ends with it.
    places = np.cumsum([0, *intervals / intervals.sum()]) * (samples - length)
    wave = np.zeros(samples)
    for place in places.astype(int):
        wave[place : place + length] += noise(rng, length, band) * np.hanning(length)
    return wave


def _swells(rng: Rng, samples: int) -> Wave:
    band = draw_band(rng)
    rise = rng.uniform(1.0, 1.6)
    count = int(rng.integers(2, 6))
    return _train(
        rng,
        samples,
        count,
        lambda n: noise(rng, n, band) * 10 ** np.linspace(-rise, 0, n) * edges(n),
    )


def _tone_then_noise(rng: Rng, samples: int) -> Wave:
    change = int(samples * rng.uniform(0.35, 0.65))
    first = tone(rng, np.full(change, draw_pitch(rng)), *draw_timbre(rng))
    second = noise(rng, samples - change, draw_band(rng)) * edges(samples - change)
    return np.concatenate([first, second * rng.uniform(1, 3)])


# (kind of sound, its class when played forwards, its class when played backwards)
_PAIRS = (
    (_sweeps, "sweep_up", "sweep_down"),
    (_notes, "notes_up", "notes_down"),
    (_clicks, "clicks_faster", "clicks_slower"),
    (_swells, "noise_swell", "noise_fade"),
    (_tone_then_noise, "tone_noise", "noise_tone"),
)
LABELS = tuple(label for _, *pair in _PAIRS for label in pair)
"""The classes; at odd places are the mirror images."""


def _event(rng: Rng, number: int, samples: int) -> Wave:
    """Return silence with the event of the clip's class, for half to nine tenths of the clip."""
    event = sound(rng, LABELS[number % 10], int(samples * rng.uniform(0.5, 0.9)))
    start = rng.integers(0, samples - len(event))
    wave = np.zeros(samples)
    wave[start : start + len(event)] = event
    return wave


def sound(rng: Rng, label: str, samples: int) -> Wave:
    """Return an event of a class, of unit deviation."""
    number = LABELS.index(label)
    sounds, *_ = _PAIRS[number // 2]
    event = sounds(rng, samples)
    event /= event.std()
    # Odd classes are the mirror images.
    return event[::-1] if number % 2 else event


def _distraction(rng: Rng, samples: int) -> Wave:
    """Return up to four short tones and bursts, independent of the class, softer than the event."""
    wave = np.zeros(samples)
    for _ in range(rng.integers(0, 5)):
        length = int(SAMPLE_RATE * rng.uniform(0.03, 0.15))
        if rng.random() < 0.5:
            burst = tone(rng, np.full(length, draw_pitch(rng)), *draw_timbre(rng))
        else:
            burst = noise(rng, length, draw_band(rng))
        start = rng.integers(0, samples - length)
        wave[start : start + length] += burst * edges(length) * 10 ** (rng.uniform(-12, 0) / 20)
    return wave


def scene(seed: int, number: int, seconds: float) -> Wave:
    """Return one clip at 16 kHz in [-1, 1], a function of the arguments alone.

    The sounds are 5 to 25 dB above the background; the peak is 1 to 20 dB below full scale.
    """
    rng = np.random.default_rng((seed, number))
    samples = round(seconds * SAMPLE_RATE)
    wave = _event(rng, number, samples)
    wave += _distraction(rng, samples)
    return _recorded(rng, wave)


def long_scene(
    seed: int, number: int, seconds: float, labels: Sequence[str]
) -> tuple[Wave, list[Stretch]]:
    """Return a recording with several events at 16 kHz in [-1, 1], and where they are.

    Events last 0.6 to 1.5 s, are of levels up to 10 dB apart, and do not overlap: each lies anywhere
    in its own share of the recording.

    Args:
        seed: seed of the sounds.
        number: number of the recording.
        seconds: its length, at least 2 s for each label.
        labels: classes of the events, in their order, at least one.

    Raises:
        ConfigError: it is too short.
    """
    check(seconds >= 2 * len(labels), "seconds", seconds, f"{2 * len(labels)} or more")
    rng = np.random.default_rng((seed, number, len(labels)))
    wave = np.zeros(round(seconds * SAMPLE_RATE))
    share = len(wave) // len(labels)
    stretches = []
    for place, label in enumerate(labels):
        length = int(SAMPLE_RATE * rng.uniform(0.6, 1.5))
        start = place * share + int(rng.integers(0, share - length))
        level = 10 ** (rng.uniform(-10, 0) / 20)
        wave[start : start + length] = level * sound(rng, label, length)
        stretches.append(Stretch(start / SAMPLE_RATE, (start + length) / SAMPLE_RATE, label))
    return _recorded(rng, wave), stretches


def _recorded(rng: Rng, wave: Wave) -> Wave:
    """Return sounds in a room with a background, at some level."""
    samples = len(wave)
    wave = draw_room(rng)(wave)
    behind = background(rng, samples)
    wave /= wave.std()
    wave += behind * 10 ** (rng.uniform(-25, -5) / 20)
    wave *= 10 ** (rng.uniform(-20, -1) / 20) / np.abs(wave).max()
    return wave


def generate(root: Path, *, clips: int, seconds: float, seed: int, unlabelled: int) -> Path:
    """Write a corpus of 16-bit FLAC files with its manifest ``corpus.csv``, and return its path.

    A complete corpus of the same settings is left as it is. The folder is renamed into place when
    all files are written.

    Args:
        root: the folder to write.
        clips: number of labelled clips; multiples of 100 balance the classes in every split.
        seconds: length of a clip, 0.5 to 60.
        seed: seed of the sounds.
        unlabelled: number of further clips, without label, in the split ``pretrain``.

    Raises:
        ConfigError: a number is out of range.
        DataError: the folder contains something else.
    """
    check_counts(clips, unlabelled, seed)
    check(0.5 <= seconds <= 60, "seconds", seconds, "0.5 to 60")
    settings = [_VERSION, clips, float(seconds), seed, unlabelled]
    entries = list_in_tens([LABELS[number % 10] for number in range(clips)], unlabelled)
    return make_corpus(root, settings, entries, lambda number: scene(seed, number, seconds))


def clips(root: Path, subset: str = "") -> list[Entry]:
    """Return the clips that :func:`generate` wrote, labelled clips first."""
    return read_entries(root)


def make(root: Path) -> None:
    """Write 800 labelled clips of 2 s and 1,200 without label."""
    generate(root, clips=800, seconds=2.0, seed=0, unlabelled=1200)


def fake(root: Path) -> None:
    """Write forty short labelled scenes, which fill every split, and two without label."""
    generate(root, clips=40, seconds=0.5, seed=0, unlabelled=2)


CARD = Card(
    name="scenes",
    summary="Synthetic sounds of ten classes in five pairs that are mirrored in time.",
    licence="CC0-1.0",
    size="2000 clips of 2 s, of which 800 have a label, 80 MB; from Python any number and length",
    metric="accuracy",
    splits=("pretrain", "train", "val", "test"),
    labels=tuple(sorted(LABELS)),
    download=how_to_make("scenes"),
    clips=clips,
    fake=fake,
    make=make,
)
__registered__ = "CARD"
