"""Which clips are learnt from, which choose, and which are scored: once for a test split, once per fold without one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from melpatch.data.corpus import Corpus
from melpatch.data.splits import hold_out, split_corpus
from melpatch.errors import DataError

Choice = Literal["none", "val", "next", "held out"]
"""What chooses among weights or settings: nothing (clips of a split ``val`` stay out); the split ``val``, or nothing
where there is none; the fold after the scored one, or ``val``; a share of the training clips of each class, or ``val``.
Where ``next`` finds neither, a share is held out too."""

HELD_OUT = 0.1
"""Share of the training clips that chooses by default, where nothing else does."""


def rule(choice: Choice, held_out: float = HELD_OUT) -> str:
    """Return a choice in words."""
    learns = "learns from train, or where folds are scored from all splits but the scored one, val and test"
    some = f"{held_out:.0%} of the training clips of each class, groups kept whole"
    following = "the fold after the scored one chooses and is not learnt from, or else val"
    words: Mapping[Choice, str] = {
        "none": "",
        "val": "; val chooses, if there is one",
        "next": f"; {following}, or else {some}",
        "held out": f"; val chooses, or else {some}",
    }
    return learns + words[choice]


@dataclass(frozen=True)
class Round:
    """One division of a corpus.

    Attributes:
        name: the split or fold that is scored.
        train: clips to learn from.
        val: clips by which to choose, if any.
        test: clips to score.
    """

    name: str
    train: Corpus
    val: Corpus | None
    test: Corpus

    def unseen(self) -> str | None:
        """Return a sentence on the labels that clips to score have and no training clip has, None if there are none."""
        known = {label for clip in self.train.clips for label in clip.labels}
        strange = [clip for clip in self.test.clips if not set(clip.labels) <= known]
        if not strange:
            return None
        labels = sorted({label for clip in strange for label in clip.labels} - known)
        return (
            f"round {self.name}: {len(strange)} clips to score, such as {strange[0].path}, have labels that no clip to "
            f"learn from has ({', '.join(labels[:5])}{', ...' if len(labels) > 5 else ''}); they cannot be got right"
        )


def labelled(corpus: Corpus) -> Corpus:
    """Return the clips that have labels.

    Raises:
        DataError: none has.
    """
    clips = tuple(clip for clip in corpus.clips if clip.labels)
    if not clips:
        raise DataError(
            f"{corpus.name}: none of the {len(corpus.clips)} clips has a label; give a corpus that has them"
        )
    return replace(corpus, clips=clips)


def to_score(corpus: Corpus, name: str) -> Corpus:
    """Return the clips of a split or fold of a labelled corpus.

    Raises:
        DataError: there is no such split.
    """
    if name not in corpus.splits:
        raise DataError(
            f"{corpus.name}: no labelled clip is in split {name!r}; there are: {_listed(corpus)}; name one with --split"
        )
    return corpus.select([name])


def rounds(
    corpus: Corpus, scored: Sequence[str] = (), choice: Choice = "none", held_out: float = HELD_OUT
) -> list[Round]:
    """Return the rounds of a corpus; unlabelled clips are left out.

    Args:
        corpus: clips with splits or folds.
        scored: splits or folds to score, each in a round of its own; by default ``test``, or else every fold.
        choice: what chooses.
        held_out: share of the training clips that does, where nothing else can.

    Raises:
        DataError: a split does not exist, or nothing is left to learn from or to choose by.
    """
    known = labelled(corpus)
    return [_round(known, name, choice, held_out) for name in scored or _scored(known)]


def _scored(corpus: Corpus) -> list[str]:
    splits = [split for split in corpus.splits if split and split != "val"]
    if "test" in splits:
        return ["test"]
    if "train" in splits or len(splits) < 2:
        raise DataError(
            f"{corpus.name}: no split is called 'test'; there are: {_listed(corpus)}; name one with --split"
        )
    return splits


def _round(corpus: Corpus, name: str, choice: Choice, held_out: float) -> Round:
    test = to_score(corpus, name)
    folds = [split for split in corpus.splits if split not in ("", "val", "test", "train")]
    following = (
        folds[(folds.index(name) + 1) % len(folds)] if name in folds and len(folds) > 2 else None
    )
    split = split_corpus(
        corpus, None if name == "test" else name, following if choice == "next" else None
    )
    train, val = split.train, None if choice == "none" else split.val
    if val is None and choice in ("next", "held out"):
        train, val = _held_out(train, held_out)
    return Round(name, train, val, test)


def _held_out(train: Corpus, share: float) -> tuple[Corpus, Corpus]:
    parts = hold_out(train, share, seed=0)
    if "test" not in parts.splits:
        raise DataError(
            f"{train.name}: none of the {len(train.clips)} training clips can be held out to choose by, since no two "
            "have the same labels, or all are of one group; give some clips the split 'val'"
        )
    chosen = {clip.key for clip in parts.select(["test"]).clips}
    val = tuple(clip for clip in train.clips if clip.key in chosen)
    return replace(
        train, clips=tuple(clip for clip in train.clips if clip.key not in chosen)
    ), replace(train, clips=val)


def _listed(corpus: Corpus) -> str:
    return ", ".join(f"{name or repr('')} ({count})" for name, count in corpus.splits.items())
