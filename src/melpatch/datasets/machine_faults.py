"""Synthetic recordings of rotating machines, generated offline: healthy or with one of five faults.

Every machine has its own speed, gear, resonances, bearing, belt and room. The speed differs between
its recordings and drifts within each. Machines of the test are never in training.

==========  =====================================================================================
class       what it adds to the hum, the gear mesh and the rush of a machine
==========  =====================================================================================
healthy     nothing
imbalance   all of it grows and shrinks once per turn of the shaft
bearing     impulses that excite a resonance, 3.1 to 5.4 per turn, their spacing a little irregular
gear_tooth  one stronger impulse per turn that excites a resonance, always at the same angle
cavitation  bursts of broadband noise at random times, 6 to 14 per second
belt_slip   a squeal or more at random times, 0.5 to 1 per second
==========  =====================================================================================

Level, tilt, room, background and passing sounds have the same distribution for all classes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from melpatch.config import check
from melpatch.datasets.base import Card, Entry
from melpatch.datasets.made_up import (
    audio_paths,
    check_counts,
    how_to_make,
    make_corpus,
    read_entries,
    split_of,
)
from melpatch.datasets.synthesis import (
    SAMPLE_RATE,
    Filter,
    Rng,
    Spectrum,
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
_PER_MACHINE = 12  # clips, two of each class


class Machine(NamedTuple):
    """What a machine has of its own.

    Attributes:
        rate: turns of its shaft per second at its usual speed.
        teeth: of the gear on the shaft.
        hum: levels of the first harmonics of the rotation.
        mesh: levels of the first harmonics of the gear mesh.
        modes: frequencies in Hz of the resonances of its housing.
        bearing: impulses of a faulty bearing per turn.
        ring: frequency in Hz and decay in seconds of what an impulse excites.
        squeal: frequency in Hz at which its belt squeals.
        room: the room in which it stands.
    """

    rate: float
    teeth: int
    hum: Float[np.ndarray, " harmonic"]
    mesh: Float[np.ndarray, " harmonic"]
    modes: Float[np.ndarray, " mode"]
    bearing: float
    ring: tuple[float, float]
    squeal: float
    room: Filter


def machine(seed: int, number: int) -> Machine:
    """Return a machine, a function of the arguments alone."""
    # The third number keeps its draws apart from those of the recordings.
    rng = np.random.default_rng((seed, number, 1))
    return Machine(
        rate=10 * 2 ** rng.uniform(0, 1.2),
        teeth=int(rng.integers(13, 32)),
        hum=rng.uniform(0.2, 1.0, 6) / np.arange(1, 7),
        mesh=rng.uniform(0.2, 1.0, 3),
        modes=250 * 2 ** rng.uniform(0, 4.5, 4),
        bearing=rng.uniform(3.1, 5.4),
        ring=(1500 * 2 ** rng.uniform(0, 1.6), rng.uniform(0.001, 0.004)),
        squeal=600 * 2 ** rng.uniform(0, 2),
        room=draw_room(rng),
    )


class Turning(NamedTuple):
    """A machine that turns, and how many turns its shaft has made at each sample."""

    machine: Machine
    turns: Wave


def turning(rng: Rng, built: Machine, samples: int) -> Turning:
    """Return a machine at up to a fifth from its usual speed, which drifts by up to 6 %."""
    time = np.arange(samples) / SAMPLE_RATE
    drift = rng.uniform(0, 0.06) * np.sin(
        2 * np.pi * (rng.uniform(0.05, 0.4) * time + rng.random())
    )
    rate = built.rate * rng.uniform(0.8, 1.2) * (1 + drift)
    return Turning(built, np.cumsum(rate) / SAMPLE_RATE + rng.random())


def healthy(rng: Rng, now: Turning) -> Wave:
    """Return the sound of a machine without faults: hum, gear mesh and rush, of unit deviation."""
    samples = len(now.turns)
    hum = np.zeros(samples)
    mesh = np.zeros(samples)
    for k, level in enumerate(now.machine.hum, start=1):
        hum += level * np.sin(2 * np.pi * k * now.turns + rng.uniform(0, 2 * np.pi))
    for k, level in enumerate(now.machine.mesh, start=1):
        phase = 2 * np.pi * k * now.machine.teeth * now.turns
        mesh += level * np.sin(phase + rng.uniform(0, 2 * np.pi))
    rush = noise(rng, samples, lambda octaves: _housing(now.machine, octaves))
    # Every shaft is a little out of balance.
    around = 2 * np.pi * (now.turns + rng.random())
    rush *= 1 + rng.uniform(0, 0.25) * np.cos(around)
    wave: Wave = rush + rng.uniform(0.2, 0.6) * mesh / mesh.std() + 0.5 * hum / hum.std()
    wave /= wave.std()
    return wave


def _housing(built: Machine, octaves: Spectrum) -> Spectrum:
    """Return the gain of the housing: 5 dB less per octave, and resonances of 12 dB."""
    gain: Spectrum = 10 ** (-5 * octaves / 20)
    for hz in built.modes:
        gain = gain * (1 + 3 * np.exp(-0.5 * ((octaves - np.log2(hz / 1000)) / 0.08) ** 2))
    return gain


def _imbalance(rng: Rng, now: Turning, wave: Wave) -> Wave:
    around = 2 * np.pi * (now.turns + rng.random())
    return wave * (1 + rng.uniform(0.5, 0.9) * np.cos(around))


def _bearing(rng: Rng, now: Turning, wave: Wave) -> Wave:
    # The rolling elements slip, so the spacing is irregular by about a hundredth.
    places = np.arange(now.turns[0], now.turns[-1], 1 / now.machine.bearing)[1:]
    places = places + rng.normal(0, 0.01, len(places)) / now.machine.bearing
    return wave + _severity(rng) * _rings(rng, now, np.interp(places, now.turns, _time(now)))


def _gear_tooth(rng: Rng, now: Turning, wave: Wave) -> Wave:
    places = np.arange(np.ceil(now.turns[0]), now.turns[-1])
    rings = _rings(rng, now, np.interp(places, now.turns, _time(now)))
    # Fewer impulses than those of a bearing, each of them stronger.
    return wave + 2 * _severity(rng) * rings


def _cavitation(rng: Rng, now: Turning, wave: Wave) -> Wave:
    added = np.zeros(len(wave))
    for _ in range(rng.poisson(rng.uniform(6, 14) * len(wave) / SAMPLE_RATE)):
        length = int(SAMPLE_RATE * rng.uniform(0.005, 0.03))
        start = int(rng.integers(0, len(wave) - length))
        burst = noise(rng, length, lambda octaves: 10 ** (-3 * octaves / 20))
        added[start : start + length] += rng.uniform(0.5, 1) * burst * np.hanning(length)
    return wave + _severity(rng) * added


def _belt_slip(rng: Rng, now: Turning, wave: Wave) -> Wave:
    added = np.zeros(len(wave))
    seconds = len(wave) / SAMPLE_RATE
    for _ in range(1 + rng.poisson(rng.uniform(0.5, 1) * seconds)):
        length = min(int(SAMPLE_RATE * rng.uniform(0.1, 0.4)), len(wave) // 2)
        start = int(rng.integers(0, len(wave) - length))
        # The pitch falls as the belt grips again.
        hz = (
            now.machine.squeal * rng.uniform(0.9, 1.1) * np.linspace(1, rng.uniform(0.8, 1), length)
        )
        added[start : start + length] += tone(rng, hz, 3, 1.0)
    return wave + 0.4 * _severity(rng) * added


def _severity(rng: Rng) -> float:
    """Return the level of what a fault adds, beside a machine of unit deviation."""
    return float(10 ** (rng.uniform(-6, 4) / 20))


def _time(now: Turning) -> Wave:
    return np.arange(len(now.turns)) / SAMPLE_RATE


def _rings(rng: Rng, now: Turning, times: Float[np.ndarray, " impulse"]) -> Wave:
    """Return decaying oscillations, with peaks near 3, that begin at the given seconds."""
    hz, decay = now.machine.ring
    length = int(6 * decay * SAMPLE_RATE)
    within = np.arange(length) / SAMPLE_RATE
    ring = 3 * np.sin(2 * np.pi * hz * within) * np.exp(-within / decay)
    wave = np.zeros(len(now.turns) + length)
    for start in np.maximum(times * SAMPLE_RATE, 0).astype(int):
        wave[start : start + length] += rng.uniform(0.7, 1) * ring
    return wave[: len(now.turns)]


def _unchanged(rng: Rng, now: Turning, wave: Wave) -> Wave:
    return wave


_FAULTS: dict[str, Callable[[Rng, Turning, Wave], Wave]] = {
    "healthy": _unchanged,
    "imbalance": _imbalance,
    "bearing": _bearing,
    "gear_tooth": _gear_tooth,
    "cavitation": _cavitation,
    "belt_slip": _belt_slip,
}
LABELS = tuple(_FAULTS)
"""The classes."""


def with_fault(rng: Rng, label: str, now: Turning) -> Wave:
    """Return the sound of a turning machine of a class, of unit deviation."""
    wave = _FAULTS[label](rng, now, healthy(rng, now))
    wave /= wave.std()
    return wave


def _passing(rng: Rng, samples: int) -> Wave:
    """Return up to three tones and bursts that have nothing to do with the machine."""
    wave = np.zeros(samples)
    for _ in range(rng.integers(0, 4)):
        length = min(int(SAMPLE_RATE * rng.uniform(0.03, 0.3)), samples // 2)
        if rng.random() < 0.5:
            sound = tone(rng, np.full(length, draw_pitch(rng)), *draw_timbre(rng))
        else:
            sound = noise(rng, length, draw_band(rng)) * edges(length)
        start = int(rng.integers(0, samples - length))
        wave[start : start + length] += sound * 10 ** (rng.uniform(-12, 0) / 20)
    return wave


def recording(seed: int, number: int, seconds: float) -> Wave:
    """Return one clip at 16 kHz in [-1, 1], a function of the arguments alone.

    The background is 5 to 20 dB below the machine. The effective level is 24 to 40 dB below full
    scale.
    """
    rng = np.random.default_rng((seed, number))
    samples = round(seconds * SAMPLE_RATE)
    now = turning(rng, machine(seed, number // _PER_MACHINE), samples)
    wave = with_fault(rng, LABELS[number % len(LABELS)], now) + _passing(rng, samples)
    wave = now.machine.room(wave)
    wave /= wave.std()
    wave += background(rng, samples) * 10 ** (rng.uniform(-20, -5) / 20)
    wave *= 10 ** (rng.uniform(-40, -24) / 20) / wave.std()
    return np.clip(wave, -1, 1)


def generate(
    root: Path, *, clips: int, unlabelled: int, seconds: float = 4.0, seed: int = 0
) -> Path:
    """Write a corpus of 16-bit FLAC files with its manifest ``corpus.csv``, and return its path.

    A complete corpus of the same settings is left as it is. The folder is renamed into place when
    all files are written.

    Args:
        root: the folder to write.
        clips: number of labelled recordings, twelve of each machine; multiples of 120 balance the
            splits.
        unlabelled: number of recordings of further machines, without label, in the split
            ``pretrain``.
        seconds: length of a recording, 0.5 to 60.
        seed: seed of the machines and the sounds.

    Raises:
        ConfigError: a number is out of range.
        DataError: the folder contains something else.
    """
    check_counts(clips, unlabelled, seed)
    check(0.5 <= seconds <= 60, "seconds", seconds, "0.5 to 60")
    settings = ["machine_faults", _VERSION, clips, float(seconds), seed, unlabelled]
    entries = _entries(clips, unlabelled)
    # Unlabelled clips begin with a machine of their own.
    gap = -clips % _PER_MACHINE

    def wave(index: int) -> Wave:
        number = index if index < clips else index + gap
        return recording(seed, number, seconds)

    return make_corpus(root, settings, entries, wave)


def clips(root: Path, subset: str = "") -> list[Entry]:
    """Return the clips that :func:`generate` wrote, labelled ones first, grouped by machine."""
    return read_entries(root)


def _entries(labelled: int, unlabelled: int) -> list[Entry]:
    """Return the rows of the manifest."""
    entries = []
    for number, path in enumerate(audio_paths(labelled)):
        block = number // _PER_MACHINE
        label = LABELS[number % len(LABELS)]
        entries.append(Entry(path, label, split_of(block), group=f"machine{block:04d}"))
    first = -(-labelled // _PER_MACHINE)
    for number, path in enumerate(audio_paths(labelled + unlabelled)[labelled:]):
        group = f"machine{first + number // _PER_MACHINE:04d}"
        entries.append(Entry(path, "", "pretrain", group=group))
    return entries


def make(root: Path) -> None:
    """Write 1,200 labelled recordings of 4 s and 600 without label."""
    generate(root, clips=1200, unlabelled=600)


def fake(root: Path) -> None:
    """Write short recordings of four machines, which fill every split, and two without label."""
    generate(root, clips=48, unlabelled=2, seconds=0.5)


CARD = Card(
    name="machine_faults",
    summary="Synthetic rotating machines, healthy or with one of five faults; split by machine.",
    licence="CC0-1.0",
    size="1800 clips of 4 s, of which 1200 have a label, 140 MB; from Python any number and length",
    metric="accuracy",
    splits=("pretrain", "train", "val", "test"),
    labels=tuple(sorted(LABELS)),
    download=how_to_make("machine_faults"),
    clips=clips,
    fake=fake,
    make=make,
)
__registered__ = "CARD"
