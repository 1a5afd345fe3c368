from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nn.slow_decoder import slow_decoder, window_of
from torch import nn

from melpatch.errors import ConfigError
from melpatch.nn.mae_decoder import MAEDecoder, Windows
from melpatch.nn.masking import Subset

DIM = 12
SIDES = st.integers(1, 9)
BOTH = pytest.mark.parametrize("attention", ["global", "windows"])


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(embed_dim=DIM, encoder_depth=2, **settings):
    """Return a small decoder of three blocks, the second with shifted windows."""
    torch.manual_seed(0)
    config = MAEDecoder.Config(**{"dim": 8, "depth": 3, "num_heads": 2} | settings)
    decoder = MAEDecoder(config, embed_dim, encoder_depth).double().eval()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.5)
    return decoder


def clips(rows, columns, width=None, cls=1):
    """Return the input for clips of these columns, with about a third of the patches visible."""
    width = width or max(columns)
    inside = torch.arange(width) < torch.tensor(columns)[:, None]
    valid = inside[:, None].expand(-1, rows, -1).flatten(1)
    order = noise(len(columns), rows * width).masked_fill(~valid, torch.inf).argsort(dim=1)
    counts = (valid.sum(dim=1) / 3).ceil()
    tokens = order[:, : int(counts.max())]
    visible = Subset(tokens, torch.arange(tokens.shape[1]) < counts[:, None])
    return (
        noise(*tokens.shape, DIM, seed=1),
        noise(len(columns), cls, DIM, seed=2),
        visible,
        (rows, width),
        valid,
    )


def alone(given, clip):
    """Return the input of a single clip, without padding."""
    seen, cls, visible, (rows, width), valid = given
    own = int(valid[clip].sum()) // rows
    there = visible.valid[clip]
    tokens = visible.indices[clip, there]
    tokens = tokens // width * own + tokens % width
    subset = Subset(tokens[None], torch.ones_like(tokens[None], dtype=torch.bool))
    return seen[clip : clip + 1, there], cls[clip : clip + 1], subset, (rows, own), None


def places(tokens, columns):
    return [divmod(int(token), columns) for token in tokens]


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("cls", [0, 1, 2])
@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        (3, {"positions": "sequence"}),
        (4, {"attention": "windows"}),
        (5, {"attention": "windows", "dim": None, "positions": "sequence"}),
        (3, {"attention": "windows", "window": (2, 3)}),
        (2, {"attention": "windows", "window": (5, 5)}),
        (2, {"attention": "windows", "window": (1, 1)}),
    ],
    ids=str,
)
@torch.inference_mode()
def test_every_token_equals_the_slow_loop(rows, settings, cls, norm):
    decoder = build(norm=norm, **settings)
    columns = (9, 4, 1)
    given = clips(rows, columns, width=10, cls=cls)
    decoded = decoder(*given)
    width = 10
    assert decoded.isfinite().all()
    for clip, own in enumerate(columns):
        seen, own_cls, visible, _, _ = alone(given, clip)
        shown = dict(zip(places(visible.indices[0], own), seen[0], strict=True))
        for (row, column), token in slow_decoder(decoder, shown, own_cls[0], rows, own).items():
            torch.testing.assert_close(decoded[clip, row * width + column], token)


@BOTH
@torch.inference_mode()
def test_a_clip_is_decoded_the_same_alone_and_beside_a_longer_clip(attention):
    decoder = build(attention=attention)
    given = clips(3, (13, 6, 1))
    decoded = decoder(*given)
    valid = given[-1]
    for clip in range(3):
        torch.testing.assert_close(decoder(*alone(given, clip))[0], decoded[clip, valid[clip]])


@BOTH
def test_windows_of_padding_give_finite_outputs_and_gradients(attention):
    decoder = build(attention=attention)
    (seen, cls, visible, size, valid) = clips(5, (20, 1))
    seen.requires_grad_()
    decoded = decoder(seen, cls, visible, size, valid)
    assert decoded.isfinite().all()
    decoded[valid].square().sum().backward()
    assert seen.grad[visible.valid].any(dim=1).all()
    assert not seen.grad[~visible.valid].any()
    for gradient in (seen.grad, *(parameter.grad for parameter in decoder.parameters())):
        assert gradient.isfinite().all()


