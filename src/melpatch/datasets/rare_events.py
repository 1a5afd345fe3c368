"""Synthetic rare events in long scenes, generated offline: five kinds, in four of ten scenes.

A scene holds an event every two to four seconds. Most are common events, the sounds of
:mod:`melpatch.datasets.scenes`; in four of ten scenes one or more of them are rare ones instead. The
labels of a scene are the kinds of rare events in it, or ``background`` if there are none.

============  ============================================================  ======================
rare event    structure                                                     common events like it
============  ============================================================  ======================
alarm         two steady tones that alternate four to eight times           two steady tones
bounce        five to nine knocks, ever faster and softer                   clicks of one level
double_chirp  two equal quick glides upwards                                one to four glides
glass         a crack from which inharmonic partials ring, high ones short  a burst, then a tone
siren         one tone that glides up and down three to six times           one to four glides
============  ============================================================  ======================

The frequencies of rare events are within those of common ones, so that a mean spectrum does not
give a kind away; number, places and levels of the events, room, tilt and background have the same
distribution in all scenes.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from melpatch.config import check
from melpatch.data.answers import BACKGROUND
from melpatch.datasets import scenes
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
    draw_room,
    draw_timbre,
    edges,
    loudest,
    noise,
    tone,
)

# Raise it with every change of the sounds, so that older corpora are not reused.
_VERSION = 2
# An event of 1.2 s at most and its echo; with the 0.4 s of the room a power of two, which is quick.
_EVENT_SAMPLES = 2**15 - 6400


def _between(rng: Rng, low: float, high: float) -> float:
    """Return a random frequency in Hz, as likely in every octave of a range."""
    return float(low * (high / low) ** rng.random())


def _alarm(rng: Rng, samples: int) -> Wave:
    low = _between(rng, 500.0, 1000.0)
    high = low * 2 ** (rng.integers(3, 13) / 12)
    timbre = draw_timbre(rng)
    count = int(rng.integers(4, 9)) * 2
    bounds = np.linspace(0, samples, count + 1).astype(int)
    notes = [
        tone(rng, np.full(end - start, high if number % 2 else low), *timbre)
        for number, (start, end) in enumerate(pairwise(bounds))
    ]
    return np.concatenate(notes)


def _bounce(rng: Rng, samples: int) -> Wave:
    centre = np.log2(_between(rng, 400.0, 1000.0) / 1000)
    length = int(SAMPLE_RATE * rng.uniform(0.004, 0.016))
    count = int(rng.integers(5, 10))
    # Each jump is a fixed share of the one before, in time and in level.
    share = rng.uniform(0.65, 0.8)
    intervals = share ** np.arange(count - 1)
    places = np.cumsum([0, *intervals / intervals.sum()]) * (samples - length)
    wave = np.zeros(samples)
    for number, place in enumerate(places.astype(int)):
        knock = noise(rng, length, lambda octaves: np.exp(-((octaves - centre) ** 2)))
        knock *= np.hanning(length)
        wave[place : place + length] += share**number * knock
    return wave


def _double_chirp(rng: Rng, samples: int) -> Wave:
    middle = _between(rng, 1200.0, 2400.0)
    rise = rng.uniform(0.7, 1.5)
    timbre = draw_timbre(rng)
    length = int(SAMPLE_RATE * rng.uniform(0.06, 0.12))
    pause = int(SAMPLE_RATE * rng.uniform(0.05, 0.1))
    chirp = tone(rng, middle * 2 ** (rise * np.linspace(-0.5, 0.5, length)), *timbre)
    wave = np.zeros(samples)
    for start in (0, length + pause):
        wave[start : start + length] = chirp
    return wave


def _glass(rng: Rng, samples: int) -> Wave:
    time = np.arange(samples) / SAMPLE_RATE
    lowest = _between(rng, 1500.0, 3000.0)
    wave = np.zeros(samples)
    for _ in range(rng.integers(6, 13)):
        hz = lowest * 2 ** rng.uniform(0, 2)
        # A partial an octave higher rings half as long.
        ring = rng.uniform(0.1, 0.3) * lowest / hz
        phase = rng.uniform(0, 2 * np.pi)
        if hz < 0.475 * SAMPLE_RATE:
            wave += np.sin(2 * np.pi * hz * time + phase) * np.exp(-time / ring)
    crack = int(0.02 * SAMPLE_RATE)
    burst = noise(rng, crack, lambda octaves: 2**octaves)
    wave[:crack] += 2 * burst * np.linspace(1, 0, crack) ** 2
    wave *= edges(samples)
    return wave


def _siren(rng: Rng, samples: int) -> Wave:
    middle = _between(rng, 250.0, 1500.0)
    rise = rng.uniform(0.5, 1.5)
    turns = int(rng.integers(3, 7))
    swing = np.sin(2 * np.pi * (turns * np.linspace(0, 1, samples) + rng.random()))
    return tone(rng, middle * 2 ** (0.5 * rise * swing), *draw_timbre(rng))


_RARE: dict[str, Callable[[Rng, int], Wave]] = {
    "alarm": _alarm,
    "bounce": _bounce,
    "double_chirp": _double_chirp,
    "glass": _glass,
    "siren": _siren,
}
KINDS = tuple(_RARE)
"""The kinds of rare events."""
LABELS = (*KINDS, BACKGROUND)
"""All labels of scenes."""


def labels_of(number: int) -> tuple[str, ...]:
    """Return the kinds of rare events in a scene, which none of six of ten scenes has.

    Ten successive scenes have every kind once: three scenes have one of them, and one has two.
    """
    block, place = divmod(number, 10)
    # The two that are together change from block to block.
    order = [(block + step) % len(KINDS) for step in (0, 1 + block // len(KINDS) % 2)]
    order += [kind for kind in range(len(KINDS)) if kind not in order]
    groups = (order[:2], order[2:3], order[3:4], order[4:5])
    if place >= len(groups):
        return ()
    return tuple(sorted(KINDS[kind] for kind in groups[place]))


def scene(seed: int, number: int, seconds: float) -> Wave:
    """Return one clip at 16 kHz in [-1, 1], a function of the arguments alone.

    The loudest 50 ms of an event are 5 to 15 dB above the background, which is 36 to 55 dB below
    full scale.
    """
    rng = np.random.default_rng((seed, number))
    samples = round(seconds * SAMPLE_RATE)
    wave: Wave = background(rng, samples) + _events(rng, labels_of(number), samples)
    wave *= 10 ** (rng.uniform(-55, -36) / 20)
    np.clip(wave, -1, 1, out=wave)
    return wave


def _events(rng: Rng, rare: tuple[str, ...], samples: int) -> Wave:
    """Return the events of a scene, beside a background of unit deviation."""
    wave = np.zeros(samples)
    room = draw_room(rng)
    seconds = samples / SAMPLE_RATE
    count = int(rng.integers(max(2, math.ceil(seconds / 4)), int(seconds / 2) + 1))
    # Each event begins and ends in its own share of the scene.
    share = samples // count
    for place, name in enumerate(_order(rng, rare, count)):
        length = int(SAMPLE_RATE * rng.uniform(0.5, 1.2))
        start = place * share + int(rng.integers(0, share - length))
        event = np.zeros(_EVENT_SAMPLES)
        event[:length] = _sound(rng, name, length)
        event = room(event)
        event *= 10 ** (rng.uniform(5, 15) / 20) / loudest(event)
        # It rings on in the room, if need be into the next share.
        kept = min(len(event), samples - start)
        wave[start : start + kept] += event[:kept]
    return wave


def _order(rng: Rng, rare: tuple[str, ...], count: int) -> list[str]:
    """Return the kinds of the events of a scene in their order; ``""`` is a common one."""
    names = [*rare]
    # Rare kinds occur up to three times, where there is room.
    names += [name for name in rare for _ in range(rng.integers(0, 3))]
    names = names[:count] + [""] * (count - len(names))
    return [names[place] for place in rng.permutation(count)]


def _sound(rng: Rng, name: str, samples: int) -> Wave:
    """Return an event of a rare kind, or any common event for ``""``."""
    if name:
        return _RARE[name](rng, samples)
    # Some rare kinds are short. At this length common events have their energy on average.
    length = int(samples * rng.uniform(0.65, 1.0))
    label = scenes.LABELS[rng.integers(len(scenes.LABELS))]
    return np.pad(scenes.sound(rng, label, length), (0, samples - length))


def generate(
    root: Path, *, clips: int, unlabelled: int, seconds: float = 20.0, seed: int = 0
) -> Path:
    """Write a corpus of 16-bit FLAC files with its manifest ``corpus.csv``, and return its path.

    A complete corpus of the same settings is left as it is. The folder is renamed into place when
    all files are written.

    Args:
        root: the folder to write.
        clips: number of labelled scenes; multiples of 100 balance the kinds in every split.
        unlabelled: number of further scenes, without label, in the split ``pretrain``.
        seconds: length of a scene, 4 to 120.
        seed: seed of the sounds.

    Raises:
        ConfigError: a number is out of range.
        DataError: the folder contains something else.
    """
    check_counts(clips, unlabelled, seed)
    check(4 <= seconds <= 120, "seconds", seconds, "4 to 120")
    settings = ["rare_events", _VERSION, clips, float(seconds), seed, unlabelled]
    labels = [";".join(labels_of(number)) or BACKGROUND for number in range(clips)]
    entries = list_in_tens(labels, unlabelled)
    return make_corpus(root, settings, entries, lambda number: scene(seed, number, seconds))


def clips(root: Path, subset: str = "") -> list[Entry]:
    """Return the clips that :func:`generate` wrote, labelled clips first."""
    return read_entries(root)


def make(root: Path) -> None:
    """Write 600 labelled scenes of 20 s and 300 without label."""
    generate(root, clips=600, unlabelled=300)


def fake(root: Path) -> None:
    """Write forty short labelled scenes, which fill every split, and two without label."""
    generate(root, clips=40, unlabelled=2, seconds=4.0)


CARD = Card(
    name="rare_events",
    summary="Synthetic long scenes of common events, with rare ones of five kinds in some.",
    licence="CC0-1.0",
    size="900 clips of 20 s, of which 600 have labels, 320 MB; from Python any number and length",
    metric="mAP",
    splits=("pretrain", "train", "val", "test"),
    labels=tuple(sorted(LABELS)),
    download=how_to_make("rare_events"),
    clips=clips,
    fake=fake,
    make=make,
)
__registered__ = "CARD"
