"""Recordings that stand in several splits at once, whatever they are called: a score on such a split says little."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from melpatch.data.clip import Clip
from melpatch.data.corpus import Corpus

T = TypeVar("T")
K = TypeVar("K")


def leaks(corpus: Corpus) -> list[tuple[Clip, ...]]:
    """Return the groups of clips whose files have the same bytes and that stand in different splits.

    Only files of the same size are read. Files that are gone are passed over.
    """
    clips = _grouped(corpus.clips, lambda clip: clip.path)
    by_size = _grouped((path for path in clips if path.is_file()), lambda path: path.stat().st_size)
    found = []
    for paths in by_size.values():
        same = _grouped(paths, _digest).values() if len(paths) > 1 else [paths]
        groups = [tuple(clip for path in group for clip in clips[path]) for group in same]
        found += [group for group in groups if len({clip.split for clip in group}) > 1]
    return found


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
