"""Recordings and speakers that occur in several splits, which makes scores optimistic."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

from melpatch.counted import agreeing, counted
from melpatch.data.clip import Clip
from melpatch.data.corpus import Corpus
from melpatch.data.sound import byte_range
from melpatch.opening import open_binary
from melpatch.progress import notice

T = TypeVar("T")
K = TypeVar("K")


def find_leaks(corpus: Corpus) -> list[tuple[Clip, ...]]:
    """Return groups of clips in different splits whose files have identical content.

    Only files of the same size are read, and packed clips of the same checksum. Missing files are
    skipped.
    """
    by_file = _grouped(corpus.clips, lambda clip: (clip.path, clip.offset))
    # One clip represents each file.
    files = [clips[0] for clips in by_file.values()]
    existing = [clip for clip in files if clip.size or clip.path.is_file()]
    groups = []
    # Reading whole files is slow, so only those of the same size are compared.
    for same_size in _grouped(existing, _size).values():
        identical = [same_size]
        if len(same_size) > 1:
            identical = list(_grouped(same_size, _digest).values())
        for copies in identical:
            group = tuple(clip for copy in copies for clip in by_file[copy.path, copy.offset])
            if len({clip.split for clip in group}) > 1:
                groups.append(group)
    return groups


def shared_groups(*parts: Corpus) -> list[str]:
    """Return the groups (recordings, speakers, patients) in more than one part, sorted."""
    counts = Counter(
        group for part in parts for group in {clip.group for clip in part.clips} - {""}
    )
    return sorted(group for group, count in counts.items() if count > 1)


def warn_of_shared_groups(*parts: Corpus) -> None:
    """Warn of recordings, speakers or patients in several parts of a corpus, such as train and test.

    There is no warning if each label is one group: speakers that are to be recognised must be in
    the training data.
    """
    shared = shared_groups(*parts)
    if shared and not groups_are_labels(clip for part in parts for clip in part.clips):
        groups = f"{counted(len(shared), 'group')} (column group or speaker)"
        verb = agreeing(len(shared), "is", "are")
        notice(
            f"{groups} {verb} in more than one split, such as {shared[0]!r}: scores will measure how "
            "well known groups are memorised, not how well new ones are recognised; "
            "give each group one split"
        )


def groups_are_labels(clips: Iterable[Clip]) -> bool:
    """Return whether each label is one group, as in speaker identification."""
    # If a label had two groups, there would be more pairs than labels.
    pairs = {(label, clip.group) for clip in clips for label in clip.labels}
    return len(pairs) == len({label for label, _ in pairs})


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _size(clip: Clip) -> tuple[int, int]:
    """Return a clip's size in bytes, and its checksum if that is known."""
    if clip.size:
        return clip.size, clip.crc32
    return clip.path.stat().st_size, 0


def _digest(clip: Clip) -> bytes:
    """Return a hash of the bytes of a clip or file."""
    if clip.size:
        return hashlib.blake2b(byte_range(clip).content()).digest()
    with open_binary(clip.path) as file:
        return hashlib.file_digest(file, "blake2b").digest()
