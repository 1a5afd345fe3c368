"""Random numbers that are a pure function of (seed, purpose, clip key, step), without global state.

A *stream* is one 64-bit state per clip. Number ``i`` of a stream depends on that state and on ``i``
alone, so a clip gets the same mask, crop and augmentation alone or in a batch, on one rank or
eight, before or after a crash.

The generator is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators"), written in int64 tensor arithmetic, which wraps as the unsigned original does, so that
a whole batch is drawn at once on any device. Nothing here needs float64, which Apple's GPUs lack.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

N = TypeVar("N", Tensor, np.ndarray)

# The constants of SplitMix64 as signed numbers: its increment and two multipliers.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def _shift_right(x: N, bits: int) -> N:
    """Logical shift right; torch's own keeps the sign."""
    shifted: N = (x >> bits) & ((1 << (64 - bits)) - 1)
    return shifted


def _mix(x: N) -> N:
    """Scramble 64-bit numbers so that similar ones give unrelated results (Stafford's mix 13)."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    mixed: N = x ^ _shift_right(x, 31)
    return mixed


def hash_text(text: str) -> int:
    """Return a signed 64-bit hash of a text, the same on every machine and in every process."""
    # Names of files that are not UTF-8 hold lone surrogates.
    content = text.encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def hash_texts(texts: Sequence[str]) -> Int[np.ndarray, " text"]:
    """Return the hashes of texts, as from :func:`hash_text`."""
    digests = [
        hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        for text in texts
    ]
    return np.frombuffer(b"".join(digests), "<i8").astype(np.int64)


def stream(
    seed: int, purpose: str, keys: Int[Tensor, " clip"], step: int = 0
) -> Int[Tensor, " clip"]:
    """Return one stream state per clip, for one purpose ("mask", "crop", ...) at one step."""
    # NumPy mixes this one number: on a GPU it would cost a transfer and a synchronisation.
    start = _mix(np.array([hash_text(f"{seed}/{purpose}/{step}")]))
    return _mix(int(start[0]) + keys.long() * _GOLDEN)


def streams(
    seed: int, purposes: Sequence[str], keys: Int[Tensor, " clip"], step: int
) -> Int[Tensor, "purpose clip"]:
    """Return the streams of several purposes, as from :func:`stream`, with few kernel launches."""
    texts = [f"{seed}/{purpose}/{step}" for purpose in purposes]
    starts = torch.from_numpy(_mix(np.array([hash_text(text) for text in texts], dtype=np.int64)))
    return _mix(starts.to(keys.device, non_blocking=True)[:, None] + keys.long() * _GOLDEN)


def _numbers(state: Int[Tensor, " clip"], shape: tuple[int, ...]) -> Int[Tensor, "clip ..."]:
    """Return the first 64-bit numbers of each stream, as many as the shape holds."""
    # Number i is the mix of state + i * increment, so all are computed at once.
    counter = torch.arange(1, math.prod(shape) + 1, device=state.device, dtype=torch.int64)
    return _mix(state[:, None] + counter * _GOLDEN).view(len(state), *shape)


def uniform(state: Int[Tensor, " clip"], *shape: int) -> Float[Tensor, "clip ..."]:
    """Draw float32 numbers in [0, 1): ``(clip, *shape)``; number i is the same for every shape."""
    return uniform_bits(state, *shape).to(torch.float32) * 2.0**-24


def uniform_bits(state: Int[Tensor, " clip"], *shape: int) -> Int[Tensor, "clip ..."]:
    """Draw the numbers of :func:`uniform` as integers in [0, 2**24), whose products are exact."""
    # 24 bits, the precision of float32.
    return _shift_right(_numbers(state, shape), 40)


def normal(state: Int[Tensor, " clip"], *shape: int) -> Float[Tensor, "clip ..."]:
    """Draw float32 standard-normal numbers: ``(clip, *shape)``."""
    # Box-Muller: the upper 24 bits of each number give the radius, the lower 24 the angle. The
    # radius is drawn from (0, 1], so that its logarithm is finite.
    bits = _numbers(state, shape)
    radius = (_shift_right(bits, 40).to(torch.float32) + 1.0) * 2.0**-24
    angle = (bits & 0xFFFFFF).to(torch.float32) * (2.0**-24 * 2.0 * torch.pi)
    return torch.sqrt(-2.0 * torch.log(radius)) * torch.cos(angle)


def integers(
    state: Int[Tensor, " clip"], low: int, high: int, *shape: int
) -> Int[Tensor, "clip ..."]:
    """Draw integers in [low, high): ``(clip, *shape)``, from 53 bits, so that no value is skipped.

    Raises:
        ValueError: the range has neither 0 to 2**36 values nor exactly 2**53.
    """
    size = high - low
    bits = _shift_right(_numbers(state, shape), 11)
    if size == 1 << 53:
        return low + bits
    if not 0 <= size <= 1 << 36:
        raise ValueError(f"high - low = {size}; allowed: 0 to 2**36, or 2**53")
    # floor(bits * size / 2**53) in integers. The bits are split into upper ones and the lower 27,
    # so that no product exceeds 2**63.
    upper = bits >> 27
    lower = bits & ((1 << 27) - 1)
    return low + ((upper * size + ((lower * size) >> 27)) >> 26)


def permutation(seed: int, purpose: str, step: int, size: int) -> Int[Tensor, " size"]:
    """Return a random order of ``range(size)`` that is a function of the arguments alone."""
    state = stream(seed, purpose, torch.zeros(1, dtype=torch.int64), step)
    return _numbers(state, (size,))[0].argsort(stable=True)


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Run a block, such as one that builds layers, with torch seeded by (seed, purpose).

    Torch's generators are restored afterwards.
    """
    with torch.random.fork_rng():
        torch.manual_seed(hash_text(f"{seed}/{purpose}") & (2**63 - 1))
        yield
