from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nn.slow_samplers import slow_legacy, slow_sampler

from melpatch.errors import ConfigError
from melpatch.nn.grid import PatchGrid
from melpatch.nn.mask_samplers import PADDING
from melpatch.nn.masking import Masking, Subset, first_patches, num_masked, split_patches
from melpatch.rng import stream

KINDS = [
    "random",
    "cluster",
    "block",
    "inverse_block",
    "inverse_block_legacy",
    "span",
    "time",
    "frequency",
    "time_legacy",
    "frequency_legacy",
]
GRIDS = [(1, 2), (2, 1), (2, 2), (1, 512), (8, 64), (8, 5), (64, 1)]


def keys(count, first=0):
    return torch.arange(first, first + count)


def masking(rows, **settings):
    """Return a masking of a grid whose patches are one pixel."""
    return Masking(Masking.Config(**settings), PatchGrid(n_mels=rows, patch=(1, 1), stride=(1, 1)))


def padding(rows, columns, width):
    """Return which tokens are valid."""
    valid = torch.arange(width) < columns[:, None]
    return valid[:, None].expand(-1, rows, -1).flatten(1)


def hide(method, columns, width, first=0, **settings):
    valid = padding(method.grid.rows, columns, width)
    return method(keys(len(columns), first), width, valid, **({"seed": 0, "step": 0} | settings))


def sets(subset):
    return [set(row[real].tolist()) for row, real in zip(subset.indices, subset.valid, strict=True)]


@st.composite
def ragged(draw):
    """Draw settings, rows, width, and the columns of clips that may be shorter than the batch."""
    rows = draw(st.integers(1, 9))
    width = draw(st.integers(1, 24))
    columns = draw(st.lists(st.integers(1, width), min_size=1, max_size=4))
    settings = {"ratio": draw(st.sampled_from([0.02, 0.3, 0.5, 0.75, 0.98, 0.999]))}
    if draw(st.booleans()):
        settings = {"num_masked": draw(st.integers(1, 2 * rows * width))}
    return rows, width, torch.tensor(columns), settings


@pytest.mark.parametrize("kind", KINDS)
@given(ragged(), st.sampled_from([None, (2,), (1, 6)]), st.integers(0, 10**6))
def test_masked_and_visible_patches_equal_the_slow_loop(kind, case, sides, first):
    rows, width, columns, settings = case
    masked = hide(masking(rows, kind=kind, sides=sides, **settings), columns, width, first)
    for number, own in enumerate(columns.tolist()):
        key = keys(1, first + number)
        streams = stream(0, "mask", key), stream(0, "mask ties", key)
        share = settings.get("ratio", settings.get("num_masked", 0) / (rows * width))
        count = min(rows * own - 1, int(rows * own * share + 1e-9))
        cover = rows * own - count + int(0.07 * rows * own + 1e-9)
        default = (5,) if kind.startswith("inverse_block") else (3, 4, 5)
        order = slow_sampler(kind, *streams, rows, own, width, sides or default, 10, cover)
        assert sets(masked.masked)[number] == set(order[:count])
        assert sets(masked.visible)[number] == set(order[count:])


