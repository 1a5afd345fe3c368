"""Sound scenes of known content, made offline: ten classes that differ only in the order of things in time.

Five kinds of event, each played forwards or backwards. What forgets time, such as a mean spectrum, cannot tell a class
from its mirror image, and what looks at fixed places finds nothing there: start, length, pitch, rate, timbre, level,
tilt, room, background and distracting bursts are drawn alike for all classes.

=============  =============  ================================================================  ========
class          mirror image   one event (half to nine tenths of the clip, anywhere in it)       sort
=============  =============  ================================================================  ========
sweep_up       sweep_down     one to four harmonic tones, each gliding up by 0.5 to 2 octaves   swept
notes_up       notes_down     two steady harmonic tones, the second 3 to 12 semitones higher    pitched
clicks_faster  clicks_slower  8 to 14 clicks, their intervals shrinking three- to sixfold       rhythmic
noise_swell    noise_fade     two to five bursts of band noise that swell, then stop at once    noisy
tone_noise     noise_tone     one steady harmonic tone, then one burst of band noise            mixed
=============  =============  ================================================================  ========
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

SAMPLE_RATE = 16_000

Wave = Float[np.ndarray, " sample"]
Rng = np.random.Generator


def _edges(samples: int) -> Wave:
    """Return a level that opens and closes over 10 ms, so that tones and bursts begin and end without a click."""
    from_end = np.minimum(np.arange(samples), np.arange(samples)[::-1]) + 0.5
    return np.sin(0.5 * np.pi * np.minimum(from_end / (0.010 * SAMPLE_RATE), 1.0)) ** 2


def _tone(rng: Rng, pitch: Wave, partials: int, rolloff: float) -> Wave:
    """Return a harmonic tone of the given pitch in Hz; partial k has level ``k ** -rolloff``."""
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    wave = np.zeros_like(phase)
    for k in range(1, partials + 1):
        audible = k * pitch < 0.475 * SAMPLE_RATE
        wave += audible * k**-rolloff * np.sin(k * phase + rng.uniform(0, 2 * np.pi))
    return wave / wave.std() * _edges(len(wave))


def _octaves(samples: int) -> Float[np.ndarray, " bin"]:
    """Return how far above 1 kHz, in octaves, each bin of a spectrum lies; from 60 Hz, as levels go by octaves."""
    return np.log2(np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 60.0) / 1000)


def _noise(rng: Rng, samples: int, gain: Callable[[Float[np.ndarray, " bin"]], Float[np.ndarray, " bin"]]) -> Wave:
    """Return Gaussian noise of unit deviation, its spectrum shaped by ``gain`` of octaves above 1 kHz."""
    size = 1 << (samples - 1).bit_length()  # transforms of other sizes can be many times slower
    real, imaginary = rng.standard_normal((2, size // 2 + 1))
    spectrum = (real + 1j * imaginary) * gain(_octaves(size))
    spectrum[0] = 0
    wave = np.fft.irfft(spectrum, size)[:samples]
    return wave / wave.std()


def _band(rng: Rng) -> Callable[[Float[np.ndarray, " bin"]], Float[np.ndarray, " bin"]]:
    centre, width = rng.uniform(-1.3, 2.2), rng.uniform(0.5, 2.0)
    return lambda octaves: np.exp(-0.5 * ((octaves - centre) / (0.5 * width)) ** 2)


def _timbre(rng: Rng) -> tuple[int, float]:
    return int(rng.integers(1, 7)), rng.uniform(0.3, 1.5)


def _pitch(rng: Rng) -> float:
    return float(180 * 2 ** rng.uniform(0, 3))


def _train(rng: Rng, samples: int, count: int, event: Callable[[int], Wave]) -> Wave:
    """Return ``count`` events, given their length, one after the other with pauses between."""
    wave, period = np.zeros(samples), samples // count
    length = int(period * rng.uniform(0.6, 0.95))
    for start in range(0, period * count, period):
        wave[start : start + length] = event(length)
    return wave


def _sweeps(rng: Rng, samples: int) -> Wave:
    middle, rise, timbre = _pitch(rng), rng.uniform(0.5, 2.0), _timbre(rng)
    count = int(rng.integers(1, 5))
    return _train(rng, samples, count, lambda n: _tone(rng, middle * 2 ** (rise * np.linspace(-0.5, 0.5, n)), *timbre))


def _notes(rng: Rng, samples: int) -> Wave:
    low, semitones, timbre = _pitch(rng), rng.integers(3, 13), _timbre(rng)
    change = int(samples * rng.uniform(0.35, 0.65))
    first = _tone(rng, np.full(change, low), *timbre)
    second = _tone(rng, np.full(samples - change, low * 2 ** (semitones / 12)), *timbre)
    return np.concatenate([first, second])


def _clicks(rng: Rng, samples: int) -> Wave:
    band, length = _band(rng), int(SAMPLE_RATE * rng.uniform(0.004, 0.016))
    intervals = rng.uniform(3, 6) ** -np.linspace(0, 1, rng.integers(7, 14))
    places = np.cumsum([0, *intervals / intervals.sum()]) * (samples - length)
    wave = np.zeros(samples)
    for place in places.astype(int):
        wave[place : place + length] += _noise(rng, length, band) * np.hanning(length)
    return wave


def _swells(rng: Rng, samples: int) -> Wave:
    band, rise = _band(rng), rng.uniform(1.0, 1.6)
    count = int(rng.integers(2, 6))
    return _train(
        rng, samples, count, lambda n: _noise(rng, n, band) * 10 ** (rise * np.linspace(-1, 0, n)) * _edges(n)
    )


def _tone_then_noise(rng: Rng, samples: int) -> Wave:
    change = int(samples * rng.uniform(0.35, 0.65))
    tone = _tone(rng, np.full(change, _pitch(rng)), *_timbre(rng))
    noise = _noise(rng, samples - change, _band(rng)) * _edges(samples - change)
    return np.concatenate([tone, noise * rng.uniform(1, 3)])


# (name, event, whether it is played backwards)
_CLASSES: tuple[tuple[str, Callable[[Rng, int], Wave], bool], ...] = (
    ("sweep_up", _sweeps, False),
    ("sweep_down", _sweeps, True),
    ("notes_up", _notes, False),
    ("notes_down", _notes, True),
    ("clicks_faster", _clicks, False),
    ("clicks_slower", _clicks, True),
    ("noise_swell", _swells, False),
    ("noise_fade", _swells, True),
    ("tone_noise", _tone_then_noise, False),
    ("noise_tone", _tone_then_noise, True),
)
# The split goes by tens of clips, each of which holds every class once: of each hundred 60 train, 10 validate, 30 test.
_SPLITS = ("train", "test", "train", "val", "train", "test", "train", "train", "test", "train")


def _distraction(rng: Rng, samples: int) -> Wave:
    """Return up to four short tones and bursts of noise, at most as loud as the event, that say nothing of the class."""
    wave = np.zeros(samples)
    for _ in range(rng.integers(0, 5)):
        length = int(SAMPLE_RATE * rng.uniform(0.03, 0.15))
        tonal = rng.random() < 0.5
        burst = _tone(rng, np.full(length, _pitch(rng)), *_timbre(rng)) if tonal else _noise(rng, length, _band(rng))
        start = rng.integers(0, samples - length)
        wave[start : start + length] += burst * _edges(length) * 10 ** (rng.uniform(-12, 0) / 20)
    return wave


def _in_room(rng: Rng, wave: Wave) -> Wave:
    """Return the sound with reverberation (noise that decays exponentially) and with its spectrum tilted."""
    time = np.arange(0, 0.4, 1 / SAMPLE_RATE)
    echo = rng.standard_normal(len(time)) * 10 ** (-3 * time / rng.uniform(0.1, 0.4))
    echo *= 10 ** (rng.uniform(-20, -4) / 20) / np.linalg.norm(echo)
    echo[0] = 1.0
    size = len(wave) + len(echo)
    spectrum = np.fft.rfft(wave, size) * np.fft.rfft(echo, size)
    tilt = rng.uniform(-4, 4) * _octaves(size)
    return np.fft.irfft(spectrum * 10 ** (tilt / 20), size)[: len(wave)]


def scene(seed: int, number: int, seconds: float) -> Wave:
    """Return the sound of one clip at 16 kHz in [-1, 1], a function of the arguments alone.

    The event lies 5 to 25 dB above the background; the peak of the clip lies 1 to 20 dB below full scale.
    """
    rng = np.random.default_rng((seed, number))
    samples = round(seconds * SAMPLE_RATE)
    _, kind, backwards = _CLASSES[number % len(_CLASSES)]
    event = kind(rng, int(samples * rng.uniform(0.5, 0.9)))
    start = rng.integers(0, samples - len(event))
    wave = _distraction(rng, samples)
    wave[start : start + len(event)] += (event[::-1] if backwards else event) / event.std()
    wave = _in_room(rng, wave)
    slope = rng.uniform(-6, 0)
    background = _noise(rng, samples, lambda octaves: 10 ** (slope * octaves / 20))
    wave = wave / wave.std() + background * 10 ** (rng.uniform(-25, -5) / 20)
    return wave / np.abs(wave).max() * 10 ** (rng.uniform(-20, -1) / 20)


def generate(root: Path, *, clips: int, seconds: float, seed: int, unlabelled: int) -> Path:
    """Write a corpus as 16-bit FLAC with its manifest ``corpus.csv`` (path, label, split), and return the manifest's path.

    A complete corpus of the same settings is left as it is. The folder appears only when all of it is written.

    Args:
        root: the folder to make.
        clips: how many labelled clips; with a multiple of 100, every class is equally frequent in every split.
        seconds: length of a clip, 0.5 to 60.
        seed: another seed gives other sounds.
        unlabelled: how many further clips without label, in the split ``pretrain``.

    Raises:
        ConfigError: a number is out of range.
        DataError: the folder holds something else.
    """
    check(clips >= 0 and unlabelled >= 0 and clips + unlabelled > 0, "clips, unlabelled", (clips, unlabelled), "0 or more")
    check(0.5 <= seconds <= 60, "seconds", seconds, "0.5 to 60")
    check(seed >= 0, "seed", seed, "0 or more")
    settings = {"clips": clips, "seconds": seconds, "seed": seed, "unlabelled": unlabelled, "version": _VERSION}
    root = root.resolve()
    if not _holds(root, settings):
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as aside:
            _write(Path(aside) / root.name, settings)
            _move(Path(aside) / root.name, root, settings)
    return root / "corpus.csv"
