"""The ViT: projection, positions, cls tokens, normalisation, and resizing to another grid."""

import pytest
import torch
import torch.nn.functional as F

from melpatch.encoders.vit import SIZES, ViT
from melpatch.errors import ConfigError
from melpatch.nn.grid import PatchGrid
from melpatch.nn.positions import resize, sequence, sincos
from melpatch.nn.transformer import Transformer


def build(n_mels=32, **settings):
    torch.manual_seed(0)
    small = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch": (8, 8), "columns": 12}
    return ViT(ViT.Config(**small | settings), n_mels).eval()


@pytest.mark.parametrize(
    ("patch", "stride"), [((8, 8), None), ((8, 8), (5, 6)), ((32, 2), (32, 1))]
)
def test_projection_is_a_convolution(patch, stride):
    vit = build(patch=patch, stride=stride, partial="drop")
    x = torch.randn(2, 32, 50)
    kernel = vit.projection.weight.view(24, 1, *patch)
    expected = (
        F.conv2d(x[:, None], kernel, vit.projection.bias, stride=stride or patch)
        .flatten(2)
        .transpose(1, 2)
    )
    torch.testing.assert_close(vit.embed(x), expected)


@pytest.mark.parametrize(
    "positions", ["sincos", "sincos_mae", "sequence", "interleaved", "learned"]
)
def test_tokens_are_projected_patches_plus_positions(positions):
    vit = build(positions=positions)
    x = torch.randn(2, 32, 50)
    tables = {
        "sincos": sincos(4, 7, 24),
        "sincos_mae": sincos(4, 7, 24, first="column"),
        "sequence": sequence(4, 7, 24),
        "interleaved": sequence(4, 7, 24, interleaved=True),
    }
    table = (
        tables[positions]
        if positions in tables
        else vit.position_table.view(4, 12, 24)[:, :7].flatten(0, 1)
    )
    assert torch.equal(vit.positions(7), table)
    assert torch.equal(vit.tokens(x), vit.embed(x) + table)


@pytest.mark.parametrize("positions", ["sincos", "sequence", "learned", "stretched"])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_cls_tokens_come_first(positions, count):
    vit = build(positions=positions, cls_tokens=count)
    x = torch.randn(2, 32, 50)
    encoded = vit(x, layers=True)
    assert encoded.cls.shape == (2, count, 24)
    assert encoded.patches.shape == (2, 28, 24)
    front = torch.zeros(0, 24) if count == 0 else vit.cls_token
    learned = positions in ("learned", "stretched")
    front = front + vit.cls_position if count and learned else front
    expected, layers = vit.transformer(
        torch.cat([front.expand(2, -1, -1), vit.tokens(x)], 1), layers=True
    )
    assert torch.equal(torch.cat([encoded.cls, encoded.patches], 1), expected)
    assert torch.equal(encoded.layers[0], layers[0])
    assert (vit.cls_position is not None) == (count > 0 and learned)


def test_cls_tokens_are_never_masked():
    vit = build(cls_tokens=2)
    tokens = torch.randn(1, 5, 24)
    valid = torch.tensor([[True, True, True, False, False]])
    torch.testing.assert_close(
        vit.encode_tokens(tokens, valid).cls, vit.encode_tokens(tokens[:, :3]).cls
    )


def test_learned_positions_refuse_a_longer_clip_and_name_the_remedy():
    with pytest.raises(ConfigError, match=r"columns = 13 .* up to 12, .*resize_positions\(13\)"):
        build(positions="learned")(torch.randn(1, 32, 13 * 8))


@pytest.mark.parametrize("columns", [1, 5, 13, 40])
def test_stretched_positions_span_any_grid(columns):
    vit = build(positions="stretched")
    assert torch.equal(
        vit.positions(columns), resize(vit.position_table, (4, 12), (4, columns), "bicubic")
    )
    assert torch.equal(vit.positions(12), vit.position_table)
    x = torch.randn(2, 32, 8 * columns)
    assert torch.equal(vit.tokens(x), vit.embed(x) + vit.positions(columns))
    vit.positions(columns).square().sum().backward()
    assert vit.position_table.grad.any()


def test_resizing_a_stretched_table_keeps_its_positions():
    vit = build(positions="stretched")
    before = vit.positions(30).detach()
    vit.resize_positions(30, "bicubic")
    assert torch.equal(vit.position_table, before)
    assert torch.equal(vit.positions(30), before)


