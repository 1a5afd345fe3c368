"""Slow mask samplers: one clip, block and patch at a time, with our random numbers."""

from melpatch.rng import integers, uniform


def chances(ties, rows, columns, width):
    """Return a random number for each real patch (row, column); it breaks ties."""
    drawn = uniform(ties, width, rows)[0].tolist()
    return {(row, column): drawn[column][row] for row in range(rows) for column in range(columns)}


def groups(blocks, chance):
    """Return the patches that each block adds, then those of no block; chance orders each group."""
    left = dict(chance)
    ranked = []
    for cells in blocks:
        ranked.append(sorted((patch for patch in cells if patch in left), key=chance.get))
        for patch in ranked[-1]:
            del left[patch]
        if not left:
            break
    return [*ranked, sorted(left, key=chance.get)]


def corner(number, size, side):
    """Return where a block starts: anywhere that it still overlaps an axis of this size."""
    return int(number * (size + side - 1)) - (side - 1)


def cells(place, rows, columns, height, length):
    top = corner(place[0], rows, height)
    left = corner(place[1], columns, length)
    return [(top + i, left + j) for i in range(height) for j in range(length)]


def squares(state, rows, columns, sides):
    side = sides[int(integers(state, 0, len(sides), 1))]
    number = 4 * (rows + max(sides) - 1) * (columns + max(sides) - 1) // min(sides) ** 2 + 8
    return (
        cells(place, rows, columns, side, side) for place in uniform(state, number + 1, 2)[0, 1:]
    )


def rectangles(state, rows, columns, sides):
    number = 4 * (rows + max(sides) - 1) * (columns + max(sides) - 1) // min(sides) ** 2 + 8
    for place in uniform(state, number, 4)[0]:
        height, length = (sides[int(place[axis] * len(sides))] for axis in (2, 3))
        yield cells(place, rows, columns, height, length)


def spans(state, rows, columns, length):
    number = 4 * (rows * columns + length - 1) // length + 8
    for _, place in uniform(state, number, 2)[0]:
        start = corner(place, rows * columns, length)
        yield [(patch % rows, patch // rows) for patch in range(start, start + length)]


def centred_squares(state, rows, columns, sides, cover):
    """Return the patches of squares around random places, as many as would cover so much."""
    side = sides[int(integers(state, 0, len(sides), 1))]
    covered = set()
    for place in uniform(state, max(1, cover // side**2) + 1, 2)[0, 1:]:
        top = int(place[0] * rows) - side // 2
        left = int(place[1] * columns) - side // 2
        covered |= {(top + i, left + j) for i in range(side) for j in range(side)}
    return covered


def slow_sampler(kind, state, ties, rows, columns, width, sides, length, cover):
    """Return the token numbers of a clip's valid patches in the order of masking."""
    chance = chances(state if kind == "random" else ties, rows, columns, width)
    if kind == "random":
        ranked = groups([], chance)
    elif kind == "cluster":
        ranked = groups(squares(state, rows, columns, sides), chance)
    elif kind == "inverse_block":
        ranked = groups(squares(state, rows, columns, sides), chance)[::-1]
    elif kind == "inverse_block_legacy":
        ranked = groups([centred_squares(state, rows, columns, sides, cover)], chance)[::-1]
    elif kind == "block":
        ranked = groups(rectangles(state, rows, columns, sides), chance)
    elif kind == "span":
        ranked = groups(spans(state, rows, columns, length), chance)
    elif kind == "time":
        order = sorted(range(columns), key=uniform(state, columns)[0].tolist().__getitem__)
        ranked = groups(([(row, column) for row in range(rows)] for column in order), chance)
    elif kind == "frequency":
        order = sorted(range(rows), key=uniform(state, rows)[0].tolist().__getitem__)
        ranked = groups(([(row, column) for column in range(columns)] for row in order), chance)
    elif kind in ("time_legacy", "frequency_legacy"):
        in_time = [(row, column) for column in range(columns) for row in range(rows)]
        runs = [in_time[start : start + columns] for start in range(0, rows * columns, columns)]
        pieces = runs if kind == "time_legacy" else [*zip(*runs, strict=True)]
        order = sorted(range(len(pieces)), key=uniform(state, len(pieces))[0].tolist().__getitem__)
        ranked = groups((pieces[number] for number in order), chance)
    return [row * width + column for group in ranked for row, column in group]


def slow_legacy(state, rows, columns, sides, count):
    """Return the masked patches of the published loop, which keeps the lowest numbers of a set."""
    side = sides[int(integers(state, 0, len(sides), 1))]
    starts = iter(integers(state, 0, rows * columns, 10 * rows * columns)[0, 1:].tolist())
    covered = set()
    while len(covered) <= count:
        start = next(starts)
        block = (start + columns * i + j for i in range(side) for j in range(side))
        covered |= {cell for cell in block if 0 < cell < rows * columns}
    return set(sorted(covered)[:count])
