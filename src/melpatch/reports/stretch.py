"""A stretch of a recording in a page: its spectrogram, and its sound."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from melpatch.audio.logmel import LogMel
from melpatch.data.clip import Clip, clip_key
from melpatch.data.sound import decode, loudest
from melpatch.errors import AudioError
from melpatch.evaluation.worst import Answer
from melpatch.markup import Html
from melpatch.plots.spectrogram import spectrogram
from melpatch.reports.media import picture, player
from melpatch.reports.page import missing

LONGEST = 10.0
"""Seconds of a clip that are shown and heard at most: its loudest."""


def clip_of(answer: Answer) -> Clip:
    """Return the clip that an answer was given to, if it is a file or a part of one.

    Raises:
        AudioError: it lies in a shard or in a Parquet file.
    """
    path = Path(answer.path)
    if "[" in answer.path and not path.exists():
        fix = "unpack the shard to hear it"
        raise AudioError(answer.path, "lies in a shard, from which a report takes no sound", fix)
    duration = float("inf") if answer.end is None else answer.end - answer.start
    return Clip(path, clip_key("", path.name, answer.start), answer.start, duration)


def shown(clip: Clip, front_end: LogMel.Config, title: str) -> list[Html]:
    """Return the spectrogram and the sound of a clip or, if it cannot be read, why not.

    Args:
        clip: the clip; of a longer one than 10 s the loudest part is shown.
        front_end: the front end of the network that heard it.
        title: words above the spectrogram.
    """
    rate = front_end.sample_rate
    try:
        part = loudest(clip, LONGEST, rate)
        wave = decode(part, rate)
    except AudioError as error:
        return [missing(f"no picture and no sound: {error}")]
    log_mel = LogMel(replace(front_end, target_frames=None))
    values = log_mel.denormalise(log_mel(torch.from_numpy(wave))).numpy()
    draw = partial(spectrogram, values=values, front_end=front_end, start=part.start, title=title)
    length = len(wave) / rate
    where = f"{part.start:.1f} to {part.start + length:.1f} s of the file"
    # The length of a clip may be unknown until it is read.
    if clip.duration > LONGEST and length > LONGEST - 0.001:
        where = f"the loudest {LONGEST:g} s of the clip, {where}"
    words = f"Log-mel spectrogram, {where}"
    return [picture(draw, f"{words}: {title}", f"{words}."), player(wave, rate, title)]
