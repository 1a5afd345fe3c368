"""What decoding whole files shows: clips that can be read, and what damaged files lose."""

from dataclasses import dataclass, field, replace

from melpatch.audio.sound_file import SLACK
from melpatch.audio.survey import Survey
from melpatch.data.clip import Clip, clip_key
from melpatch.data.corpus import Rejected
from melpatch.data.row import Row
from melpatch.data.scan import Probed

SHORTEST_SALVAGED = 1.0
"""Shortest stretch of a damaged file that is kept, in seconds."""


@dataclass
class Decoding:
    """Takes what is seen while whole files are decoded.

    Attributes:
        salvage: whether the good stretches of damaged files are kept as clips.
        surveys: what each file holds, by its place.
        salvaged: damaged files of which something is kept, with what is left out.
    """

    salvage: bool = False
    surveys: dict[str, Survey] = field(default_factory=dict)
    salvaged: list[Rejected] = field(default_factory=list)

    def clips(
        self, clip: Clip | Rejected, row: Row, probed: Probed, dataset: str
    ) -> list[Clip | Rejected]:
        """Return the clips of a row whose file was decoded, or the reason why there is none.

        Args:
            clip: the clip of the row, if its file were not damaged.
            row: the row.
            probed: what was seen.
            dataset: name from which the keys of clips are made.
        """
        seen = probed.survey
        if seen is None or isinstance(clip, Rejected):
            return [clip]
        self.surveys[clip.location] = seen
        end = clip.start + clip.duration
        for first, last in seen.stretches:
            if first <= clip.start and end <= last + SLACK and (row.duration or not seen.error):
                return [clip]
        if seen.error is None:
            length = seen.stretches[-1][1]
            return [Rejected(clip.location, f"ends at {length:.2f} s, before {end:.2f} s")]
        if self.salvage and row.duration is None:
            kept = [
                replace(
                    clip,
                    key=clip.key if first == clip.start else clip_key(dataset, row.name, first),
                    start=first,
                    duration=last - first,
                )
                for first, last in seen.stretches
                if first >= clip.start and last - first >= SHORTEST_SALVAGED
            ]
            if kept:
                self.salvaged.append(Rejected(clip.location, _left_out(kept, seen)))
                return [*kept]
        return [Rejected(clip.location, seen.error.reason)]


def _left_out(kept: list[Clip], seen: Survey) -> str:
    """Return in words what of a file is kept, and what is left out and why."""
    gaps = []
    end = 0.0
    for clip in kept:
        if clip.start > end:
            gaps.append(f"{end:.2f} to {clip.start:.2f} s")
        end = clip.start + clip.duration
    if not seen.reaches_end or end < seen.stretches[-1][1]:
        gaps.append(f"all from {end:.2f} s on")
    seconds = sum(clip.duration for clip in kept)
    reason = seen.error.reason if seen.error else ""
    return f"{reason}; {seconds:.2f} s are kept, left out: {', '.join(gaps)}"
