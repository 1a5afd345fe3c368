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

import csv
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float

from melpatch.config import check
from melpatch.datasets.base import Card, Entry
from melpatch.errors import DataError
from melpatch.opening import open_text
from melpatch.progress import track

SAMPLE_RATE = 16_000
"""Sampling rate of the clips, in Hz."""
# Raise it with every change of the sounds, so that older corpora are not reused.
_VERSION = 1
_COLUMNS = ("path", "label", "split")

Wave = Float[np.ndarray, " sample"]
Spectrum = Float[np.ndarray, " bin"]
Gain = Callable[[Spectrum], Spectrum]
Rng = np.random.Generator


class Stretch(NamedTuple):
    """An event in a long recording: seconds at which it starts and ends, and its class."""

    start: float
    end: float
    label: str


def _edges(samples: int) -> Wave:
    """Return a fade-in and fade-out of 10 ms, so that tones and bursts do not click."""
    # The distance of each sample from the nearer end; its level is a squared sine.
    from_end = np.minimum(np.arange(samples), np.arange(samples)[::-1]) + 0.5
    level: Wave = np.sin(0.5 * np.pi * np.minimum(from_end / (0.010 * SAMPLE_RATE), 1.0)) ** 2
    return level


def _tone(rng: Rng, pitch: Wave, partials: int, rolloff: float) -> Wave:
    """Return a harmonic tone of the given pitch in Hz; partial k has level ``k ** -rolloff``."""
    # The phase is the integral of the frequency.
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    wave: Wave = np.zeros_like(phase)
    # Partials near or above half the sampling rate would alias.
    for k in range(1, partials + 1):
        audible = k * pitch < 0.475 * SAMPLE_RATE
        wave += audible * k**-rolloff * np.sin(k * phase + rng.uniform(0, 2 * np.pi))
    wave *= _edges(len(wave)) / wave.std()
    return wave


def _octaves(samples: int) -> Spectrum:
    """Return the octaves above 1 kHz of each bin of a spectrum, at least those of 60 Hz."""
    hz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    octaves: Spectrum = np.log2(np.maximum(hz, 60.0) / 1000)
    return octaves


