"""Recordings and speakers that stand in several splits at once: a score on such a split says little."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

from melpatch.data.clip import Clip
from melpatch.data.corpus import Corpus
from melpatch.data.sound import byte_range
from melpatch.progress import notice

T = TypeVar("T")
K = TypeVar("K")


def find_leaks(corpus: Corpus) -> list[tuple[Clip, ...]]:
    """Return the groups of clips whose files have the same bytes and that stand in different splits.

    Only files of the same size are read, and of packed clips those of the same checksum. Files that are gone are passed
    over.
    """
    clips = _grouped(corpus.clips, lambda clip: (clip.path, clip.offset))
    there = (group[0] for group in clips.values() if group[0].size or group[0].path.is_file())
    found = []
    for alike in _grouped(there, _size).values():
        same = _grouped(alike, _digest).values() if len(alike) > 1 else [alike]
        groups = [
            tuple(clip for one in group for clip in clips[one.path, one.offset]) for group in same
        ]
        found += [group for group in groups if len({clip.split for clip in group}) > 1]
    return found


def shared_groups(*parts: Corpus) -> list[str]:
    """Return the groups (recordings, speakers, patients) that stand in more than one part of a corpus, sorted."""
    counts = Counter(
        group for part in parts for group in {clip.group for clip in part.clips} - {""}
    )
    return sorted(group for group, count in counts.items() if count > 1)


def warn_of_shared_groups(*parts: Corpus) -> None:
    """Warn of recordings, speakers or patients that stand in several parts of a corpus, such as training and test.

    Not where each label is one group: who is to be told apart as a speaker has to be heard in training.
    """
    shared = shared_groups(*parts)
    if shared and not groups_are_labels(clip for part in parts for clip in part.clips):
        notice(
            f"{len(shared):,} groups (column group or speaker) stand in more than one split, such as {shared[0]!r}: "
            "scores will tell how well these are remembered, not how well new ones are heard; give each group one split"
        )


def groups_are_labels(clips: Iterable[Clip]) -> bool:
    """Return whether each label is one group, as where speakers are to be told apart."""
    pairs = {(label, clip.group) for clip in clips for label in clip.labels}
    return len(pairs) == len({label for label, _ in pairs})


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _size(clip: Clip) -> tuple[int, int]:
    return (clip.size, clip.crc32) if clip.size else (clip.path.stat().st_size, 0)


def _digest(clip: Clip) -> bytes:
    if clip.size:
        return hashlib.blake2b(byte_range(clip).content()).digest()
    with clip.path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
