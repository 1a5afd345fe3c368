import torch

from melpatch.nn.masked import masked_max, masked_mean


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_half_precision_is_averaged_in_float32():
    values = torch.full((1, 4096, 1), 1.0 + 2**-7, dtype=torch.bfloat16)
    valid = torch.ones(1, 4096, dtype=torch.bool)
    for mask in (valid, None):
        mean = masked_mean(values, mask)
        assert mean.dtype == torch.float32
        assert mean.item() == 1.0 + 2**-7


def test_without_valid_tokens_the_mean_is_zero():
    assert masked_mean(noise(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)).eq(0).all()


def test_mean_and_maximum_leave_padding_out():
    values = noise(1, 4, 2)
    valid = torch.tensor([[True, False, True, False]])
    kept = values[0, [0, 2]]
    torch.testing.assert_close(masked_mean(values, valid)[0], kept.mean(dim=0))
    torch.testing.assert_close(masked_max(values, valid)[0], kept.amax(dim=0))
