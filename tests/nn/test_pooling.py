import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melpatch.errors import ConfigError
from melpatch.nn.grid import PatchGrid
from melpatch.nn.pooling import POOLINGS, masked_mean, pool, pooled_dim


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_pool(patches, cls, rows, columns, own, how):
    """Return one clip in which only the first columns are valid."""
    by_row = [[patches[row * columns + column] for column in range(own)] for row in range(rows)]
    if how == "cls":
        return sum(cls) / len(cls)
    if how == "mean":
        return sum(token for row in by_row for token in row) / (rows * own)
    if how == "max":
        return torch.stack(
            [
                max(values)
                for values in zip(*(token for row in by_row for token in row), strict=True)
            ]
        )
    return torch.cat([sum(row) / own for row in by_row])


@given(
    st.sampled_from(POOLINGS),
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
        expected = slow_pool(patches[clip], cls[clip], rows, columns, length, how)
        torch.testing.assert_close(pooled[clip], expected)


def test_half_precision_is_averaged_in_float32():
    values = torch.full((1, 4096, 1), 1.0 + 2**-7, dtype=torch.bfloat16)
    valid = torch.ones(1, 4096, dtype=torch.bool)
    for mask in (valid, None):
        mean = masked_mean(values, mask)
        assert mean.dtype == torch.float32
        assert mean.item() == 1.0 + 2**-7


def test_without_valid_tokens_the_result_is_zero():
    assert masked_mean(noise(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)).eq(0).all()


def test_padding_does_not_raise_a_negative_maximum():
    patches = -1 - noise(2, 4, 3).abs()
    valid = torch.tensor([[True, True, True, True], [True, False, False, False]])
    patches[1, 1:] = 0.0
    pooled = pool(patches.bfloat16(), noise(2, 0, 3).bfloat16(), valid, 1, "max")
    assert torch.equal(
        pooled, torch.stack([patches[0].amax(dim=0), patches[1, 0]]).bfloat16().float()
    )


def test_class_pooling_without_class_tokens_is_refused():
    with pytest.raises(ConfigError, match="pooling = 'cls'; allowed: 'mean', 'max' or 'frequency'"):
        pool(noise(2, 6, 3), noise(2, 0, 3), None, 2, "cls")
