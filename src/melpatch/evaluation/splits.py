"""Which clips train, validate and test: once for a test split, or once per fold where there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from melpatch.counted import agreeing, counted
from melpatch.data.corpus import Corpus
from melpatch.data.split_roles import role_of
from melpatch.data.splits import hold_out, split_corpus
from melpatch.errors import DataError

ValidationSource = Literal["none", "val", "next fold", "held out"]
"""Where the clips come from that select weights or settings.

``none``: nothing is selected, and clips of a split ``val`` are not used. ``val``: the split
``val``; without one, nothing is selected. ``next fold``: the fold after the scored one, or else
``val``, or else a share of the training clips. ``held out``: ``val``, or else a share of the
training clips.
"""

EVERYTHING = "all"
"""Name under which a corpus without splits is scored."""
_NAME_ONE = "name one with --split, or the column that holds the splits with --split-column"
HELD_OUT_SHARE = 0.1
"""Share of the training clips of each class that validates by default, where nothing else can."""


def describe_split_rule(
    validation: ValidationSource, held_out_share: float = HELD_OUT_SHARE
) -> str:
    """Return in words which clips train and which validate."""
    train = "trains on train, or without it on all splits but the scored one, val and test"
    share = f"{held_out_share:.0%} of the training clips of each class, whole groups only"
    next_fold = "validates on the fold after the scored one, which does not train, or else on val"
    validate: Mapping[ValidationSource, str] = {
        "none": "",
        "val": "; validates on val, if there is one",
        "next fold": f"; {next_fold}, or else on {share}",
        "held out": f"; validates on val, or else on {share}",
    }
    return train + validate[validation]


@dataclass(frozen=True)
class EvaluationSplit:
    """One division of a corpus into training, validation and test clips.

    Attributes:
        name: the split or fold that is scored.
        train: clips to learn from.
        val: clips that select weights or settings, if any.
        test: clips to score.
    """

    name: str
    train: Corpus
    val: Corpus | None
    test: Corpus

    def describe_unseen_labels(self) -> str | None:
        """Return a sentence on labels of test clips that no training clip has; None if there are none."""
        known = {label for clip in self.train.clips for label in clip.labels}
        clips = [clip for clip in self.test.clips if not set(clip.labels) <= known]
        if not clips:
            return None
        labels = sorted({label for clip in clips for label in clip.labels} - known)
        listed = ", ".join([*labels[:5], *["..."] * (len(labels) > 5)])
        return (
            f"split {self.name}: {counted(len(clips), 'test clip')}, such as {clips[0].path}, "
            f"{agreeing(len(clips), 'has', 'have')} labels that no training clip has ({listed}), "
            "which cannot be predicted"
        )


def labelled_clips(corpus: Corpus) -> Corpus:
    """Return the clips that have labels.

    Raises:
        DataError: no clip has one.
    """
    clips = tuple(clip for clip in corpus.clips if clip.labels)
    if not clips:
        raise DataError(
            f"{corpus.shown_name}: none of {counted(len(corpus.clips), 'clip')} has a label; "
            "give a corpus that has them"
        )
    return replace(corpus, clips=clips)


def select_split(corpus: Corpus, name: str) -> Corpus:
    """Return the clips of a split or fold of a labelled corpus.

    Raises:
        DataError: there is no such split.
    """
    name = corpus.split_called(name)
    if name not in corpus.splits:
        raise DataError(
            f"{corpus.shown_name}: no labelled clip is in split {name!r}; there are: {_counts(corpus)}; "
            f"{_advice(corpus)}"
        )
    return corpus.select([name])


def evaluation_splits(
    corpus: Corpus,
    scored: Sequence[str] = (),
    validation: ValidationSource = "none",
    held_out_share: float = HELD_OUT_SHARE,
) -> list[EvaluationSplit]:
    """Return one division of a corpus for each split or fold to score; unlabelled clips are left out.

    Args:
        corpus: clips with splits or folds.
        scored: splits or folds to score; by default ``test``, or else every fold.
        validation: where the validation clips come from.
        held_out_share: share of the training clips that validates, where nothing else can.

    Raises:
        DataError: a split does not exist, or no clip is left to train or to validate on.
    """
    labelled = labelled_clips(corpus)
    return [
        _divide(labelled, name, validation, held_out_share)
        for name in scored or _default_splits(labelled)
    ]


def _default_splits(corpus: Corpus) -> list[str]:
    roles = {split: role_of(split) for split in corpus.splits}
    tests = [split for split, role in roles.items() if role == "test"]
    if tests:
        return tests
    splits = [split for split, role in roles.items() if split and role != "val"]
    if "train" in roles.values() or len(splits) < 2:
        raise DataError(
            f"{corpus.shown_name}: no split is called 'test'; there are: {_counts(corpus)}; "
            f"{_advice(corpus)}"
        )
    return splits


def _divide(
    corpus: Corpus, name: str, validation: ValidationSource, held_out_share: float
) -> EvaluationSplit:
    test = select_split(corpus, name)
    name = corpus.split_called(name)
    test_fold = None if name == "test" else name
    val_fold = _fold_after(corpus, name) if validation == "next fold" else None
    parts = split_corpus(corpus, test_fold, val_fold)
    train = parts.train
    val = None if validation == "none" else parts.val
    if val is None and validation in ("next fold", "held out"):
        train, val = hold_out_validation(train, held_out_share)
    return EvaluationSplit(name, train, val, test)


def _fold_after(corpus: Corpus, name: str) -> str | None:
    """Return the fold after the scored one, the first after the last; None unless another fold is left to train on."""
    folds = [split for split in corpus.splits if split and role_of(split) is None]
    if name not in folds or len(folds) <= 2:
        return None
    return folds[(folds.index(name) + 1) % len(folds)]


def hold_out_validation(train: Corpus, share: float = HELD_OUT_SHARE) -> tuple[Corpus, Corpus]:
    """Return the training clips without a share of each class, and that share; groups stay whole.

    Raises:
        DataError: there are too few clips.
    """
    # The seed is constant, so that all seeds of an evaluation validate on the same clips.
    parts = hold_out(train, share, seed=0)
    if "test" not in parts.splits:
        raise DataError(
            f"{train.shown_name}: none of {counted(len(train.clips), 'training clip')} can be held "
            "out for validation, since no two have the same labels, or all belong to one group; "
            "give some clips the split 'val'"
        )
    held_out = {clip.key for clip in parts.select(["test"]).clips}
    kept = tuple(clip for clip in train.clips if clip.key not in held_out)
    val = tuple(clip for clip in train.clips if clip.key in held_out)
    return replace(train, clips=kept), replace(train, clips=val)


def _advice(corpus: Corpus) -> str:
    """Return what to do where a split is missing: there may be none to name."""
    if corpus.splits.keys() == {""}:
        return (
            "draw folds with melpatch prepare DATA --folds 5 --out corpus.csv, and give that table"
        )
    return _NAME_ONE


def _counts(corpus: Corpus) -> str:
    return ", ".join(
        f"{name or 'clips without a split'} ({count})" for name, count in corpus.splits.items()
    )
