from fractions import Fraction

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from nn.slow_blocks import slow_blocks

from melpatch.nn.masking import Hidden, amount, blocks, cluster, cluster_legacy, random, take
from melpatch.rng import integers, stream, uniform

GRIDS = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 512), (8, 64), (8, 5), (16, 128), (64, 1)]
SIDES = [(3, 4, 5), (2,), (1,), (1, 6)]


def keys(count, first=0):
    return torch.arange(first, first + count)


def states(clips, step=0):
    """The two streams that a sampler of squares draws from."""
    return stream(0, "mask", clips, step), stream(0, "ties", clips, step)


def rank(kind, clips, rows, columns, width, step=0, sides=(3, 4, 5)):
    """The priority of a sampler that knows padding."""
    state, ties = states(clips, step)
    if kind == "random":
        return random(state, rows, columns, width)
    return cluster(state, ties, rows, columns, width, sides)


def whole(clips, columns):
    return torch.full_like(clips, columns)


def hidden_sets(hidden):
    return [set(row[real].tolist()) for row, real in zip(hidden.tokens, hidden.valid, strict=True)]


# Slow versions, one clip and one square at a time, on the same random numbers.


def slow_random(state, rows, columns, width, count):
    chance = uniform(state, width, rows)[0]
    patches = [(row, column) for row in range(rows) for column in range(columns)]
    patches.sort(key=lambda patch: float(chance[patch[1], patch[0]]))
    return {row * width + column for row, column in patches[:count]}


def slow_cluster(state, ties, rows, columns, width, sides, count):
    """Squares until enough patches are covered; after the documented number of them, chance alone."""
    side = sides[int(integers(state, 0, len(sides), 1))]
    squares = 4 * (rows + max(sides) - 1) * (columns + max(sides) - 1) // min(sides) ** 2 + 8
    place, chance = uniform(state, squares + 1, 2)[0], uniform(ties, width, rows)[0]
    everything = {(row, column) for row in range(rows) for column in range(columns)}
    covered = []
    for square in range(1, squares + 2):
        top = int(place[square, 0] * (rows + side - 1)) - (side - 1) if square <= squares else 0
        left = int(place[square, 1] * (columns + side - 1)) - (side - 1) if square <= squares else 0
        cells = {(top + i, left + j) for i in range(side) for j in range(side)} if square <= squares else everything
        new = (cells & everything) - set(covered)
        covered += sorted(new, key=lambda patch: float(chance[patch[1], patch[0]]))
        if len(covered) >= count:
            break
    return {row * width + column for row, column in covered[:count]}


def slow_legacy(state, rows, columns, sides, count):
    """The published loop: a set that grows upward and wraps; its lowest numbers are kept."""
    side = sides[int(integers(state, 0, len(sides), 1))]
    starts = iter(integers(state, 0, rows * columns, 10 * rows * columns)[0, 1:].tolist())
    covered = set()
    while len(covered) <= count:
        start = next(starts)
        cells = (start + columns * i + j for i in range(side) for j in range(side))
        covered |= {cell for cell in cells if 0 < cell < rows * columns}
    return set(sorted(covered)[:count])


@st.composite
def ragged(draw):
    """Rows, and the columns of clips that may be shorter than their batch is wide."""
    rows, width = draw(st.integers(1, 9)), draw(st.integers(1, 24))
    columns = draw(st.lists(st.integers(1, width), min_size=1, max_size=4))
    share = draw(st.sampled_from([0.02, 0.3, 0.5, 0.75, 0.98, 0.999]))
    return rows, width, torch.tensor(columns), share


def hide(priority, columns, rows, width, share):
    counts = amount(columns * rows, ratio=share, number=None, window=1)
    most = int(amount(torch.tensor([rows * width]), ratio=share, number=None, window=1))
    return take(priority, counts, most)


@given(ragged(), st.sampled_from(["random", "cluster"]), st.sampled_from(SIDES), st.integers(0, 10**6))
def test_masks_are_those_of_the_slow_loop(case, kind, sides, first):
    rows, width, columns, share = case
    clips = keys(len(columns), first)
    found = hidden_sets(hide(rank(kind, clips, rows, columns, width, sides=sides), columns, rows, width, share))
    for number, own in enumerate(columns.tolist()):
        state, ties = states(clips[number : number + 1])
        count = int(amount(columns[number : number + 1] * rows, ratio=share, number=None, window=1))
        if kind == "random":
            assert found[number] == slow_random(state, rows, own, width, count)
        else:
            assert found[number] == slow_cluster(state, ties, rows, own, width, sides, count)