@torch.inference_mode()
def test_neighbouring_windows_exchange_information_only_after_a_shift():
    """Patches on both sides of a window border see each other from the second block on."""
    for depth, knows in ((1, False), (2, True)):
        decoder = build(attention="windows", depth=depth)
        size = (4, 8)
        seen = noise(1, 1, DIM)
        cls = noise(1, 0, DIM)
        visible = Subset(torch.tensor([[4]]), torch.tensor([[True]]))
        change = decoder(seen + 1, cls, visible, size) - decoder(seen, cls, visible, size)
        moved = change[0].abs().amax(dim=1).view(size) > 0
        assert moved[:, 4:].all()
        assert bool(moved[:, 3].all()) == knows


@torch.inference_mode()
def test_only_a_decoder_with_global_attention_sees_class_tokens():
    seen, cls, visible, size, _ = clips(4, (6, 6))
    for attention in ("global", "windows"):
        decoder = build(attention=attention)
        same = torch.equal(decoder(seen, cls, visible, size), decoder(seen, cls + 1, visible, size))
        assert same == (attention == "windows")


@BOTH
@torch.inference_mode()
def test_bfloat16_is_finite_and_close(attention):
    (seen, cls, visible, size, valid) = clips(3, (9, 4))
    decoder = build(attention=attention).float()
    exact = decoder(seen.float(), cls.float(), visible, size, valid)
    with torch.autocast("cpu", torch.bfloat16):
        rough = decoder(seen.bfloat16(), cls.bfloat16(), visible, size, valid)
    assert (rough - exact)[valid].norm() < 0.05 * exact[valid].norm()


@BOTH
@torch.inference_mode()
def test_dropout_is_active_in_training_only(attention):
    given = clips(3, (9, 4))
    plain = build(attention=attention)
    decoder = build(attention=attention, dropout=0.5)
    decoder.load_state_dict(plain.state_dict())
    assert torch.equal(decoder(*given), plain(*given))
    assert torch.equal(plain.train()(*given), plain.eval()(*given))
    assert [block.dropout.p for block in decoder.transformer.blocks] == [0.5] * 3
    dropped = []
    decoder.train().dropout.register_forward_hook(lambda _, __, tokens: dropped.append(tokens))
    torch.manual_seed(0)
    assert not torch.equal(decoder(*given), decoder(*given))
    assert 0.4 < (torch.stack(dropped) == 0).double().mean() < 0.6


@given(SIDES, SIDES, SIDES, SIDES, st.booleans(), st.integers(1, 3))
def test_windows_equal_the_slow_loop_and_joining_inverts_splitting(
    rows, columns, height, width, shifted, count
):
    windows = Windows((rows, columns), (height, width), shifted=shifted)
    x = noise(count, rows * columns, 2)
    numbers = torch.arange(1, 1 + count * rows * columns).double().view(count, -1, 1)
    slow = {}
    for clip, (row, column) in product(range(count), product(range(rows), range(columns))):
        window = clip, *window_of((row, column), (height, width), shifted)
        slow.setdefault(window, []).append(1 + clip * rows * columns + row * columns + column)
    split_numbers = windows.split(numbers)[..., 0]
    assert split_numbers.shape[1] == height * width
    assert [[int(number) for number in window if number] for window in split_numbers] == list(
        slow.values()
    )
    assert windows.split(numbers > 0).dtype == torch.bool
    assert torch.equal(windows.join(windows.split(x)), x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 6}, "dim = 6; allowed: a multiple of 4, or none"),
        ({"dim": 0}, "dim = 0"),
        ({"depth": 0}, "depth = 0; allowed: 1 or more"),
        ({"num_heads": 0}, "num_heads = 0; allowed: 1 or more"),
        (
            {"window": (4, 0)},
            r"window = \(4, 0\); allowed: two sizes \(rows, columns\) of 1 or more",
        ),
        ({"dropout": 1.0}, "dropout = 1.0; allowed: from 0 up to"),
        ({"depth": 5}, "objective.decoder.depth = 5; allowed: 1 to 4, twice the encoder's blocks"),
        (
            {"num_heads": 3},
            "objective.decoder.num_heads = 3; allowed: a divisor of 8, the .* set --objective.decoder",
        ),
        (
            {"dim": None, "num_heads": 5},
            "objective.decoder.num_heads = 5; allowed: a divisor of 12",
        ),
        (
            {"dim": None, "embed_dim": 6},
            "objective.decoder.dim = None; allowed: a multiple of 4, which the 6 channels",
        ),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        build(**settings)


def test_the_allowed_depth():
    assert len(build(depth=4).transformer.blocks) == 4
