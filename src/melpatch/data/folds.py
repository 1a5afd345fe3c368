"""Folds for cross-validation: groups whole, and each class spread evenly over the folds."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from melpatch.config import check
from melpatch.counted import agreeing, counted
from melpatch.data.corpus import Corpus
from melpatch.data.leaks import groups_are_labels
from melpatch.data.split_roles import role_of
from melpatch.data.splits import shuffled

_TIE = 1e-9
"""Sums of squares that differ by less are the same; rounding is some 1e-16."""


@dataclass(frozen=True)
class _Group:
    """Clips that stay together.

    Attributes:
        clips: their numbers in the corpus.
        classes: numbers of the classes that they have.
        shares: for each of these, which share of all its clips they are.
        unevenness: standard deviation of the clips per class, over all classes.
    """

    clips: Sequence[int]
    classes: Int[np.ndarray, " class"]
    shares: Float[np.ndarray, " class"]
    unevenness: float


def with_folds(corpus: Corpus, folds: int, seed: int) -> Corpus:
    """Return a corpus whose labelled clips have the folds 1, 2, ... as splits.

    Clips of a split for the test keep it, and are in no fold. Clips without labels have no split.
    All clips of a group are in one fold, unless no label has two groups. The choice depends on
    (seed, clip key) alone.

    In a random order, those with the most uneven classes first, each group goes to the fold that
    leaves the clips of each class spread most evenly over the folds: with the least variance of
    their shares, summed over classes. Of several such folds the one with the fewest clips takes it.

    Source: scikit-learn's ``StratifiedGroupKFold``. *Differs:* it takes standard deviations instead
    of variances; here clips may have several labels, and a clip without group is a group.

    Raises:
        ConfigError: there are fewer groups, or fewer clips, than folds.
    """
    dealt = _dealt(corpus)
    groups = _groups(corpus, dealt, seed)
    unit = "labelled clips outside the test split"
    fix = "give more labelled clips"
    if len(groups) < len(dealt):
        unit = "groups of labelled clips"
        fix = "name a finer --group-column"
    fewer = f"2 to {len(groups)}" if len(groups) >= 2 else "nothing"
    allowed = f"{fewer}, since {corpus.shown_name} has {len(groups)} {unit}; or {fix}"
    check(folds <= len(groups), "folds", folds, allowed)
    clips = [clip if clip.labels else replace(clip, split="") for clip in corpus.clips]
    for group, fold in zip(groups, _deal(groups, len(corpus.labels), folds), strict=True):
        for number in group.clips:
            clips[number] = replace(clips[number], split=str(fold + 1))
    return replace(corpus, clips=tuple(clips))


def describe_groups(corpus: Corpus) -> str:
    """Return in words which groups there are: how many, of how many clips, in how many splits."""
    counts = Counter(clip.group for clip in corpus.clips)
    without = counts.pop("", 0)
    if not counts:
        return "none known"
    # Of an even number of groups the larger of the middle two.
    sizes = sorted(counts.values())
    middle = sizes[len(sizes) // 2]
    text = f"{len(sizes):,}, of {sizes[0]:,} to {counted(sizes[-1], 'clip')}, median {middle:,}"
    if without:
        text += f"; {counted(without, 'clip')} without"
    # Without folds or splits no group can be in several.
    pairs = {(clip.group, clip.split) for clip in corpus.clips if clip.group}
    if len({split for _, split in pairs}) > 1:
        several = sum(count > 1 for count in Counter(group for group, _ in pairs).values())
        text += f"; {several:,} in more than one split"
    if groups_are_labels(corpus.clips):
        text += "; each label has one group only, so groups are not kept together"
    return text


def describe_folds(corpus: Corpus) -> list[str]:
    """Return sentences on what is odd about the folds of :func:`with_folds`."""
    clips = [corpus.clips[number] for number in _dealt(corpus)]
    by_group = not groups_are_labels(clips) and any(clip.group for clip in clips)
    units: dict[str, set[str | int]] = defaultdict(set)
    folds: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        for label in clip.labels:
            units[label].add((by_group and clip.group) or clip.key)
            folds[label].add(clip.split)
    unit = "group" if by_group else "clip"
    number = len({clip.split for clip in clips})
    lonely = [label for label, its_folds in folds.items() if len(its_folds) == 1]
    scarce = [label for label, its_folds in folds.items() if 1 < len(its_folds) < number]
    sentences = []
    if lonely:
        sentences.append(
            f"{counted(len(lonely), 'class')} {agreeing(len(lonely), 'is', 'are')} in one fold only, "
            f"such as {lonely[0]!r} with {counted(len(units[lonely[0]]), unit)}: when that fold is "
            "scored, nothing trains on what it alone has"
        )
    if scarce:
        sentences.append(
            f"{counted(len(scarce), 'class')} {agreeing(len(scarce), 'is', 'are')} not in every fold, "
            f"such as {scarce[0]!r} with {counted(len(units[scarce[0]]), unit)}"
        )
    files = Counter((clip.path, clip.offset) for clip in clips if not clip.group)
    parts = sum(count for count in files.values() if count > 1)
    if parts:
        sentences.append(
            f"{counted(parts, 'clip')} without a group are stretches of the same files as others, and "
            "may be in other folds than these; name the recording with --group-column"
        )
    unlabelled = sum(not clip.labels for clip in corpus.clips)
    if unlabelled:
        verb = agreeing(unlabelled, "is", "are")
        sentences.append(f"{counted(unlabelled, 'clip')} without labels {verb} in no fold")
    return sentences


def _dealt(corpus: Corpus) -> list[int]:
    """Return the numbers of the clips that are, or are to be, in folds."""
    tests = {name for name in corpus.splits if role_of(name) == "test"}
    clips = enumerate(corpus.clips)
    return [number for number, clip in clips if clip.labels and clip.split not in tests]


def _groups(corpus: Corpus, dealt: Sequence[int], seed: int) -> list[_Group]:
    """Return the groups of some clips, in the order in which they are dealt to folds."""
    number_of_label = {label: number for number, label in enumerate(corpus.labels)}
    clips = [corpus.clips[number] for number in dealt]
    ignore_groups = groups_are_labels(clips)
    totals = Counter(label for clip in clips for label in clip.labels)
    members: dict[str | int, list[int]] = defaultdict(list)
    wanted = {*dealt}
    for number in shuffled(corpus, seed, "folds"):
        if number in wanted:
            group = corpus.clips[number].group
            members[number if ignore_groups or not group else group].append(number)
    groups = []
    for numbers in members.values():
        counts = Counter(label for number in numbers for label in corpus.clips[number].labels)
        classes = np.array([number_of_label[label] for label in counts])
        clips_of_class = np.array([*counts.values()])
        shares = clips_of_class / np.array([totals[label] for label in counts])
        # Of all classes of the corpus, most of which have no clip in the group.
        mean = clips_of_class.sum() / len(corpus.labels)
        variance = (clips_of_class**2).sum() / len(corpus.labels) - mean**2
        groups.append(_Group(numbers, classes, shares, round(max(variance, 0.0), 9)))
    # The sort is stable, so groups that are alike stay in random order.
    return sorted(groups, key=lambda group: -group.unevenness)


def _deal(groups: Sequence[_Group], classes: int, folds: int) -> list[int]:
    """Return the fold of each group, from 0."""
    # share[fold, class] is the share of the clips of a class that the fold has so far.
    share = np.zeros((folds, classes))
    sizes = np.zeros(folds, dtype=int)
    chosen = []
    for group in groups:
        # Adding s to a share p raises the sum of squares by 2 p s + s^2, of which only 2 p s
        # depends on the fold.
        raised = share[:, group.classes] @ group.shares
        best = np.flatnonzero(raised <= raised.min() + _TIE)
        fold = int(best[sizes[best].argmin()])
        share[fold, group.classes] += group.shares
        sizes[fold] += len(group.clips)
        chosen.append(fold)
    return chosen
