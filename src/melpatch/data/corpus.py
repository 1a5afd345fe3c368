"""A corpus: clips, their closed set of labels, and the files that were left out."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from melpatch.audio.files import Channel
from melpatch.counted import counted
from melpatch.data.clip import Clip
from melpatch.data.clip_columns import ClipColumns
from melpatch.data.split_roles import usual_split
from melpatch.errors import DataError


@dataclass(frozen=True)
class Rejected:
    """A file that was left out of a corpus, and the reason."""

    path: str
    reason: str
    key: int | None = field(default=None, compare=False)
    """Of the clip, where it is one of several of its file."""


@dataclass(frozen=True)
class Corpus:
    """Clips with their set of labels.

    Attributes:
        name: the names of the sources, joined by ``+``.
        clips: in the order of the sources; folders are sorted. Those of a source that was read are
            columns, of which a clip is made when it is asked for.
        labels: all labels of all splits, sorted.
        multi_label: whether some clip has more than one label.
        rejected: files that were left out.
        title: name in titles, which distinguishes the CSV files of one folder.
    """

    name: str
    clips: Sequence[Clip]
    labels: tuple[str, ...]
    multi_label: bool
    rejected: tuple[Rejected, ...] = ()
    title: str = field(default="", compare=False)

    @property
    def shown_name(self) -> str:
        """The name in messages and titles."""
        return self.title or self.name

    @property
    def splits(self) -> dict[str, int]:
        """The number of clips of each split, sorted by name; ``""`` stands for no split."""
        if isinstance(self.clips, ClipColumns):
            counts = self.clips.split_counts()
        else:
            counts = Counter(clip.split for clip in self.clips)
        return dict(sorted(counts.items()))

    def on_channel(self, channel: Channel) -> "Corpus":
        """Return the corpus with what is taken of clips of several channels."""
        if channel == "mean":
            return self
        if isinstance(self.clips, ClipColumns):
            return replace(self, clips=replace(self.clips, channel=channel))
        return replace(self, clips=tuple(replace(clip, channel=channel) for clip in self.clips))

    def split_called(self, name: str) -> str:
        """Return the split of a name, or else of its usual name: ``Test`` and ``eval`` are test."""
        if name in self.splits:
            return name
        return usual_split(name) or name

    def select(self, splits: Iterable[str]) -> "Corpus":
        """Return the clips of these splits, with the labels of the whole corpus.

        Raises:
            DataError: one of the splits has no clip.
        """
        wanted = self._known(splits)
        if isinstance(self.clips, ClipColumns):
            return replace(self, clips=self.clips.take(self.clips.in_splits(wanted)))
        return replace(self, clips=tuple(clip for clip in self.clips if clip.split in wanted))

    def without(self, splits: Iterable[str]) -> "Corpus":
        """Return the clips of all other splits, with the labels of the whole corpus.

        Raises:
            DataError: one of the splits has no clip, so nothing would be held out.
        """
        unwanted = self._known(splits)
        return self.select(name for name in self.splits if name not in unwanted)

    def _known(self, splits: Iterable[str]) -> set[str]:
        """Return the names of existing splits as a set."""
        # A single name would otherwise be taken as a sequence of letters.
        if isinstance(splits, str):
            splits = [splits]
        given = set(splits)
        names = {self.split_called(name) for name in given}
        unknown = sorted(name for name in given if self.split_called(name) not in self.splits)
        if unknown:
            counts = (
                f"{split or '(none)'} ({counted(count, 'clip')})"
                for split, count in self.splits.items()
            )
            known = ", ".join(counts) or "no clips"
            raise DataError(f"{self.shown_name}: no split {unknown[0]!r}; there are: {known}")
        return names


def label_matrix(clips: Sequence[Clip], labels: Sequence[str]) -> Float[np.ndarray, "clip label"]:
    """Return a float32 matrix with 1 where a clip has a label and 0 elsewhere.

    Raises:
        DataError: a clip has a label that is not among ``labels``.
    """
    column = {label: index for index, label in enumerate(labels)}
    matrix = np.zeros((len(clips), len(labels)), np.float32)
    for row, clip in zip(matrix, clips, strict=True):
        for label in clip.labels:
            if label not in column:
                problem = f"label {label!r} is not among the {len(labels)} known"
                raise DataError(f"{clip.path}: {problem}; see the column 'label'")
            row[column[label]] = 1
    return matrix