@pytest.mark.parametrize("how", ["bilinear", "bicubic", "crop", "legacy"])
def test_resizing_positions_allows_longer_clips(how):
    vit = build(positions="learned", cls_tokens=2)
    before = vit.position_table.detach().clone()
    cls = vit.cls_position.detach().clone()
    vit.resize_positions(20, how)
    assert vit.config.columns == 20
    assert torch.equal(vit.positions(20), resize(before, (4, 12), (4, 20), how))
    assert torch.equal(vit.cls_position, cls)
    assert vit(torch.randn(1, 32, 160)).patches.shape == (1, 80, 24)


def test_resizing_to_another_grid_equals_building_for_it():
    vit = build(positions="learned", patch=(8, 8))
    vit.position_table.requires_grad_(False)
    vit.resize_positions(30, grid=PatchGrid(n_mels=48, patch=(8, 8), stride=(6, 4), partial="drop"))
    rebuilt = ViT(vit.config, n_mels=48).eval()
    rebuilt.load_state_dict(vit.state_dict())
    x = torch.randn(2, 48, 100)
    assert torch.equal(rebuilt(x).patches, vit(x).patches)
    assert vit.config.stride == (6, 4)
    assert vit.config.partial == "drop"
    assert not vit.position_table.requires_grad


def test_resizing_a_sincos_vit_changes_only_its_grid():
    vit = build()
    grid = PatchGrid(n_mels=32, patch=(8, 8), stride=(4, 4))
    vit.resize_positions(12, grid=grid)
    assert vit.grid == grid
    assert torch.equal(vit.positions(9), sincos(grid.rows, 9, 24, step=(0.5, 0.5)))