@given(
    st.sampled_from([(1, 9), (2, 2), (3, 5), (8, 8), (4, 16)]),
    st.sampled_from([(3, 4, 5), (2,), (2, 6)]),
    st.floats(0, 1),
    st.integers(0, 10**6),
)
def test_legacy_masks_are_those_of_the_published_loop(grid, sides, share, first):
    rows, columns = grid
    count = 1 + int(share * (rows * columns - 4))
    clips = keys(3, first)
    priority = cluster_legacy(stream(0, "mask", clips), rows, columns, count, sides)
    found = hidden_sets(take(priority, whole(clips, count), count))
    assert found == [slow_legacy(stream(0, "mask", clip), rows, columns, sides, count) for clip in clips.split(1)]


@pytest.mark.parametrize("grid", GRIDS)
def test_legacy_never_hides_patch_0_even_where_the_published_loop_does_not_end(grid):
    tokens, clips = grid[0] * grid[1], keys(5)
    for count in {0, tokens // 2, max(0, tokens - 2), tokens - 1}:
        hidden = take(cluster_legacy(stream(0, "mask", clips), *grid, count), whole(clips, count), count).mask(tokens)
        assert hidden.sum(dim=1).eq(count).all()
        assert not hidden[:, 0].any()


@given(ragged(), st.sampled_from(["random", "cluster"]))
@example((9, 90, torch.tensor([40] * 8 + [90]), 0.999), "cluster")  # more than the clip's own squares reach
def test_a_clip_has_the_same_mask_alone_and_beside_a_longer_one(case, kind):
    rows, width, columns, share = case
    clips = keys(len(columns))
    together = hide(rank(kind, clips, rows, columns, width), columns, rows, width, share).mask(rows * width)
    together = together.view(len(clips), rows, width)
    for number, own in enumerate(columns.tolist()):
        one, its_columns = clips[number : number + 1], columns[number : number + 1]
        alone = hide(rank(kind, one, rows, its_columns, own), its_columns, rows, own, share).mask(rows * own)
        assert torch.equal(together[number, :, :own], alone.view(rows, own))
        assert not together[number, :, own:].any()


@pytest.mark.parametrize("share", [0.02, 0.75, 0.98])
@pytest.mark.parametrize("kind", ["random", "cluster"])
@pytest.mark.parametrize("grid", GRIDS)
def test_exact_counts_on_every_grid(grid, kind, share):
    (rows, width), clips = grid, keys(6)
    columns = (keys(6) * width // 6).clamp(min=1)
    hidden = hide(rank(kind, clips, rows, columns, width), columns, rows, width, share)
    mask = hidden.mask(rows * width).view(6, rows, width)
    for number, own in enumerate(columns.tolist()):
        patches = rows * own
        wanted = min(patches - 1, int(Fraction(str(share)) * patches))
        assert mask[number].sum() == hidden.valid[number].sum() == wanted
        assert mask[number, :, :own].sum() == wanted


@pytest.mark.parametrize("kind", ["random", "cluster", "legacy"])
def test_keys_and_steps_have_their_own_masks(kind):
    clips, seen = keys(20), set()
    for step in range(20):
        state, _ = states(clips, step)
        legacy = kind == "legacy"
        priority = cluster_legacy(state, 8, 20, 80) if legacy else rank(kind, clips, 8, whole(clips, 20), 20, step)
        seen |= {tuple(row) for row in take(priority, whole(clips, 80), 80).mask(160).tolist()}
    assert len(seen) == 400


def masks(kind, draws, rows, columns, count):
    """Whether each patch is hidden, (draw, row, column)."""
    drawn = []
    for clips in keys(draws).split(100):
        priority = rank(kind, clips, rows, whole(clips, columns), columns)
        drawn.append(take(priority, whole(clips, count), count).mask(rows * columns))
    return torch.cat(drawn).view(draws, rows, columns).double()


def deviations(values, expected):
    """How many standard errors the means over all draws are from what is expected."""
    return (values.mean(dim=0) - expected) / (values.var(dim=0) / len(values)).sqrt()


@pytest.mark.parametrize(("rows", "columns", "count"), [(8, 64, 400), (8, 20, 120), (16, 32, 384)])
def test_squares_favour_no_part_of_the_grid(rows, columns, count):
    drawn = masks("cluster", 3000, rows, columns, count)
    share = count / (rows * columns)
    for axis in (1, 2):
        line = drawn.mean(dim=3 - axis)
        # By symmetry a row and its mirror image are hidden equally often; the published sampler differs by 0.4 here.
        mirrored = (line - line.flip(1))[:, : line.shape[1] // 2]
        assert deviations(mirrored, 0.0).abs().max() < 4
        error = (line.var(dim=0) / len(line)).sqrt()
        assert ((line.mean(dim=0) - share).abs() < 0.01 + 3 * error).all()


def test_single_patches_are_hidden_equally_often():
    drawn = masks("random", 3000, 8, 20, 120)
    assert deviations(drawn.flatten(1), 0.75).abs().max() < 4.2
    neighbours = (drawn[:, :, 1:] * drawn[:, :, :-1]).sum(dim=(1, 2))
    assert abs(deviations(neighbours[:, None], 8 * 19 * 0.75 * 119 / 159)) < 4


def test_squares_hide_neighbours_together():
    """In a block of hidden patches most neighbours are hidden too; that is what makes the task hard."""
    scattered, clustered = (
        (drawn[:, :, 1:] * drawn[:, :, :-1]).sum(dim=(1, 2)).mean()
        for drawn in (masks(kind, 200, 8, 64, 100) for kind in ("random", "cluster"))
    )
    assert clustered > 2.5 * scattered


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=5), st.integers(1, 99))
def test_amount_of_a_ratio(patches, percent):
    found = amount(torch.tensor(patches), ratio=percent / 100, number=None, window=1)
    assert found.tolist() == [min(n * percent // 100, n - 1) for n in patches]


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=5), st.integers(1, 2000), st.integers(1, 2000))
def test_amount_of_a_number(patches, number, window):
    found = amount(torch.tensor(patches), ratio=0.5, number=number, window=window)
    assert found.tolist() == [min(n * number // window, n - 1) for n in patches]


def test_amount_of_the_paper_is_exact():
    assert amount(torch.tensor([512, 256, 0]), ratio=0.5, number=400, window=512).tolist() == [400, 200, 0]


@given(st.lists(st.integers(0, 7), min_size=1, max_size=4), st.integers(0, 1000))
def test_take_hides_the_first_of_the_ranking_and_no_more(counts, seed):
    priority = torch.rand(len(counts), 8, generator=torch.Generator().manual_seed(seed))
    hidden = take(priority, torch.tensor(counts), max(counts))
    assert hidden.tokens.shape[1] == max(1, *counts)
    assert hidden.valid.sum(dim=1).tolist() == counts
    mask = hidden.mask(8)
    for row, chosen, count in zip(priority, mask, counts, strict=True):
        assert set(chosen.nonzero().flatten().tolist()) == set(sorted(range(8), key=lambda i: row[i])[:count])


def test_gather_follows_the_token_numbers():
    values = torch.arange(24.0).view(2, 4, 3)
    hidden = Hidden(torch.tensor([[3, 0], [1, 2]]), torch.tensor([[True, True], [True, False]]))
    assert torch.equal(hidden.gather(values), torch.stack([values[0, [3, 0]], values[1, [1, 2]]]))
    assert hidden.mask(4).tolist() == [[True, False, False, True], [False, True, False, False]]


@st.composite
def clips_of_pixels(draw):
    """Mels, the frames of clips that may be shorter than their batch is wide, and how they are to be hidden."""
    n_mels = draw(st.integers(1, 40))
    frames = draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    shares = draw(st.lists(st.floats(0.01, 0.9), min_size=len(frames), max_size=len(frames)))
    settings = {
        "block_share": draw(st.sampled_from([0.1, 0.3, 0.5, 1.0])),
        "align": draw(st.sampled_from([(1, 1), (4, 4), (16, 16), (5, 2), (40, 1)])),
    }
    return n_mels, torch.tensor(frames), torch.tensor(shares, dtype=torch.float64), settings


def hide_blocks(n_mels, frames, shares, settings, first=0, extra=0):
    """Masks of clips with consecutive keys, some frames wider than the longest."""
    state = stream(0, "blocks", keys(len(frames), first))
    return blocks(state, frames, n_mels, int(frames.max()) + extra, shares, **settings)


def largest(size, unit, block_share):
    """The longest side of a rectangle."""
    whole = -(-size // unit) * unit
    return round((max(int(block_share * whole), unit + 1) - 1) / unit) * unit


@given(clips_of_pixels(), st.integers(0, 10**6))
def test_blocks_are_those_of_the_slow_loop(case, first):
    n_mels, frames, shares, settings = case
    masks = hide_blocks(n_mels, frames, shares, settings, first)
    for clip, (own, share) in enumerate(zip(frames.tolist(), shares.tolist(), strict=True)):
        slow, _ = slow_blocks(stream(0, "blocks", keys(1, first + clip)), own, n_mels, share, **settings)
        assert torch.equal(masks[clip, :, :own], torch.from_numpy(slow))


@given(clips_of_pixels())
def test_blocks_reach_their_share_by_less_than_one_of_them_and_stay_within_the_clip(case):
    n_mels, frames, shares, settings = case
    masks = hide_blocks(n_mels, frames, shares, settings, extra=3)
    for mask, own, share in zip(masks, frames.tolist(), shares.tolist(), strict=True):
        unit = settings["align"]
        block = largest(n_mels, unit[0], settings["block_share"]) * largest(own, unit[1], settings["block_share"])
        beyond = int(mask.sum()) - share * own * n_mels
        assert -1e-6 < beyond < block
        assert not mask[:, own:].any()


@given(clips_of_pixels())
def test_a_clip_has_the_same_blocks_alone_and_beside_a_longer_one(case):
    n_mels, frames, shares, settings = case
    together = hide_blocks(n_mels, frames, shares, settings, extra=5)
    for clip, own in enumerate(frames.tolist()):
        one = slice(clip, clip + 1)
        alone = hide_blocks(n_mels, frames[one], shares[one], settings, first=clip)
        assert torch.equal(together[one, :, :own], alone)


@given(clips_of_pixels())
def test_aligned_blocks_hide_whole_units(case):
    n_mels, frames, shares, settings = case
    high, long = settings["align"]
    for mask, own in zip(hide_blocks(n_mels, frames, shares, settings), frames.tolist(), strict=True):
        units = [cell for row in mask[:, :own].split(high) for cell in row.split(long, dim=1)]
        assert all(unit.all() or not unit.any() for unit in units)


@pytest.mark.parametrize("align", [(1, 1), (4, 4)])
@pytest.mark.parametrize("size", range(1, 14))
def test_blocks_reach_every_pixel_of_the_smallest_clips(size, align):
    frames, shares = torch.full((600,), size), torch.full((600,), 0.3)
    assert hide_blocks(size, frames, shares, {"align": align}).any(dim=0).all()


@pytest.mark.parametrize("share", [0.9995, 1.0])
@pytest.mark.parametrize(("n_mels", "own", "align"), [(40, 100, (1, 1)), (128, 590, (8, 8))])
def test_what_all_rectangles_together_leave_short_is_taken_from_the_start(n_mels, own, align, share):
    slow, used = slow_blocks(stream(0, "blocks", keys(1)), own, n_mels, share, align=align)
    assert len(used) == 384
    mask = hide_blocks(n_mels, torch.tensor([own]), torch.tensor([share]).double(), {"align": align}, extra=2)
    assert torch.equal(mask[0, :, :own], torch.from_numpy(slow))
    assert share < 1 or mask[0, :, :own].all()
    assert not mask[0, :, own:].any()


def test_autocast_leaves_blocks_as_they_are():
    frames, shares = torch.tensor([592, 300]), torch.tensor([0.7, 0.5])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = hide_blocks(128, frames, shares, {})
    assert torch.equal(under, hide_blocks(128, frames, shares, {}))


def test_keys_and_steps_have_their_own_blocks():
    frames, shares = torch.full((20,), 20), torch.full((20,), 0.5)
    seen = set()
    for step in range(20):
        seen |= {tuple(mask.flatten().tolist()) for mask in blocks(states(keys(20), step)[0], frames, 8, 20, shares)}
    assert len(seen) == 400
