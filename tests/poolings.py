"""Poolings that tests of their users try, and the slow way to pool a clip."""

from itertools import pairwise

import torch

from melpatch.nn.pooling import Pooling

POOLINGS = ("mean", "max", "cls", "frequency", "rows+mean+std+delta", "mean+std+segments=2")
"""The simple ones, and one of each other kind."""


def slow_statistic(name, tokens):
    """Return a statistic of tokens of one row, or of all, given by column: {column: [token, ...]}."""
    every = [token for column in tokens.values() for token in column]
    if not every:
        return None
    if name == "max":
        return torch.stack(every).amax(dim=0)
    mean = sum(every) / len(every)
    if name == "mean":
        return mean
    # A column is the mean of its tokens.
    columns = {place: sum(column) / len(column) for place, column in tokens.items()}
    if name == "std":
        squares = [len(tokens[place]) * (columns[place] - mean) ** 2 for place in columns]
        return (sum(squares) / len(every)).sqrt()
    steps = [(columns[b] - columns[a]).abs() for a, b in pairwise(sorted(columns)) if b == a + 1]
    return sum(steps, torch.zeros_like(mean)) / max(1, len(steps))


def slow_pool(tokens, cls, rows, how):
    """Return the vector of a clip.

    Args:
        tokens: those that are there, {(row, column): token}.
        cls: class tokens.
        rows: rows of the grid.
        how: the spelling of a pooling.
    """
    pooling = Pooling.parse(how)
    length = 1 + max(column for _, column in tokens)
    zero = torch.zeros_like(next(iter(tokens.values())))
    parts = []
    for number in range(pooling.segments):
        # A column [c, c + 1) that overlaps the segment belongs to it.
        inside = {
            column
            for column in range(length)
            if (column + 1) * pooling.segments > number * length
            and column * pooling.segments < (number + 1) * length
        }
        for name in pooling.statistics:
            for chosen in [[row] for row in range(rows)] if pooling.rows else [range(rows)]:
                by_column = {
                    column: [tokens[row, column] for row in chosen if (row, column) in tokens]
                    for column in sorted(inside)
                }
                there = {column: found for column, found in by_column.items() if found}
                value = slow_statistic(name, there)
                parts.append(zero if value is None else value)
    if pooling.takes_cls:
        parts.append(sum(cls) / len(cls))
    return torch.cat(parts)