def _noise(rng: Rng, samples: int, gain: Gain) -> Wave:
    """Return Gaussian noise of unit deviation with a spectrum shaped by ``gain``.

    The argument of ``gain`` is the octaves above 1 kHz.
    """
    # Transforms of other sizes than powers of two can be many times slower.
    size = 1 << (samples - 1).bit_length()
    real, imaginary = rng.standard_normal((2, size // 2 + 1))
    spectrum = (real + 1j * imaginary) * gain(_octaves(size))
    # No constant offset.
    spectrum[0] = 0
    wave: Wave = np.fft.irfft(spectrum, size)[:samples]
    wave /= wave.std()
    return wave


def _band(rng: Rng) -> Gain:
    """Return a random band, 0.4 to 4.6 kHz at its centre and 0.5 to 2 octaves wide."""
    centre = rng.uniform(-1.3, 2.2)
    width = rng.uniform(0.5, 2.0)
    return lambda octaves: np.exp(-0.5 * ((octaves - centre) / (0.5 * width)) ** 2)


def _timbre(rng: Rng) -> tuple[int, float]:
    """Return a random number of partials and their rolloff."""
    return int(rng.integers(1, 7)), rng.uniform(0.3, 1.5)


def _pitch(rng: Rng) -> float:
    """Return a random pitch in Hz, three octaves from 180 Hz."""
    return float(180 * 2 ** rng.uniform(0, 3))


def _train(rng: Rng, samples: int, count: int, event: Callable[[int], Wave]) -> Wave:
    """Return ``count`` successive events with pauses between them."""
    wave = np.zeros(samples)
    period = samples // count
    length = int(period * rng.uniform(0.6, 0.95))
    for start in range(0, period * count, period):
        wave[start : start + length] = event(length)
    return wave


def _sweeps(rng: Rng, samples: int) -> Wave:
    middle = _pitch(rng)
    rise = rng.uniform(0.5, 2.0)
    timbre = _timbre(rng)
    count = int(rng.integers(1, 5))
    return _train(
        rng,
        samples,
        count,
        lambda n: _tone(rng, middle * 2 ** (rise * np.linspace(-0.5, 0.5, n)), *timbre),
    )


def _notes(rng: Rng, samples: int) -> Wave:
    low = _pitch(rng)
    semitones = rng.integers(3, 13)
    timbre = _timbre(rng)
    change = int(samples * rng.uniform(0.35, 0.65))
    first = _tone(rng, np.full(change, low), *timbre)
    second = _tone(rng, np.full(samples - change, low * 2 ** (semitones / 12)), *timbre)
    return np.concatenate([first, second])


def _clicks(rng: Rng, samples: int) -> Wave:
    band = _band(rng)
    length = int(SAMPLE_RATE * rng.uniform(0.004, 0.016))
    intervals = rng.uniform(3, 6) ** -np.linspace(0, 1, rng.integers(7, 14))
    # The intervals fill the event; the last click ends with it.
    places = np.cumsum([0, *intervals / intervals.sum()]) * (samples - length)
    wave = np.zeros(samples)
    for place in places.astype(int):
        wave[place : place + length] += _noise(rng, length, band) * np.hanning(length)
    return wave


def _swells(rng: Rng, samples: int) -> Wave:
    band = _band(rng)
    rise = rng.uniform(1.0, 1.6)
    count = int(rng.integers(2, 6))
    return _train(
        rng,
        samples,
        count,
        lambda n: _noise(rng, n, band) * 10 ** np.linspace(-rise, 0, n) * _edges(n),
    )


def _tone_then_noise(rng: Rng, samples: int) -> Wave:
    change = int(samples * rng.uniform(0.35, 0.65))
    tone = _tone(rng, np.full(change, _pitch(rng)), *_timbre(rng))
    noise = _noise(rng, samples - change, _band(rng)) * _edges(samples - change)
    return np.concatenate([tone, noise * rng.uniform(1, 3)])


# (kind of sound, its class when played forwards, its class when played backwards)
_PAIRS = (
    (_sweeps, "sweep_up", "sweep_down"),
    (_notes, "notes_up", "notes_down"),
    (_clicks, "clicks_faster", "clicks_slower"),
    (_swells, "noise_swell", "noise_fade"),
    (_tone_then_noise, "tone_noise", "noise_tone"),
)
_LABELS = tuple(label for _, *pair in _PAIRS for label in pair)
# Splits of successive tens of clips, each with every class once: of 100 clips, 60 are for training,
# 10 for validation and 30 for the test.
_SPLITS = ("train", "test", "train", "val", "train", "test", "train", "train", "test", "train")


def _event(rng: Rng, number: int, samples: int) -> Wave:
    """Return silence with the event of the clip's class, for half to nine tenths of the clip."""
    event = _sound(rng, number, int(samples * rng.uniform(0.5, 0.9)))
    start = rng.integers(0, samples - len(event))
    wave = np.zeros(samples)
    wave[start : start + len(event)] = event
    return wave


def _sound(rng: Rng, number: int, samples: int) -> Wave:
    """Return an event of a class, by its number, of unit deviation."""
    sounds, *_ = _PAIRS[number // 2 % len(_PAIRS)]
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
            burst = _tone(rng, np.full(length, _pitch(rng)), *_timbre(rng))
        else:
            burst = _noise(rng, length, _band(rng))
        start = rng.integers(0, samples - length)
        wave[start : start + length] += burst * _edges(length) * 10 ** (rng.uniform(-12, 0) / 20)
    return wave


def _in_room(rng: Rng, wave: Wave) -> Wave:
    """Return the sound with reverberation (exponentially decaying noise) and spectral tilt."""
    # The echo decays by 60 dB within 0.1 to 0.4 s.
    time = np.arange(0, 0.4, 1 / SAMPLE_RATE)
    echo = rng.standard_normal(len(time)) * 10 ** (-3 * time / rng.uniform(0.1, 0.4))
    echo *= 10 ** (rng.uniform(-20, -4) / 20) / np.linalg.norm(echo)
    # The direct sound.
    echo[0] = 1.0
    # Convolution as a product of spectra, long enough not to wrap around.
    size = len(wave) + len(echo)
    spectrum = np.fft.rfft(wave, size) * np.fft.rfft(echo, size)
    tilt = rng.uniform(-4, 4) * _octaves(size)
    return np.fft.irfft(spectrum * 10 ** (tilt / 20), size)[: len(wave)]


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
        wave[start : start + length] = level * _sound(rng, _LABELS.index(label), length)
        stretches.append(Stretch(start / SAMPLE_RATE, (start + length) / SAMPLE_RATE, label))
    return _recorded(rng, wave), stretches


def _recorded(rng: Rng, wave: Wave) -> Wave:
    """Return sounds in a room with a background, at some level."""
    samples = len(wave)
    wave = _in_room(rng, wave)
    slope = rng.uniform(-6, 0)
    background = _noise(rng, samples, lambda octaves: 10 ** (slope * octaves / 20))
    wave /= wave.std()
    wave += background * 10 ** (rng.uniform(-25, -5) / 20)
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
    some = clips >= 0 and unlabelled >= 0 and clips + unlabelled > 0
    check(some, "(clips, unlabelled)", (clips, unlabelled), "0 or more each, and not both 0")
    check(0.5 <= seconds <= 60, "seconds", seconds, "0.5 to 60")
    check(seed >= 0, "seed", seed, "0 or more")
    settings = json.dumps([_VERSION, clips, float(seconds), seed, unlabelled])
    root = root.resolve()
    if not _holds(root, settings):
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as aside:
            folder = Path(aside) / root.name
            _write(folder, _entries(clips, unlabelled), seed, seconds)
            (folder / "settings.json").write_text(settings, encoding="utf-8")
            # Another process may have been faster.
            if not _holds(root, settings):
                folder.rename(root)
    return root / "corpus.csv"


def clips(root: Path, subset: str = "") -> list[Entry]:
    """Return the clips that :func:`generate` wrote, labelled clips first.

    Raises:
        DataError: there is no corpus.
    """
    manifest = root / "corpus.csv"
    if not manifest.exists():
        fix = "make the corpus with melpatch.datasets.scenes.generate"
        raise DataError(f"{manifest}: no such file; {fix}")
    with open_text(manifest) as file:
        return [Entry(row["path"], row["label"], row["split"]) for row in csv.DictReader(file)]


def _holds(root: Path, settings: str) -> bool:
    """Return whether the folder contains the corpus of these settings; False if it is empty.

    Raises:
        DataError: the folder contains anything else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    about = root / "settings.json"
    same = about.is_file() and about.read_text(encoding="utf-8") == settings
    if same and all((root / entry.path).is_file() for entry in clips(root)):
        return True
    problem = "is not the whole corpus of these settings"
    raise DataError(f"{root}: {problem}; remove it or name another folder")


def _write(root: Path, entries: list[Entry], seed: int, seconds: float) -> None:
    (root / "audio").mkdir(parents=True)
    for number, entry in track(enumerate(entries), len(entries), "making", "scene"):
        soundfile.write(
            root / entry.path, scene(seed, number, seconds), SAMPLE_RATE, subtype="PCM_16"
        )
    with (root / "corpus.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([_COLUMNS, *(entry[: len(_COLUMNS)] for entry in entries)])


def _entries(labelled: int, unlabelled: int) -> list[Entry]:
    """Return the rows of the manifest; the index of a row is the number of its scene."""
    paths = [f"audio/{number:06d}.flac" for number in range(labelled + unlabelled)]
    known = [
        Entry(path, _LABELS[number % 10], _SPLITS[number // 10 % 10])
        for number, path in enumerate(paths[:labelled])
    ]
    return known + [Entry(path, "", "pretrain") for path in paths[labelled:]]


def fake(root: Path) -> None:
    """Write forty short labelled scenes, which fill every split, and two without label."""
    generate(root, clips=40, seconds=0.5, seed=0, unlabelled=2)


CARD = Card(
    name="scenes",
    summary="Synthetic sounds of ten classes in five pairs that are mirrored in time.",
    licence="CC0-1.0",
    size="any number of clips of any length; 1000 clips of 2 s take 40 MB",
    metric="accuracy",
    splits=("pretrain", "train", "val", "test"),
    labels=tuple(sorted(_LABELS)),
    download="nothing to fetch: make it with melpatch.datasets.scenes.generate, as melpatch demo "
    "does, and give the folder that contains its corpus.csv",
    clips=clips,
    fake=fake,
)
__registered__ = "CARD"
