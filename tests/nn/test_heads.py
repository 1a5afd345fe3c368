import torch
from torch import nn

from melpatch.nn.heads import linear_head, mlp_head


def test_mlp_head_is_linear_relu_linear():
    torch.manual_seed(0)
    head, x = mlp_head(6, 4), torch.randn(3, 5, 6)
    first, last = head[0], head[2]
    hidden = (x @ first.weight.T + first.bias).clamp(min=0)
    assert first.weight.shape == (6, 6)
    assert last.weight.shape == (4, 6)
    torch.testing.assert_close(head(x), hidden @ last.weight.T + last.bias)


def test_linear_head_normalises_with_the_published_epsilon():
    torch.manual_seed(0)
    head, x = linear_head(6, 4), 1e-2 * torch.randn(3, 6)
    nn.init.normal_(head[0].weight)
    nn.init.normal_(head[0].bias)
    centred = x - x.mean(dim=1, keepdim=True)
    normed = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    expected = (normed * head[0].weight + head[0].bias) @ head[1].weight.T + head[1].bias
    torch.testing.assert_close(head(x), expected)
