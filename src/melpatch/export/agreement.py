"""How far an exported network agrees with its run, on recordings."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
from jaxtyping import Float

from melpatch.data.manifest import load_corpus
from melpatch.data.sound import decode_windows
from melpatch.errors import AudioError, DataError
from melpatch.export.source import Source
from melpatch.export.waveform import lengths_of

Windows = list[Float[np.ndarray, " sample"]]
Exported = Callable[[Float[np.ndarray, "clip sample"]], Sequence[np.ndarray]]

_MOST_WINDOWS = 200
_MADE_UP = 16


def windows(source: Source) -> tuple[Windows, str]:
    """Return the first window of up to 200 recordings, or made-up sound, and what they are in words.

    Raises:
        DataError: the recordings do not exist, or none can be read.
    """
    if not source.sounds:
        return [_made_up(source, number) for number in range(_MADE_UP)], "made-up tones in noise"
    named = ", ".join(source.sounds)
    read = [*islice(_first_windows(source), _MOST_WINDOWS)]
    if not read:
        raise DataError(f"--sounds {named}: no recording can be read; run melpatch prepare on it")
    return read, f"windows of {named}"


def _first_windows(source: Source) -> Iterator[Float[np.ndarray, " sample"]]:
    lengths = lengths_of(source)
    rate = source.model.sample_rate
    seconds = source.model.seconds
    for clip in load_corpus(source.sounds).on_channel(source.model.config.channel).clips:
        try:
            _, wave = next(iter(decode_windows(clip, seconds, seconds, rate)))
        except (AudioError, StopIteration):
            continue
        missing = max(0, lengths.least - len(wave))
        yield np.pad(wave, (0, missing)).astype(np.float32)


def _made_up(source: Source, number: int) -> Float[np.ndarray, " sample"]:
    """Return a tone in noise, the higher and the louder the greater its number."""
    rate = source.model.sample_rate
    rng = np.random.default_rng(number)
    time = np.arange(lengths_of(source).most) / rate
    pitch = rate / 2 * (number + 1) / (_MADE_UP + 1)
    level = 10 ** (number / _MADE_UP - 2)
    wave = level * np.sin(2 * np.pi * pitch * time) + 0.03 * rng.standard_normal(len(time))
    return wave.astype(np.float32)


def agreement(source: Source, exported: Exported, reference: Exported) -> str:
    """Return a sentence on how far an exported network agrees with another.

    Args:
        source: the run.
        exported: a function from waveforms (clip, sample) to the outputs.
        reference: the network to agree with.
    """
    waves, what = windows(source)
    pairs = [(exported(wave[None]), reference(wave[None])) for wave in waves]
    counted = f"{len(pairs)} {what}"
    vectors = [(rounded[-1][0], wanted[-1][0]) for rounded, wanted in pairs]
    cosine = np.mean([_cosine(rounded, wanted) for rounded, wanted in vectors])
    text = f"mean cosine of embeddings {cosine:.4f}"
    if source.classifier is None:
        return f"{text} on {counted}"
    answers = [(rounded[0][0], wanted[0][0]) for rounded, wanted in pairs]
    same = sum(int(rounded.argmax() == wanted.argmax()) for rounded, wanted in answers)
    apart = max(float(np.abs(rounded - wanted).max()) for rounded, wanted in answers)
    return f"the same best class in {same} of {counted}, probabilities at most {apart:.3f} apart, {text}"


def _cosine(rounded: np.ndarray, wanted: np.ndarray) -> float:
    lengths = np.linalg.norm(rounded) * np.linalg.norm(wanted)
    return float(rounded @ wanted / max(lengths, 1e-12))
