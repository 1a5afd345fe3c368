"""Splits: clips for training, for choosing the best weights, and for the final test."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from melpatch.counted import agreeing, counted
from melpatch.data.corpus import Corpus
from melpatch.data.leaks import groups_are_labels
from melpatch.data.split_roles import for_pretraining, role_of
from melpatch.errors import DataError
from melpatch.rng import stream, uniform


@dataclass(frozen=True)
class Split:
    """A corpus in disjoint parts.

    Attributes:
        train: clips to learn from.
        val: clips that choose the best weights, if any.
        test: clips for the final score, if any.
        unused: the number of clips of each split that is in none of these.
    """

    train: Corpus
    val: Corpus | None
    test: Corpus | None
    unused: Mapping[str, int]

    def describe_unused(self) -> str | None:
        """Return a sentence on the splits of unknown names that are not trained on, or None."""
        named = {
            name: count
            for name, count in self.unused.items()
            if not name or not for_pretraining(name)
        }
        if not named:
            return None
        return (
            f"not trained on, since there is a split for training: {_listed(named)}; call these "
            "clips train, val or test to use them"
        )


def split_corpus(
    corpus: Corpus, test_fold: str | None = None, val_fold: str | None = None
) -> Split:
    """Return the training, validation and test clips of a labelled corpus.

    The training set is the split ``train``, or what has a name such as ``train_360``, if there is
    one, else all splits except those for validation and test. Unlabelled clips are left out. The
    test fold is never the validation set as well, even if it is called ``val``, nor the other way
    round.

    Raises:
        DataError: a fold does not exist, is given as both, or no training clip is left.
    """
    labelled = dataclasses.replace(
        corpus, clips=tuple(clip for clip in corpus.clips if clip.labels)
    )
    splits = labelled.splits
    roles = {name: role_of(name) for name in splits}
    tests = _named(labelled, test_fold, [name for name in splits if roles[name] == "test"])
    vals = _named(labelled, val_fold, [name for name in splits if roles[name] == "val"])
    if None not in (test_fold, val_fold) and tests == vals:
        problem = f"{test_fold!r} cannot be both the validation and the test fold"
        raise DataError(f"{corpus.shown_name}: {problem}; name two")
    # A fold that was named is only what it was named as.
    named = {*(tests if test_fold is not None else []), *(vals if val_fold is not None else [])}
    tests = tests if test_fold is not None else [name for name in tests if name not in named]
    vals = vals if val_fold is not None else [name for name in vals if name not in named]
    held_out = {*tests, *vals} | {name for name in splits if roles[name] in ("val", "test")}
    trains = [name for name in splits if roles[name] == "train" and name not in held_out]
    trains = trains or [name for name in splits if name not in held_out]
    if not trains:
        known = _listed(splits)
        raise DataError(
            f"{corpus.shown_name}: no labelled clip is left to train on; the splits are: {known}"
        )
    used = {*trains, *held_out}
    return Split(
        labelled.select(trains),
        labelled.select(vals) if vals else None,
        labelled.select(tests) if tests else None,
        {name: count for name, count in splits.items() if name not in used},
    )


def _named(corpus: Corpus, fold: str | None, usual: list[str]) -> list[str]:
    """Return the fold that was named, or else the usual ones."""
    if fold is None:
        return usual
    name = corpus.split_called(fold)
    if name not in corpus.splits:
        known = _listed(corpus.splits)
        raise DataError(
            f"{corpus.shown_name}: no split or fold is called {fold!r}; there are: {known}"
        )
    return [name]


def take_per_class(corpus: Corpus, per_class: int, seed: int) -> Corpus:
    """Keep at most ``per_class`` clips per class, by (seed, clip key) alone; choices are nested."""
    # The order does not depend on per_class, so fewer labels per class are a subset of more.
    taken: dict[str, int] = defaultdict(int)
    kept = set()
    for index in shuffled(corpus, seed, "few labels"):
        # A clip of several labels is taken for the rare one, and counts for the others too.
        wanted = [label for label in corpus.clips[index].labels if taken[label] < per_class]
        if wanted:
            kept.add(index)
            for label in corpus.clips[index].labels:
                taken[label] += 1
    return dataclasses.replace(
        corpus, clips=tuple(clip for index, clip in enumerate(corpus.clips) if index in kept)
    )


def describe_scarce_classes(corpus: Corpus, per_class: int) -> str | None:
    """Return a sentence on the classes with fewer than ``per_class`` clips, or None."""
    counts = Counter(label for clip in corpus.clips for label in clip.labels)
    few = [label for label, count in counts.items() if count < per_class]
    if not few:
        return None
    example = f"{few[0]} with {counts[few[0]]}"
    classes = f"{counted(len(few), 'class')} {agreeing(len(few), 'has', 'have')}"
    return f"{classes} fewer than {counted(per_class, 'clip')}, such as {example}; all are used"


def describe_untrained(train: Corpus, labels: Sequence[str]) -> str | None:
    """Return a sentence on the classes without a training clip, or None.

    Args:
        train: the training clips.
        labels: all classes.
    """
    learnt = {label for clip in train.clips for label in clip.labels}
    missing = [label for label in labels if label not in learnt]
    if not missing:
        return None
    listed = ", ".join([*missing[:5], *["..."] * (len(missing) > 5)])
    classes = f"{counted(len(missing), 'class')} {agreeing(len(missing), 'has', 'have')}"
    return f"{classes} no training clip and cannot be learnt: {listed}"


def shuffled(corpus: Corpus, seed: int, purpose: str) -> list[int]:
    """Return the indices of all clips in an order that depends on (seed, clip key) alone."""
    keys = [clip.key for clip in corpus.clips]
    rank = uniform(stream(seed, purpose, torch.tensor(keys, dtype=torch.int64)), 1)[:, 0].tolist()
    return sorted(range(len(keys)), key=lambda index: (rank[index], keys[index]))


def _listed(splits: dict[str, int]) -> str:
    return ", ".join(f"{name or 'none'} ({count})" for name, count in splits.items())


def hold_out(corpus: Corpus, share: float, seed: int) -> Corpus:
    """Return a corpus with ``share`` of each class as split ``test`` and the rest as ``train``.

    The choice depends on (seed, clip key) alone. Groups (recordings, speakers, patients) are kept
    together if the corpus has them, unless each label is a group. Without groups, clips of one
    recording may fall on both sides: for an honest score give the corpus splits of its own.
    """
    groups = _groups(corpus, seed)
    labels = [clip.labels for clip in corpus.clips]
    # Clips still wanted in the test split, per combination of labels: the share, but at least one
    # of a combination that has two or more clips.
    counts = Counter(labels)
    wanted = Counter(
        {combination: max(round(share * n), int(n > 1)) for combination, n in counts.items()}
    )
    # Clips of each label that are left for training.
    left = Counter(label for combination in labels for label in combination)
    test: set[int] = set()

    def can_be_spared(group: list[int]) -> bool:
        """Return whether training keeps a clip of each of the group's labels."""
        in_group = Counter(label for index in group for label in labels[index])
        return all(left[label] > n for label, n in in_group.items())

    # In a random order, hold out each group of which more than half of the clips are still wanted.
    for group in groups:
        held = Counter(labels[index] for index in group)
        mostly_wanted = 2 * (held & wanted).total() > len(group)
        if mostly_wanted and (len(group) == 1 or can_be_spared(group)):
            test.update(group)
            wanted -= held
            left -= Counter(label for index in group for label in labels[index])

    # If all groups are too large for that, hold out the smallest one that can be spared.
    if not test and len(groups) < len(labels):
        spare = [group for group in sorted(groups, key=len) if can_be_spared(group)]
        test.update(*spare[:1])
    clips = tuple(
        dataclasses.replace(clip, split="test" if index in test else "train")
        for index, clip in enumerate(corpus.clips)
    )
    return dataclasses.replace(corpus, clips=clips)


def _groups(corpus: Corpus, seed: int) -> list[list[int]]:
    """Return the indices of the clips by group, shuffled; a clip without group is its own."""
    ignore_groups = groups_are_labels(corpus.clips)
    groups: dict[str | int, list[int]] = defaultdict(list)
    for index in shuffled(corpus, seed, "hold out"):
        group = corpus.clips[index].group
        groups[index if ignore_groups or not group else group].append(index)
    return [*groups.values()]
