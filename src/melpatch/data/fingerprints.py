"""Clips that are recognised by their content where neither their key nor their place is the same.

Of a file a few blocks are read: its size, start, middle and end distinguish recordings, and a copy
has the same. A copy in another format, or with other tags, is not recognised.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int

from melpatch.data.clip import Clip
from melpatch.data.clip_columns import chosen, keys_of
from melpatch.opening import open_binary
from melpatch.rng import hash_text

MOST_CLIPS = 50_000
"""Clips of which the content is looked at: of more, a random choice that is always the same."""
_BLOCK = 4096  # bytes
_THREADS = 8


def content_identities(clips: Sequence[Clip]) -> dict[int, int]:
    """Return a number for the content of each clip, by the clip's key; unreadable files have none.

    Args:
        clips: clips of files or shards.
    """
    # Keys are random numbers, so the first ones are a fair sample.
    first = keys_of(clips).argsort(kind="stable")[:MOST_CLIPS]
    looked_at = [*chosen(clips, first)]
    with ThreadPoolExecutor(_THREADS) as pool:
        numbers = pool.map(_content_identity, looked_at)
        return {
            clip.key: number
            for clip, number in zip(looked_at, numbers, strict=True)
            if number is not None
        }


def as_array(identities: dict[int, int]) -> Int[np.ndarray, " clip"]:
    """Return the numbers alone."""
    return np.array([*identities.values()], dtype=np.int64)


def _content_identity(clip: Clip) -> int | None:
    if clip.size:
        content = f"packed {clip.size} {clip.crc32}"
    else:
        try:
            with open_binary(clip.path) as file:
                size = os.fstat(file.fileno()).st_size
                blocks = []
                for place in (0, size // 2, max(0, size - _BLOCK)):
                    file.seek(place)
                    blocks.append(file.read(_BLOCK).hex())
        except OSError:
            # A clip that is away now is recognised by its key or place alone.
            return None
        content = f"file {size} {' '.join(blocks)}"
    return hash_text(f"{content}\0{clip.start:.6f}\0{clip.duration:.3f}")
