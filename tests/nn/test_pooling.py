import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from poolings import slow_pool

from melpatch.errors import ConfigError
from melpatch.nn.grid import PatchGrid
from melpatch.nn.pooling import (
    Pooler,
    Pooling,
    pool,
    pooled_dim,
    require_final_tokens,
    segment_bounds,
)
from melpatch.nn.summaries import join_all, summarise

SPELLINGS = (
    "mean",
    "max",
    "cls",
    "frequency",
    "std",
    "delta",
    "mean+std+delta",
    "rows+mean+std+delta",
    "rows+max+cls",
    "mean+max+cls+segments=3",
    "rows+std+delta+segments=2",
)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(
    st.sampled_from(SPELLINGS),
    st.integers(1, 4),
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.booleans(),
)
def test_pooling_equals_the_slow_loop(how, rows, own, all_valid):
    columns = max(own)
    own = [columns] * len(own) if all_valid else own
    patches = noise(len(own), rows * columns, 3)
    cls = noise(len(own), 2, 3, seed=1)
    valid = PatchGrid(n_mels=rows, patch=(1, 1), stride=(1, 1)).valid(torch.tensor(own), columns)
    patches[~valid] = 1e6
    pooled = pool(patches, cls, None if all_valid else valid, rows, how)
    assert pooled.shape == (len(own), pooled_dim(3, rows, how))
    for clip, length in enumerate(own):
        tokens = {
            (row, column): patches[clip, row * columns + column]
            for row in range(rows)
            for column in range(length)
        }
        expected = slow_pool(tokens, cls[clip], rows, how)
        torch.testing.assert_close(pooled[clip], expected)


@given(
    st.sampled_from([how for how in SPELLINGS if "segments" not in how]),
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
)
def test_joined_summaries_of_windows_pool_as_all_columns_at_once(how, lengths):
    rows = 2
    pooler = Pooler(Pooling.parse(how), rows)
    grid = noise(rows, sum(lengths), 3)
    # The class token of a window differs from window to window: their mean is weighted by columns.
    cls = noise(len(lengths), 3, seed=1)
    summaries = []
    begin = 0
    for number, length in enumerate(lengths):
        window = grid[:, begin : begin + length].reshape(1, -1, 3)
        columns, weight = pooler.columns(window, cls[number, None, None], None)
        summaries.append(summarise(columns, weight, pooler.fields))
        begin += length
    whole = join_all(torch.cat(summaries), pooler.fields)
    mean = (cls * torch.tensor(lengths)[:, None]).sum(dim=0) / sum(lengths)
    expected = pool(grid.reshape(1, -1, 3), mean[None, None], None, rows, how)[0]
    torch.testing.assert_close(pooler.vector(whole, [whole]), expected)


@given(st.integers(1, 20), st.integers(1, 8))
def test_segments_are_those_of_adaptive_average_pooling(steps, segments):
    values = noise(1, 1, steps)
    expected = torch.nn.functional.adaptive_avg_pool1d(values, segments)[0, 0]
    means = [values[0, 0, begin:end].mean() for begin, end in segment_bounds(steps, segments)]
    torch.testing.assert_close(torch.stack(means), expected)


@given(
    st.sampled_from(SPELLINGS),
    st.integers(1, 3),
    st.integers(1, 5),
    st.data(),
)
def test_any_tokens_may_be_missing(how, rows, columns, data):
    every = [(row, column) for row in range(rows) for column in range(columns)]
    present = data.draw(st.sets(st.sampled_from(every), min_size=1))
    valid = torch.tensor([[place in present for place in every]])
    patches = noise(1, len(every), 3)
    cls = noise(1, 2, 3, seed=1)
    tokens = {place: patches[0, number] for number, place in enumerate(every) if place in present}
    # Whatever stands in their place must not matter.
    patches[~valid] = 1e6
    found = pool(patches, cls, valid, rows, how)[0]
    torch.testing.assert_close(found, slow_pool(tokens, cls[0], rows, how))