@pytest.mark.parametrize("partial", ["pad", "drop"])
@pytest.mark.parametrize("step", [1, 2, 4])
def test_sequence_positions_keep_their_vectors_when_patches_overlap(step, partial):
    vit = build(positions="sequence", partial=partial, n_mels=40)
    vit.resize_positions(
        12, grid=PatchGrid(n_mels=40, patch=(8, 8), stride=(8 // step, 8 // step), partial=partial)
    )
    columns = 6 * step + 1
    fine = vit.positions(columns).view(-1, columns, 24)[::step, ::step]
    torch.testing.assert_close(fine.flatten(0, 1), sequence(5, 7, 24))


def unequal_clips():
    """Return loud clips of several lengths, and their frames."""
    x = 5 + 3 * torch.randn(3, 32, 50)
    frames = torch.tensor([50, 7, 23])
    return x * (torch.arange(50) < frames[:, None])[:, None], frames


def test_training_normalises_a_batch_to_mean_0_and_std_a_half_without_padding():
    vit = build(input_norm="batch").train()
    x, frames = unequal_clips()
    sound = [clip[:, :own] for clip, own in zip(x, frames.tolist(), strict=True)]
    values = torch.cat([clip.flatten() for clip in sound])
    for normalised, clip in zip(vit.normalise(x, frames), sound, strict=True):
        expected = 0.5 * (clip - values.mean()) / (values.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(normalised[:, : clip.shape[1]], expected)
        assert not normalised[:, clip.shape[1] :].any()


def test_evaluation_normalises_by_the_saved_running_statistics():
    vit = build(input_norm="batch").train()
    x, frames = unequal_clips()
    # Each update moves the running statistics by a tenth.
    for _ in range(60):
        vit.normalise(x, frames)
    trained = vit.normalise(x, frames)
    torch.testing.assert_close(vit.eval().normalise(x, frames), trained, atol=0.02, rtol=0)
    loaded = build(input_norm="batch")
    assert not torch.allclose(loaded.normalise(x, frames), trained, atol=0.1)
    loaded.load_state_dict(vit.state_dict())
    assert torch.equal(loaded.normalise(x, frames), vit.normalise(x, frames))
    alone = loaded.normalise(x[1:2, :, :7], frames[1:2])
    assert torch.equal(alone[0], loaded.normalise(x, frames)[1, :, :7])


def test_without_a_norm_spectrograms_are_unchanged_and_nothing_is_saved():
    vit = build()
    x, frames = unequal_clips()
    assert vit.train().normalise(x, frames) is x
    extra = build(input_norm="batch").state_dict().keys() - vit.state_dict().keys()
    assert extra == {
        f"input_norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    }


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_norm_places_the_layer_norms_of_the_blocks(norm):
    vit = build(norm=norm, cls_tokens=0)
    tokens = torch.randn(2, 5, 24)
    plain = Transformer(24, 2, 3, norm=norm).eval()
    plain.load_state_dict(vit.transformer.state_dict())
    assert torch.equal(vit.encode_tokens(tokens).patches, plain(tokens)[0])


def test_dropout_applies_to_tokens_and_blocks_in_training_only():
    vit = build(dropout=0.25)
    x = torch.randn(4, 32, 50)
    assert torch.equal(vit(x).patches, build()(x).patches)
    assert [block.dropout.p for block in vit.transformer.blocks] == [0.25, 0.25]
    inputs = []
    vit.train().transformer.register_forward_pre_hook(
        lambda _, arguments: inputs.append(arguments[0])
    )
    assert not torch.equal(vit(x).patches, vit(x).patches)
    tokens = torch.cat([vit.cls_token.expand(4, -1, -1), vit.tokens(x)], dim=1)
    torch.testing.assert_close(inputs[0], torch.where(inputs[0] == 0, 0.0, tokens / 0.75))
    assert inputs[0].eq(0).double().mean() == pytest.approx(0.25, abs=0.05)


def test_another_patch_size_is_refused():
    with pytest.raises(ConfigError, match=r"patch = \(16, 16\); allowed: \(8, 8\)"):
        build().resize_positions(12, grid=PatchGrid(n_mels=32))


@pytest.mark.parametrize("positions", ["sincos", "sequence", "learned", "stretched"])
def test_positions_and_cls_tokens_keep_the_dtype_of_autocast(positions):
    vit = build(positions=positions)
    x = torch.randn(2, 32, 50)
    with torch.autocast("cpu", torch.bfloat16):
        assert vit.tokens(x).dtype == torch.bfloat16
        assert vit(x, layers=True).layers[-1].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"embed_dim": 0}, "embed_dim = 0"),
        ({"depth": 0}, "depth = 0"),
        ({"num_heads": 5}, "num_heads = 5; allowed: a divisor of embed_dim = 24"),
        ({"mlp_ratio": 0.0}, "mlp_ratio"),
        ({"cls_tokens": 3}, "cls_tokens = 3"),
        ({"embed_dim": 6}, "embed_dim = 6; allowed: a multiple of 4, or positions = 'learned'"),
        ({"columns": 0}, "columns = 0"),
        ({"drop_path": 1.0}, "drop_path = 1.0"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        (
            {"embed_dim": 6, "positions": "sequence"},
            "embed_dim = 6; allowed: a multiple of 4, or positions",
        ),
        ({"norm_eps": 0.0}, "norm_eps = 0.0; allowed: above 0, up to 0.001"),
        ({"patch": (0, 8)}, "patch"),
        ({"stride": (9, 8)}, "stride"),
    ],
)
def test_wrong_settings_are_named(settings, named):
    with pytest.raises(ConfigError, match=named):
        build(**settings)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_every_norm_has_the_epsilon_of_the_settings(norm):
    norms = [part for part in build(norm=norm, norm_eps=1e-12).modules() if hasattr(part, "eps")]
    assert {part.eps for part in norms} == {1e-12}
    assert len(norms) == 2 * build().config.depth + 1


def test_a_wrong_choice_is_named_where_no_type_checker_runs():
    config = ViT.Config()
    object.__setattr__(config, "positions", "rotary")
    with pytest.raises(
        ConfigError, match="positions = 'rotary'; allowed: sincos, sincos_mae, sequence, "
    ):
        config.__post_init__()


@pytest.mark.parametrize(
    ("name", "millions"), [("tiny", 5.7), ("small", 22.1), ("base", 86.6), ("large", 304.3)]
)
def test_sizes_equal_those_of_deit_and_vit(name, millions):
    """The published counts include a head for 1000 classes and three colours in every patch."""
    config = ViT.Config.of_size(name, positions="learned", columns=14)
    with torch.device("meta"):
        vit = ViT(config, n_mels=14 * 16)
    dim = config.embed_dim
    count = (
        sum(parameter.numel() for parameter in vit.parameters()) + 2 * 256 * dim + 1000 * (dim + 1)
    )
    assert count / 1e6 == pytest.approx(millions, abs=0.05)


def test_an_unknown_size_lists_the_known_ones():
    with pytest.raises(ConfigError, match="size = 'huge'; allowed: " + ", ".join(SIZES)):
        ViT.Config.of_size("huge")


@pytest.mark.parametrize(
    ("norm", "outer_norm"), [("pre", None), ("post", "after"), ("pre", "before")]
)
def test_normed_layers_pass_the_final_norm_where_there_is_one(norm, outer_norm):
    config = ViT.Config(embed_dim=16, depth=2, num_heads=2, norm=norm, outer_norm=outer_norm)
    encoder = ViT(config, 16).eval()
    spectrogram = torch.randn(1, 16, 32)
    plain = encoder(spectrogram, layers=True).layers
    normed = encoder(spectrogram, layers="normed").layers
    last = encoder(spectrogram)
    torch.testing.assert_close(normed[-1], torch.cat([last.cls, last.patches], dim=1))
    changed = not torch.equal(normed[0], plain[0])
    assert changed == (outer_norm != "before")
