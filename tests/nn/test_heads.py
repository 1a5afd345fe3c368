from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from melpatch.nn.heads import (
    DistillationHeads,
    PatchDecoder,
    Prototypes,
    gelu_mlp,
    linear_head,
    mlp_head,
)

CLASSES = {"global": 9, "local": 7}


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_mlp_head_is_linear_relu_linear():
    torch.manual_seed(0)
    head = mlp_head(6, 4)
    x = torch.randn(3, 5, 6)
    first = head[0]
    last = head[2]
    hidden = (x @ first.weight.T + first.bias).clamp(min=0)
    assert first.weight.shape == (6, 6)
    assert last.weight.shape == (4, 6)
    torch.testing.assert_close(head(x), hidden @ last.weight.T + last.bias)


def test_linear_head_normalises_with_the_published_epsilon():
    torch.manual_seed(0)
    head = linear_head(6, 4)
    x = 1e-2 * torch.randn(3, 6)
    nn.init.normal_(head[0].weight)
    nn.init.normal_(head[0].bias)
    centred = x - x.mean(dim=1, keepdim=True)
    normed = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    expected = (normed * head[0].weight + head[0].bias) @ head[1].weight.T + head[1].bias
    torch.testing.assert_close(head(x), expected)


# Layers


def linears(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def slow_mlp(module, x, last):
    """Return the output of a gelu_mlp layer by layer, with the GELU written out."""
    layers = linears(module)
    for number, layer in enumerate(layers):
        x = x @ layer.weight.T + layer.bias
        if last or number < len(layers) - 1:
            x = x * 0.5 * (1 + torch.erf(x / 2**0.5))
    return x


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("widths", [(6, 5), (6, 8, 3), (6, 8, 8, 4)])
def test_a_gelu_follows_each_layer_but_the_last_unless_asked(widths, last):
    torch.manual_seed(0)
    layers = gelu_mlp(widths, last=last).double()
    x = noise(3, 6)
    for layer in linears(layers):
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    assert [layer.weight.shape for layer in linears(layers)] == [
        (outs, ins) for ins, outs in pairwise(widths)
    ]
    torch.testing.assert_close(layers(x), slow_mlp(layers, x, last))


def test_layers_start_truncated_normal_with_biases_of_zero():
    torch.manual_seed(0)
    for layer in linears(gelu_mlp((300, 200, 100), last=False)):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert not layer.bias.any()


@pytest.mark.parametrize("last_gelu", [True, False])
@pytest.mark.parametrize("widths", [(), (10,), (10, 12)])
def test_patch_decoder_is_an_mlp_and_a_transposed_convolution(widths, last_gelu):
    torch.manual_seed(0)
    rows = 2
    columns = 3
    patch = (4, 5)
    decoder = PatchDecoder(6, widths, 20, last_gelu=last_gelu).double()
    tokens = noise(2, rows * columns, 6)
    nn.init.normal_(decoder.bias)
    width = (6, *widths)[-1]
    convolution = nn.ConvTranspose2d(width, 1, kernel_size=patch, stride=patch).double()
    with torch.no_grad():
        convolution.weight.copy_(decoder.unpatch.weight.T.view(width, 1, *patch))
        convolution.bias.copy_(decoder.bias)
    hidden = slow_mlp(decoder.mlp, tokens, last_gelu)
    image = convolution(hidden.transpose(1, 2).unflatten(2, (rows, columns)))[:, 0]
    pixels = decoder(tokens)
    assert pixels.shape == (2, rows * columns, 20)
    for row in range(rows):
        for column in range(columns):
            square = image[:, 4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
            torch.testing.assert_close(pixels[:, row * columns + column], square.flatten(1))
    assert sum(p.numel() for p in decoder.unpatch.parameters()) + decoder.bias.numel() == sum(
        p.numel() for p in convolution.parameters()
    )


def test_patch_decoder_is_initialised_like_a_transposed_convolution():
    torch.manual_seed(0)
    decoder = PatchDecoder(600, (), 20, last_gelu=False)
    convolution = nn.ConvTranspose2d(600, 1, (4, 5), (4, 5))
    for weight in (decoder.unpatch.weight, convolution.weight):  # uniform
        assert 0.99 < weight.abs().max().item() * 20**0.5 <= 1.0
        assert weight.std().item() == pytest.approx((3 * 20) ** -0.5, rel=0.03)
    decoders = [PatchDecoder(1, (), 20, last_gelu=False) for _ in range(300)]
    convolutions = [nn.ConvTranspose2d(1, 1, (4, 5), (4, 5)) for _ in range(300)]
    for models in (decoders, convolutions):
        biases = torch.cat([model.bias.detach() for model in models])
        assert 0.95 < biases.abs().max().item() * 20**0.5 <= 1.0
        assert biases.std().item() == pytest.approx((3 * 20) ** -0.5, rel=0.15)


# Prototypes


def normed_layer(prototypes):
    """Return torch's weight-normed layer with the same direction and gain."""
    classes, dim = prototypes.direction.shape
    layer = weight_norm(nn.Linear(dim, classes, bias=False, dtype=torch.float64))
    with torch.no_grad():
        layer.parametrizations.weight.original0.copy_(
            1.0 if prototypes.gain is None else prototypes.gain
        )
        layer.parametrizations.weight.original1.copy_(prototypes.direction)
    return layer


@pytest.mark.parametrize("train_gain", [True, False])
def test_prototypes_equal_torchs_weight_norm_with_gradients(train_gain):
    torch.manual_seed(0)
    prototypes = Prototypes(5, 8, train_gain=train_gain).double()
    if train_gain:
        nn.init.uniform_(prototypes.gain, 0.5, 2.0)
    layer = normed_layer(prototypes)
    x = noise(3, 5)
    into = noise(3, 8, seed=1)
    torch.testing.assert_close(prototypes(), layer.weight, rtol=0, atol=1e-14)
    (F.linear(x, prototypes()) * into).sum().backward()
    (layer(x) * into).sum().backward()
    originals = layer.parametrizations.weight
    torch.testing.assert_close(
        prototypes.direction.grad, originals.original1.grad, rtol=0, atol=1e-12
    )
    if train_gain:
        torch.testing.assert_close(
            prototypes.gain.grad, originals.original0.grad, rtol=0, atol=1e-12
        )


def test_prototypes_are_initialised_as_a_linear_layer_with_a_gain_of_one():
    torch.manual_seed(0)
    prototypes = Prototypes(5, 8, train_gain=True)
    torch.manual_seed(0)
    assert torch.equal(prototypes.direction, nn.Linear(5, 8, bias=False).weight)
    assert prototypes.gain.eq(1).all()
    torch.testing.assert_close(prototypes().norm(dim=1), torch.ones(8))
    assert [name for name, _ in Prototypes(5, 8, train_gain=False).named_parameters()] == [
        "direction"
    ]


# Distillation heads


def heads(shared="trunk", train_gain=False, classes=CLASSES):
    torch.manual_seed(0)
    return DistillationHeads(6, 10, 4, classes, shared=shared, train_gain=train_gain)


def test_projection_is_three_layers_and_a_unit_vector():
    module = heads().double()
    tokens = noise(2, 5, 6)
    projected = module.project(tokens, "local")
    slow = slow_mlp(module.trunks["shared"], tokens, last=False)
    torch.testing.assert_close(projected, slow / slow.square().sum(dim=-1, keepdim=True).sqrt())
    assert [layer.weight.shape for layer in linears(module)] == [(10, 6), (10, 10), (4, 10)]
    assert torch.equal(module.prototypes_for("local"), module.prototypes["local"]())


def test_projections_are_at_least_float32():
    assert heads().double().project(noise(3, 6), "local").dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        projected = heads().project(noise(3, 6).float(), "local")
    assert projected.dtype == torch.float32
    torch.testing.assert_close(projected.norm(dim=1), torch.ones(3))  # bf16 would be off by 1e-3


@pytest.mark.parametrize("train_gain", [True, False])
@pytest.mark.parametrize(
    ("shared", "trunks", "prototypes"),
    [
        ("trunk", {"shared"}, {"global": 9, "local": 7}),
        ("none", {"global", "local"}, {"global": 9, "local": 7}),
        ("all", {"shared"}, {"shared": 9}),
    ],
)
def test_sharing_decides_which_parameters_exist(shared, trunks, prototypes, train_gain):
    module = heads(shared, train_gain, {"global": 9, "local": 9 if shared == "all" else 7})
    layers = [f"{layer}.{part}" for layer in (0, 2, 4) for part in ("weight", "bias")]
    expected = {f"trunks.{trunk}.{layer}" for trunk in trunks for layer in layers}
    expected |= {f"prototypes.{name}.direction" for name in prototypes}
    expected |= {f"prototypes.{name}.gain" for name in prototypes} if train_gain else set()
    assert {name for name, _ in module.named_parameters()} == expected
    assert {name: len(module.prototypes[name].direction) for name in prototypes} == prototypes
    state = module.state_dict()
    assert state.keys() == expected
    restored = load(save(state))  # safetensors refuses tensors that share memory
    assert all(torch.equal(restored[name], value) for name, value in state.items())


@pytest.mark.parametrize("shared", ["trunk", "none", "all"])
def test_only_shared_heads_give_equal_outputs(shared):
    module = heads(shared, classes={"global": 9, "local": 9}).double()
    tokens = noise(5, 6)
    same_trunk = torch.equal(module.project(tokens, "global"), module.project(tokens, "local"))
    same_prototypes = torch.equal(module.prototypes_for("global"), module.prototypes_for("local"))
    assert (same_trunk, same_prototypes) == (shared != "none", shared == "all")


def test_heads_of_one_name_have_no_parameters_of_the_other():
    module = heads(classes={"local": 7})
    assert list(module.trunks) == ["shared"]
    assert list(module.prototypes) == ["local"]