def test_patches_left_out_are_not_pooled():
    patches = noise(1, 6, 2)
    # Row 0 has the columns 0 and 2, row 1 the column 2; column 1 has no token.
    valid = torch.tensor([[True, False, True, False, False, True]])
    tokens = patches[0, valid[0]]
    mean = pool(patches, patches[:, :0], valid, 2, "mean")
    torch.testing.assert_close(mean[0], tokens.mean(dim=0))
    by_row = pool(patches, patches[:, :0], valid, 2, "rows")
    torch.testing.assert_close(by_row[0], torch.cat([tokens[:2].mean(dim=0), tokens[2]]))
    largest = pool(patches, patches[:, :0], valid, 2, "max")
    torch.testing.assert_close(largest[0], tokens.amax(dim=0))


def test_the_gradient_of_a_constant_clip_is_finite():
    patches = torch.ones(2, 6, 3, requires_grad=True)
    pool(patches, patches[:, :0], None, 2, "rows+mean+std+delta").sum().backward()
    assert patches.grad.isfinite().all()


def test_half_precision_is_summarised_in_float32():
    patches = torch.full((1, 4096, 1), 1.0 + 2**-7, dtype=torch.bfloat16)
    valid = torch.ones(1, 4096, dtype=torch.bool)
    for mask in (valid, None):
        vector = pool(patches, patches[:, :0], mask, 1, "mean+std")
        assert vector.dtype == torch.float32
        assert vector.tolist() == [[1.0 + 2**-7, 0.0]]


def test_padding_does_not_raise_a_negative_maximum():
    patches = -1 - noise(2, 4, 3).abs()
    valid = torch.tensor([[True, True, True, True], [True, False, False, False]])
    patches[1, 1:] = 0.0
    pooled = pool(patches.bfloat16(), noise(2, 0, 3).bfloat16(), valid, 1, "max")
    assert torch.equal(
        pooled, torch.stack([patches[0].amax(dim=0), patches[1, 0]]).bfloat16().float()
    )


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("frequency", "rows+mean"),
        ("rows", "rows+mean"),
        ("frequency+std", "rows+mean+std"),
        ("delta+std+mean+rows", "rows+mean+std+delta"),
        ("segments=2", "mean+segments=2"),
        ("cls", "cls"),
        ("cls+rows", "rows+mean+cls"),
        ("layers=4,8,12", "mean+layers=4,8,12"),
        ("std+layer-mean=all", "std+layer-mean=all"),
        ("normed-layers=all+cls", "cls+normed-layers=all"),
        ("segments=1", "mean"),
        ("input", "mean+input"),
        ("layers=all+input+rows", "rows+mean+input+layers=all"),
    ],
)
def test_a_pooling_has_one_spelling(text, same):
    pooling = Pooling.parse(text)
    assert str(pooling) == same
    assert Pooling.parse(same) == pooling


@pytest.mark.parametrize(
    ("text", "dim"),
    [
        ("mean", 5),
        ("layers=all", 15),
        ("normed-layers=all", 15),
        ("rows+layers=1,3", 10),
        ("layer-mean=1,3", 5),
    ],
)
def test_tokens_of_several_layers_are_wider(text, dim):
    assert Pooling.parse(text).token_dim(5, num_layers=3) == dim


@pytest.mark.parametrize(
    "text",
    [
        "Mean",
        "",
        "mean+",
        "mean mean",
        "mean+mean",
        "median",
        "segments=0",
        "segments=1.5",
        "segments=9999999999",
        "layers=0",
        "layers=",
        "layers=-1",
        "layers=1,1",
        "layers=1+layer-mean=2",
        "layers=1+normed-layers=2",
        "cls+input",
        "input=2",
        "rows=2",
        "segments",
        3,
        None,
    ],
)
def test_what_spells_no_pooling_is_refused_in_one_line(text):
    with pytest.raises(ConfigError, match=r"pooling = .*; allowed: ") as error:
        Pooling.parse(text)
    assert "\n" not in str(error.value)


def test_a_pooling_of_what_an_encoder_lacks_is_refused():
    with pytest.raises(ConfigError, match="pooling = 'cls'; allowed: mean, std, delta and max"):
        pool(noise(2, 6, 3), noise(2, 0, 3), None, 2, "cls")
    with pytest.raises(ConfigError, match="layers from 1 to 4"):
        Pooling.parse("layers=5").require(4, 0)
    Pooling.parse("layers=4").require(4, 0)


@pytest.mark.parametrize("how", ["layers=1", "mean+input"])
def test_training_keeps_final_tokens_alone(how):
    with pytest.raises(ConfigError, match="allowed: no layers and no input"):
        require_final_tokens(how)
    require_final_tokens("rows+mean+cls")
