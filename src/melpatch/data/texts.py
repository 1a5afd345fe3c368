"""Many texts in one array of bytes: each takes its own bytes and twelve more, instead of an object."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
from jaxtyping import Int

# Lone surrogates, which names of files that are not UTF-8 hold, are kept too.
_ENCODING = "utf-8", "surrogatepass"
# Texts that are decoded at a time when all are read.
_BLOCK = 4096


class Texts(Sequence[str]):
    """Texts, each of a head that many share, such as a folder, and a rest of its own.

    Args:
        heads: the different heads.
        head: number of the head of each text.
        content: the rests, one after the other, encoded.
        ends: where each rest begins in the content, and where the last one ends.
    """

    def __init__(
        self,
        heads: tuple[str, ...],
        head: Int[np.ndarray, " text"],
        content: bytes,
        ends: Int[np.ndarray, " _"],
    ) -> None:
        self.heads = heads
        self.head = head
        self.content = content
        self.ends = ends

    def __len__(self) -> int:
        return len(self.head)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[place] for place in range(len(self))[number]]
        number = range(len(self))[number]
        head: str = self.heads[self.head[number]]
        return head + self.rest(number)

    def rest(self, number: int) -> str:
        """Return a text without its head."""
        return self.content[self.ends[number] : self.ends[number + 1]].decode(*_ENCODING)

    def rests(self) -> Iterator[str]:
        """Yield all texts without their heads."""
        for first in range(0, len(self), _BLOCK):
            ends = self.ends[first : first + _BLOCK + 1].tolist()
            content = self.content[ends[0] : ends[-1]]
            if content.isascii():
                # Decoded together, since a character is a byte.
                text = content.decode()
                base = ends[0]
                yield from [text[begin - base : end - base] for begin, end in pairwise(ends)]
            else:
                for begin, end in pairwise(ends):
                    yield self.content[begin:end].decode(*_ENCODING)

    def __iter__(self) -> Iterator[str]:
        heads = map(self.heads.__getitem__, self.head.tolist())
        for head, rest in zip(heads, self.rests(), strict=True):
            yield head + rest

    def hashes(self) -> Int[np.ndarray, " text"]:
        """Return a number for each text that differs, but for rare chances, where texts do.

        The numbers are others in other processes, and for another set of heads.
        """
        wanted = self.rests() if len(self.heads) == 1 else iter(self)
        return np.fromiter(map(hash, wanted), np.int64, len(self))

    def first_equal(self) -> Int[np.ndarray, " text"]:
        """Return for each text the number of the first one that is equal."""
        _, firsts, number = np.unique(self.hashes(), return_index=True, return_inverse=True)
        equal: np.ndarray = firsts[number]
        # Different texts may have the same hash.
        for place in np.flatnonzero(equal != np.arange(len(self))).tolist():
            if self[place] != self[int(equal[place])]:
                equal[place] = place
        return equal

    @classmethod
    def joined(cls, parts: Sequence["Texts"]) -> "Texts":
        """Return the texts of all parts, one part after the other."""
        builder = TextsBuilder()
        for part in parts:
            builder.take(part)
        return builder.done()


class TextsBuilder:
    """Collects texts for :class:`Texts`."""

    def __init__(self) -> None:
        self._heads: dict[str, int] = {}
        self._head: list[np.ndarray] = []
        self._contents: list[bytes] = []
        self._lengths: list[np.ndarray] = []
        self._count = 0

    def __len__(self) -> int:
        """Return the number of texts."""
        return self._count

    def extend(self, head: str, rests: Sequence[str]) -> None:
        """Add texts with the same head."""
        content = "".join(rests).encode(*_ENCODING)
        # In ASCII, as most names are, a character is a byte.
        lengths = [*map(len, rests)]
        if sum(lengths) != len(content):
            lengths = [len(rest.encode(*_ENCODING)) for rest in rests]
        self._append([self._number_of(head)] * len(rests), content, np.array(lengths, np.int64))

    def take(self, texts: Texts) -> None:
        """Add the texts of another array."""
        numbers = np.array([self._number_of(head) for head in texts.heads], np.int32)
        self._append(numbers[texts.head], texts.content, np.diff(texts.ends))

    def done(self) -> Texts:
        """Return all texts."""
        lengths = np.concatenate([np.zeros(1, np.int64), *self._lengths])
        head = np.concatenate([np.zeros(0, np.int32), *self._head])
        return Texts(tuple(self._heads), head, b"".join(self._contents), lengths.cumsum())

    def _number_of(self, head: str) -> int:
        return self._heads.setdefault(head, len(self._heads))

    def _append(
        self, head: Sequence[int] | np.ndarray, content: bytes, lengths: np.ndarray
    ) -> None:
        self._head.append(np.asarray(head, np.int32))
        self._contents.append(content)
        self._lengths.append(lengths)
        self._count += len(lengths)
