"""A look at a few clips before training: energy outside the front end, cancelling channels."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from melpatch.audio.logmel import LogMel
from melpatch.audio.survey import SILENT_PEAK, Survey, glimpse
from melpatch.counted import agreeing, counted
from melpatch.data.clip import Clip
from melpatch.data.sound import with_source
from melpatch.errors import AudioError

_CLIPS = 32
_SECONDS = 5.0
# From this share on, lost energy is told; at this many times the front end's rate, always.
_LOST_SHARE = 0.05
_FAR_HIGHER = 4
# Channels whose mean holds less than this share of their energy cancel each other.
_CANCELLED = 0.01


def notices_about_sound(clips: Sequence[Clip], front_end: LogMel.Config) -> list[str]:
    """Return what a user should know about how a front end takes clips; a few of them are decoded.

    Clips that cannot be read are left to those who read them.
    """
    seen = _looked_at(clips)
    notices = [_lost_energy([look for _, look in seen], front_end), _cancelled_channels(seen)]
    return [text for text in notices if text]


def notice_of_empty_bands(clips: Sequence[Clip], front_end: LogMel.Config) -> str:
    """Return how many clips end below the band of a front end; nothing if less than half do."""
    seen = _looked_at(clips)
    narrow = [look.sample_rate for _, look in seen if look.sample_rate / 2 < 0.9 * front_end.top_hz]
    if 2 * len(narrow) <= len(seen):
        return ""
    rate = Counter(narrow).most_common(1)[0][0]
    return (
        f"hears up to {front_end.top_hz:,.0f} Hz, but {len(narrow)} of {counted(len(seen), 'clip')} that "
        f"{agreeing(len(seen), 'was', 'were')} looked at end below, most of them at {rate // 2:,} Hz: "
        "its upper bands stay empty, which it may not know from its training"
    )


def _looked_at(clips: Sequence[Clip]) -> list[tuple[Clip, Survey]]:
    """Return a few clips that can be read, and what a look at each tells."""
    chosen = clips[:: max(1, len(clips) // _CLIPS)][:_CLIPS]
    seen: list[tuple[Clip, Survey]] = []
    for clip in chosen:
        seconds = min(clip.duration, _SECONDS)
        look = partial(glimpse, start=clip.start, seconds=seconds)
        try:
            seen.append((clip, with_source(clip, look)))
        except AudioError:
            continue
    return seen


def _lost_energy(seen: Sequence[Survey], front_end: LogMel.Config) -> str:
    """Return what share of the energy lies outside the band of a front end, and how to keep it."""
    # Files of the front end's rate lose nothing to it; neither does silence.
    wider = [look for look in seen if look.sample_rate / 2 > 1.01 * front_end.top_hz]
    wider = [look for look in wider if not look.silent]
    if not wider:
        return ""
    lost = float(np.mean([look.share_above(front_end.top_hz) for look in wider]))
    rate = Counter(look.sample_rate for look in wider).most_common(1)[0][0]
    if lost < _LOST_SHARE and rate < _FAR_HIGHER * front_end.sample_rate:
        return ""
    flags = []
    if rate > front_end.sample_rate:
        flags.append(f"--front-end.sample-rate {rate}")
    if front_end.high_hz is not None:
        flags.append(f"--front-end.high-hz {rate // 2}")
    return (
        f"the front end keeps {front_end.low_hz:,.0f} to {front_end.top_hz:,.0f} Hz: "
        f"{lost:.0%} of the energy of {counted(len(wider), 'clip')} that "
        f"{agreeing(len(wider), 'was', 'were')} looked at lies above and is lost; "
        f"to keep it: {' '.join(flags)}"
    )


def _cancelled_channels(seen: Sequence[tuple[Clip, Survey]]) -> str:
    """Return how many clips have channels that cancel each other, and the remedy."""
    cancelled = [
        clip
        for clip, look in seen
        if clip.channel == "mean"
        and look.channels > 1
        and look.mixed < _CANCELLED
        and look.level > SILENT_PEAK
    ]
    if not cancelled:
        return ""
    return (
        f"the channels of {len(cancelled)} of {counted(len(seen), 'clip')} that "
        f"{agreeing(len(seen), 'was', 'were')} looked at cancel each other when they are "
        f"mixed, such as {cancelled[0].location}; "
        "take one of them with --channel left, right or loudest"
    )
