import pytest
import torch
from torch import nn

from melpatch.nn.projector import Projector, RowNorm, standardise_rows


def rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_norm_is_torchs_in_training():
    norm = RowNorm(4).double()
    torch_norm = nn.BatchNorm1d(4).double()
    with torch.no_grad():
        for module in (norm, torch_norm):
            module.weight.copy_(torch.arange(1.0, 5.0))
            module.bias.copy_(torch.arange(4.0))
    values = rows(7, 4)
    torch.testing.assert_close(norm(values), torch_norm(values))
    torch.testing.assert_close(norm.eval()(values), torch_norm(values))


def test_views_share_their_statistics_unless_apart():
    values = rows(6, 2, 4)
    values[:, 1] += 10
    together = standardise_rows(values)
    torch.testing.assert_close(together.mean(dim=(0, 1)), torch.zeros(4).double())
    assert (together[:, 1].mean(dim=0) > 0.5).all()
    apart = Projector(4, hidden=(3,), out=4, last_norm="scale", apart=True).double()(values)
    torch.testing.assert_close(apart.mean(dim=0), torch.zeros(2, 4).double())


@pytest.mark.parametrize("count", [0, 1])
def test_one_row_or_none_is_no_error(count):
    values = rows(count, 1, 4).requires_grad_()
    outputs = Projector(4, hidden=(3,), out=2, last_norm="both").double()(values)
    assert outputs.shape == (count, 1, 2)
    outputs.sum().backward()
    assert values.grad.isfinite().all()


def test_layers_are_those_of_the_settings():
    projector = Projector(4, hidden=(5, 6), out=3, bias=True, last_bias=True)
    linears = [layer for layer in projector.layers if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linears] == [
        (4, 5),
        (5, 6),
        (6, 3),
    ]
    assert all(layer.bias is not None for layer in linears)
    assert isinstance(projector.layers[-1], nn.Linear)
    last = Projector(4, hidden=(), out=3, last_norm="scale").layers[-1]
    assert last.bias is None
    assert last.weight is not None
    assert all(layer.bias is None for layer in Projector(4, hidden=(5,), out=3).layers[::3])