@pytest.mark.parametrize("kind", KINDS)
@given(case=ragged())
def test_masked_and_visible_patches_together_are_the_valid_patches(kind, case):
    rows, width, columns, settings = case
    masked = hide(masking(rows, kind=kind, **settings), columns, width)
    tokens = rows * width
    hidden, visible = (part.as_mask(tokens) for part in masked)
    assert not (hidden & visible).any()
    assert torch.equal(hidden | visible, padding(rows, columns, width))
    assert visible.any(dim=1).all()
    for part in masked:
        assert torch.equal(part.as_mask(tokens).sum(dim=1), part.valid.sum(dim=1))
        assert all(len(set(row)) == len(row) for row in part.indices.tolist())
    assert all(row[real].diff().gt(0).all() for row, real in zip(*masked.visible, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@given(case=ragged())
def test_a_clip_has_the_same_mask_alone_padded_and_beside_a_longer_clip(kind, case):
    rows, width, columns, settings = case
    method = masking(rows, kind=kind, **settings)
    method.window = rows * width
    together = hide(method, columns, width)
    for number, own in enumerate(columns.tolist()):
        alone = method(keys(1, number), own, seed=0, step=0)
        padded = hide(method, columns[number : number + 1], width + 7, first=number)
        for part, wide, narrow in zip(together, padded, alone, strict=True):
            mask = part.as_mask(rows * width).view(-1, rows, width)[number, :, :own]
            assert torch.equal(narrow.as_mask(rows * own).view(rows, own), mask)
            assert torch.equal(wide.as_mask(rows * (width + 7)).view(rows, -1)[:, :own], mask)


@given(ragged())
def test_the_visible_width_is_that_of_a_clip_without_padding(case):
    rows, width, columns, settings = case
    method = masking(rows, **settings)
    full = method(keys(1), width, seed=0, step=0).visible
    assert full.valid.all()
    assert hide(method, columns, width).visible.indices.shape[1] == full.indices.shape[1]


@pytest.mark.parametrize("share", [0.02, 0.75, 0.98])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS)
def test_counts_are_exact_on_every_grid(grid, kind, share):
    rows, width = grid
    columns = (keys(6) * width // 6).clamp(min=1)
    hidden = hide(masking(rows, kind=kind, ratio=share), columns, width).masked
    wanted = [
        min(rows * own - 1, int(Fraction(str(share)) * rows * own)) for own in columns.tolist()
    ]
    assert hidden.valid.sum(dim=1).tolist() == wanted


@pytest.mark.parametrize("kind", [*KINDS, "cluster_legacy"])
def test_seed_step_purpose_and_key_each_change_the_mask(kind):
    method = masking(8, kind=kind, ratio=0.7)
    clips = keys(10)
    seen = set()
    for seed, step, purpose in [(0, 0, "mask"), (1, 0, "mask"), (0, 1, "mask"), (0, 0, "second")]:
        again = [
            method(clips, 20, seed=seed, step=step, purpose=purpose).masked.as_mask(160)
            for _ in range(2)
        ]
        assert torch.equal(*again)
        seen |= {tuple(row) for row in again[0].tolist()}
    assert len(seen) == 40


def test_legacy_squares_equal_the_published_loop():
    masked = masking(8, kind="cluster_legacy")(keys(20), 16, seed=0, step=0)
    slow = [slow_legacy(stream(0, "mask", key), 8, 16, (3, 4, 5), 96) for key in keys(20).split(1)]
    assert sets(masked.masked) == slow
    assert sets(masked.visible) == [set(range(128)) - hidden for hidden in slow]


def test_legacy_squares_are_refused_with_padding():
    with pytest.raises(
        ConfigError, match=r"objective.mask.kind = 'cluster_legacy'; .*--short-clips repeat"
    ):
        hide(masking(8, kind="cluster_legacy"), torch.tensor([3, 7]), 7)


def test_a_longer_span_masks_longer_runs():
    runs = []
    for length in (2, 20):
        hidden = masking(1, kind="span", span=length, ratio=0.5)(
            keys(50), 200, seed=0, step=0
        ).masked
        runs.append((hidden.as_mask(200).diff(dim=1)).sum())
    assert runs[1] < 0.3 * runs[0]


def test_a_larger_surplus_leaves_fewer_patches_visible_outside_of_squares():
    """Of the published large EAT, which has 7 squares where 0.07 gives 6."""
    lone = []
    for surplus in (0.0, 0.07, 0.1):
        method = masking(8, kind="inverse_block_legacy", ratio=0.75, surplus=surplus)
        visible = method(keys(300), 64).visible.as_mask(512).view(-1, 8, 64)
        assert (visible.sum(dim=(1, 2)) == 128).all()
        lone.append((visible.diff(dim=2) != 0).sum().item())
    assert lone[0] > 1.1 * lone[1] > 1.2 * lone[2]


def test_begin_sets_the_window_that_the_number_refers_to():
    method = masking(8, num_masked=40)
    assert method.window is None
    assert hide(method, torch.tensor([5, 10]), 10).masked.valid.sum(dim=1).tolist() == [20, 40]
    method.begin(20)
    assert method.window == 160
    assert hide(method, torch.tensor([5, 10]), 10).masked.valid.sum(dim=1).tolist() == [10, 20]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"ratio": 0.999},
            r"objective.mask.ratio = 0.999; allowed: 1 to 95 .* since 12 frames give 8 x 12 = 96; mask",
        ),
        ({"ratio": 0.01}, r"objective.mask.ratio = 0.01; allowed: 1 to 95"),
        ({"num_masked": 96}, r"objective.mask.num_masked = 96; allowed: 1 to 95"),
        (
            {"num_masked": 94, "kind": "cluster_legacy"},
            r"objective.mask.num_masked = 94; allowed: 1 to 93",
        ),
    ],
)
def test_settings_that_leave_nothing_visible_or_masked_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        masking(8, **settings).begin(12)


