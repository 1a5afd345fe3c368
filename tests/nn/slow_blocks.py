"""A slow block corruption, rectangle by rectangle as published, with our random numbers."""

import math

import numpy as np

from melpatch.rng import uniform


def edges(corner, length, size, unit, max_block_ratio):
    """Return start and end (exclusive) of a rectangle along an axis, from two numbers in [0, 1)."""
    whole = math.ceil(size / unit) * unit
    limit = max(int(max_block_ratio * whole), unit + 1)
    corners = whole - unit if round((limit - 1) / unit) > 1 else whole
    start = int(corner * corners) // unit * unit
    drawn = unit + int(length * (limit - unit))
    return start, start + round(min(drawn, whole - start) / unit) * unit


def slow_blocks(state, frames, n_mels, share, max_block_ratio=0.3, align=(1, 1)):
    """Return the mask (mel, frame) of a clip, and its rectangles as (bottom, top, left, right)."""
    hidden = np.zeros((n_mels, frames), dtype=bool)
    used = []
    covered = 0
    most = 128 * (3 + int(0.085 / max_block_ratio**2))
    target = share * frames * n_mels - 1e-9
    for mel, frame in uniform(state, most, 2, 2)[0].tolist():
        bottom, top = edges(*mel, n_mels, align[0], max_block_ratio)
        left, right = edges(*frame, frames, align[1], max_block_ratio)
        used.append((bottom, top, left, right))
        block = hidden[bottom:top, left:right]
        covered += block.size - np.count_nonzero(block)
        block[:] = True
        if covered >= target:
            break
    for left in range(0, frames, align[1]):  # almost never needed
        if hidden.sum() >= target:
            break
        hidden[:, left : left + align[1]] = True
    return hidden, used
