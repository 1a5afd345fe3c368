"""Which clips train, which choose the best weights, and which are left alone until the end."""

import dataclasses
from collections import Counter, defaultdict
from dataclasses import dataclass

import torch

from melpatch.data.leaks import groups_are_labels
from melpatch.data.manifest import Corpus
from melpatch.errors import DataError
from melpatch.rng import stream, uniform


@dataclass(frozen=True)
class Split:
    """A corpus in parts that share no clip."""

    train: Corpus
    val: Corpus | None
    test: Corpus | None


def split_corpus(
    corpus: Corpus, test_fold: str | None = None, val_fold: str | None = None
) -> Split:
    """Return the training, validation and test clips of a labelled corpus.

    With a test fold, or a validation fold, all other splits but ``val`` and ``test`` train. Without, and if there is a
    split called ``train``, that one trains; a corpus without any split trains whole. Unlabelled clips are left out.

    A fold asked for as test is not validated on too, be it called ``val``, nor the other way round.

    Raises:
        DataError: a fold does not exist, is asked for as both, or nothing is left to train on.
    """
    labelled = dataclasses.replace(
        corpus, clips=tuple(clip for clip in corpus.clips if clip.labels)
    )
    splits = labelled.splits
    for fold in (test_fold, val_fold):
        if fold is not None and fold not in splits:
            raise DataError(
                f"{corpus.name}: no split or fold is called {fold!r}; there are: {_listed(splits)}"
            )
    if test_fold is not None and test_fold == val_fold:
        raise DataError(
            f"{corpus.name}: {test_fold!r} cannot both choose the best weights and be left alone; name two"
        )
    test, val = "test" if test_fold is None else test_fold, "val" if val_fold is None else val_fold
    if test_fold is None and val_fold is None and "train" in splits:
        train = labelled.select(["train"])
    else:
        held_out = {test, val, "test", "val"} & set(splits)
        if held_out == set(splits):
            raise DataError(
                f"{corpus.name}: no labelled clip is left to train on; the splits are: {_listed(splits)}"
            )
        train = labelled.without(held_out)
    return Split(
        train,
        labelled.select([val]) if val in splits and val != test_fold else None,
        labelled.select([test]) if test in splits and test != val_fold else None,
    )


def take_per_class(corpus: Corpus, per_class: int, seed: int) -> Corpus:
    """Keep so many clips of each class, chosen by (seed, clip key) alone; a smaller choice is part of a larger one."""
    taken: dict[str, int] = defaultdict(int)
    kept = set()
    for index in _shuffled(corpus, seed, "few labels"):
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
    return f"{len(few)} classes have fewer than {per_class} clips, such as {example}; they give all they have"


def _shuffled(corpus: Corpus, seed: int, purpose: str) -> list[int]:
    """Return the places of all clips in an order that hangs on (seed, clip key) alone."""
    keys = [clip.key for clip in corpus.clips]
    rank = uniform(stream(seed, purpose, torch.tensor(keys, dtype=torch.int64)), 1)[:, 0].tolist()
    return sorted(range(len(keys)), key=lambda index: (rank[index], keys[index]))


def _listed(splits: dict[str, int]) -> str:
    return ", ".join(f"{name or 'none'} ({count})" for name, count in splits.items())


def hold_out(corpus: Corpus, share: float, seed: int) -> Corpus:
    """Return a corpus without splits with ``share`` of each class's clips as split ``test``, the others as ``train``.

    The choice is by (seed, clip key) alone. Groups (recordings, speakers, patients) stay whole where the corpus has
    them, unless each label is a group: in a drawn order, a group is held out if more than half of its clips are still
    wanted and other groups have its labels too; where there is none, the smallest one that can be spared. Without
    groups, recordings of one source may fall on both sides: for an honest score give the corpus splits of its own.
    """
    groups, labels = _groups(corpus, seed), [clip.labels for clip in corpus.clips]
    wanted = Counter(
        {one: max(round(share * count), int(count > 1)) for one, count in Counter(labels).items()}
    )
    left = Counter(label for one in labels for label in one)
    test: set[int] = set()

    def spared(group: list[int]) -> bool:
        counts = Counter(label for index in group for label in labels[index])
        return all(left[label] > count for label, count in counts.items())

    for group in groups:
        held = Counter(labels[index] for index in group)
        if 2 * (held & wanted).total() > len(group) and (len(group) == 1 or spared(group)):
            test.update(group)
            wanted -= held
            left -= Counter(label for index in group for label in labels[index])
    if not test and len(groups) < len(labels):
        test.update(*sorted((group for group in groups if spared(group)), key=len)[:1])
    sides = ("test" if index in test else "train" for index in range(len(labels)))
    clips = (
        dataclasses.replace(clip, split=side)
        for clip, side in zip(corpus.clips, sides, strict=True)
    )
    return dataclasses.replace(corpus, clips=tuple(clips))


def _groups(corpus: Corpus, seed: int) -> list[list[int]]:
    """Return the places of the clips by group, in a drawn order; a clip without one is its own."""
    alone = groups_are_labels(corpus.clips)
    found: dict[str | int, list[int]] = defaultdict(list)
    for index in _shuffled(corpus, seed, "hold out"):
        group = corpus.clips[index].group
        found[index if alone or not group else group].append(index)
    return [*found.values()]