@pytest.mark.parametrize(
    "settings", [{"ratio": 0.98}, {"ratio": 0.011}, {"num_masked": 1}, {"num_masked": 95}]
)
def test_the_limits_of_the_allowed_range_work(settings):
    method = masking(8, **settings)
    method.begin(12)
    hidden = method(keys(1), 12, seed=0, step=0).masked
    assert hidden.valid.sum() == settings.get("num_masked", int(96 * settings.get("ratio", 0)))


def test_overlapping_patches_are_refused():
    with pytest.raises(
        ConfigError, match=r"encoder.stride = \(8, 8\); allowed: \(16, 16\); overlapping patches"
    ):
        Masking(Masking.Config(), PatchGrid(n_mels=128, stride=(8, 8))).begin(98)


def test_errors_name_the_settings_as_the_user_typed_them():
    grid = PatchGrid(n_mels=128)
    for settings, name in (
        ({"ratio": 0.001}, "mask_ratio = 0.001"),
        ({"num_masked": 512}, "num_masked = 512"),
    ):
        with pytest.raises(ConfigError, match=name):
            Masking(Masking.Config(**settings), grid, fields=("mask_ratio", "num_masked")).begin(
                1024
            )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 0.0}, "ratio = 0.0"),
        ({"ratio": 1.0}, "ratio = 1.0"),
        ({"num_masked": 0}, "num_masked = 0"),
        ({"sides": ()}, "sides"),
        ({"sides": (3, 0)}, "sides"),
        ({"span": 0}, "span = 0"),
        ({"surplus": -0.1}, r"surplus = -0\.1"),
        ({"surplus": 1.0}, r"surplus = 1\.0"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        Masking.Config(**settings)


@given(st.integers(1, 2000), st.integers(1, 99))
def test_the_number_of_masked_patches_at_a_ratio(patches, percent):
    masked = num_masked(patches, percent / 100, None, 1)
    assert masked == min(patches * percent // 100, patches - 1)


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 2000))
def test_the_number_of_masked_patches_at_a_number_per_window(patches, number, window):
    masked = num_masked(patches, 0.5, number, window)
    assert masked == min(patches * number // window, patches - 1)


def test_the_number_of_masked_patches_of_the_paper_is_exact():
    assert [num_masked(patches, 0.5, 400, 512) for patches in (512, 256, 0)] == [400, 200, 0]


@given(st.floats(0.01, 0.99), st.integers(1, 600), st.integers(1, 600))
def test_more_patches_never_leave_fewer_visible(ratio, number, window):
    for wanted in (None, number):
        visible = [n - num_masked(n, ratio, wanted, window) for n in range(1, 600)]
        assert sorted(visible) == visible


@pytest.mark.parametrize("number", [None, 1, 37, 400, 511])
def test_the_counts_equal_those_computed_in_float64(number):
    """Counts are computed in integers, since Apple's GPUs lack float64."""
    patches = torch.arange(0, 4096)
    for ratio in (0.01, 0.1, 0.3, 1 / 3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.98, 0.999):
        share = ratio if number is None else number / 512
        wanted = torch.floor(patches.double() * share + 1e-9).long()
        expected = torch.minimum(wanted, (patches - 1).clamp(min=0))
        masked = [num_masked(n, ratio, number, 512) for n in range(4096)]
        assert masked == expected.tolist()


def test_a_mask_without_keys_uses_the_position_in_the_batch():
    method = masking(8, ratio=0.7)
    for alone, keyed in zip(method(clips=4, columns=20), method(keys(4), 20), strict=True):
        assert torch.equal(alone.indices, keyed.indices)
    assert not torch.equal(method(4, 20, seed=1).masked.indices, method(4, 20).masked.indices)
    padded = method(2, 20, padding(8, torch.tensor([7, 20]), 20))
    assert padded.masked.valid.sum(dim=1).tolist() == [39, 112]


@given(st.lists(st.integers(0, 7), min_size=1, max_size=4), st.integers(0, 1000))
def test_take_masks_the_first_of_the_ranking_and_no_more(counts, seed):
    generator = torch.Generator().manual_seed(seed)
    priority = torch.rand(len(counts), 8, generator=generator).argsort(dim=1)
    hidden = first_patches(priority, torch.tensor(counts), max(counts))
    assert hidden.indices.shape[1] == max(1, *counts)
    assert hidden.valid.sum(dim=1).tolist() == counts
    mask = hidden.as_mask(8)
    for row, chosen, count in zip(priority, mask, counts, strict=True):
        assert set(chosen.nonzero().flatten().tolist()) == set(
            sorted(range(8), key=lambda i: row[i])[:count]
        )


def test_split_shows_the_valid_patches_that_are_not_masked():
    priority = torch.tensor([[3, 1, 2, 0], [5, 4, PADDING, PADDING]])
    masked = split_patches(priority, torch.tensor([2, 1]), 2)
    assert sets(masked.masked) == [{3, 1}, {1}]
    assert sets(masked.visible) == [{0, 2}, {0}]


SUBSET = Subset(torch.tensor([[3, 0], [1, 2]]), torch.tensor([[True, True], [True, False]]))


def test_gather_follows_the_token_numbers():
    values = torch.arange(24.0).view(2, 4, 3)
    assert torch.equal(SUBSET.gather(values), torch.stack([values[0, [3, 0]], values[1, [1, 2]]]))
    assert SUBSET.as_mask(4).tolist() == [[True, False, False, True], [False, True, False, False]]


def test_scatter_writes_at_valid_places_only():
    values = -1 - torch.arange(12.0).view(2, 2, 3)
    into = torch.arange(24.0).view(2, 4, 3)
    written = SUBSET.scatter(values, into)
    mask = SUBSET.as_mask(4)
    assert torch.equal(SUBSET.gather(written)[SUBSET.valid], values[SUBSET.valid])
    assert torch.equal(written[~mask], into[~mask])


@pytest.mark.parametrize(
    ("rows", "settings", "columns"),
    [
        (8, {"ratio": 0.75}, 1),
        (1, {"ratio": 0.75}, 2),
        (1, {"ratio": 0.3}, 4),
        (2, {"num_masked": 3}, 4),
        (1, {"num_masked": 9}, 2),
    ],
)
def test_the_shortest_clip_of_which_a_patch_is_masked(rows, settings, columns):
    method = masking(rows, **settings)
    assert method.least_columns(10) == columns
    method.begin(10)
    own = torch.arange(1, 11)
    masked = hide(method, own, 10).masked.valid.sum(dim=1)
    assert own[masked > 0].min() == columns


@pytest.mark.parametrize("kind", ["random", "cluster_legacy"])
def test_a_window_without_a_patch_to_mask_is_refused_with_what_helps(kind):
    with pytest.raises(ConfigError, match=r"since 1 frames give 1 x 1 = 1 .*longer segments"):
        masking(1, kind=kind).begin(1)
