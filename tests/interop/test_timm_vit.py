import pytest
import torch
from interop.inventories import blank, drawn, timm
from interop.slow_vit import slow_timm

from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.interop.base import Reading
from melpatch.interop.timm_vit import TimmViT
from melpatch.nn.positions import resize
from melpatch.training.unfilled import without_weights
from melpatch.weight_files import Weights

SMALL = {"width": 16, "depth": 2, "patches": 16}
AST = {
    "stride": (10, 10),
    "partial": "drop",
    "positions": "learned",
    "columns": 101,
    "cls_tokens": 2,
}


def small(n_mels=64, **changes):
    """An encoder on 4 x 4 patches, as the small files here."""
    settings = {
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "positions": "learned",
        "columns": 4,
    } | changes
    return ViT(ViT.Config(**settings), n_mels).double().eval()


def convert(state, encoder, **reading):
    return TimmViT().convert(Weights(state, {}), encoder, Reading(**reading))


def loaded(state, encoder, **reading):
    encoder.load_state_dict(convert(state, encoder, **reading).state)
    return encoder


def encoded(encoder, spectrogram):
    with torch.inference_mode():
        found = encoder(spectrogram)
    return torch.cat([found.cls, found.patches], dim=1)


@pytest.mark.parametrize(
    ("shapes", "tensors", "settings"),
    [
        (timm(distilled=True), 155, AST),
        (timm(patches=196), 152, {}),
        (timm(384, patches=196), 152, {"positions": "learned", "cls_tokens": 1}),
    ],
    ids=["DeiT-B distilled 384", "ViT-B/16", "DeiT-S"],
)
def test_every_published_weight_has_its_place(shapes, tensors, settings):
    assert len(shapes) == tensors
    width = shapes["cls_token"][2]
    with torch.device("meta"):
        encoder = ViT(ViT.Config.of_size("base" if width == 768 else "small", **settings), 128)
    found = convert(blank(shapes), encoder).state
    expected = {name: value.shape for name, value in encoder.state_dict().items()}
    assert {name: value.shape for name, value in found.items()} == expected


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("channels", ["sum", "mean"])
def test_it_computes_what_the_foreign_model_computes(distilled, channels):
    """A grey image, of which the averaged kernel sees a third."""
    state = drawn(timm(**SMALL, distilled=distilled))
    spectrogram = torch.randn(2, 64, 64, dtype=torch.float64)
    image = spectrogram[:, None].expand(-1, 3, -1, -1) / (1 if channels == "sum" else 3)
    ours = encoded(loaded(state, small(cls_tokens=1 + distilled), channels=channels), spectrogram)
    torch.testing.assert_close(ours, slow_timm(state, image, heads=2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("axes", ["mel_frame", "frame_mel"])
def test_a_kernel_of_one_colour_is_taken_by_the_axes_that_the_user_says(axes):
    state = drawn(timm(**SMALL, colours=1))
    spectrogram = torch.randn(2, 64, 64, dtype=torch.float64)
    images = spectrogram if axes == "mel_frame" else spectrogram.transpose(1, 2)
    expected = slow_timm(state, images[:, None], heads=2)
    if axes == "frame_mel":
        patches = expected[:, 1:].unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)
        expected = torch.cat([expected[:, :1], patches], dim=1)
    for channels in ("sum", "mean"):
        ours = encoded(loaded(state, small(), channels=channels, axes=axes), spectrogram)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_a_kernel_of_one_colour_without_a_family_is_refused_until_its_axes_are_said():
    state = drawn(timm(**SMALL, colours=1))
    message = r"patch_embed\.proj\.weight spans .*; give --init-axes mel_frame or frame_mel"
    with pytest.raises(ConfigError, match=message):
        convert(state, small())
    with pytest.raises(ConfigError, match=message):
        TimmViT().published(Weights(state, {}), Reading(num_heads=2))


def test_a_class_token_is_taken_twice_for_an_encoder_of_two():
    state = drawn(timm(**SMALL))
    encoder = loaded(state, small(cls_tokens=2))
    assert torch.equal(encoder.cls_token, state["cls_token"][0].expand(2, -1))
    assert torch.equal(encoder.cls_position, state["pos_embed"][0, [0, 0]])
    assert "class token taken twice" in convert(state, encoder).notes


def test_a_distillation_token_is_left_out_for_an_encoder_of_one_and_both_for_one_of_none():
    state = drawn(timm(**SMALL, distilled=True))
    one, none = (loaded(state, small(cls_tokens=count)) for count in (1, 0))
    assert torch.equal(one.cls_token, state["cls_token"][0])
    for encoder in (one, none):
        assert torch.equal(encoder.position_table, state["pos_embed"][0, 2:])


@pytest.mark.parametrize("how", ["legacy", "bilinear", "bicubic", "crop"])
def test_a_square_of_positions_is_fitted_to_the_grid(how):
    state = drawn(timm(**SMALL))
    encoder = loaded(state, small(n_mels=32, columns=9), how=how)
    assert torch.equal(
        encoder.position_table, resize(state["pos_embed"][0, 1:], (4, 4), (2, 9), how)
    )
    assert f"positions 4 x 4 fitted to 2 x 9 ({how})" in convert(state, encoder, how=how).notes


@pytest.mark.parametrize("kind", ["sincos", "sincos_mae"])
def test_fixed_positions_are_recognised_by_an_encoder_without_weights(kind):
    state = drawn(timm(**SMALL))
    encoder = small(positions=kind)
    state["pos_embed"][0, 1:] = encoder.positions(4)
    with without_weights():
        unfilled = small(positions=kind)
    assert unfilled.projection.weight.is_meta
    assert convert(state, unfilled).notes == convert(state, encoder).notes
    assert not any("positions" in note for note in convert(state, unfilled).notes)


def test_fixed_positions_stay_and_the_class_token_keeps_its_own():
    state = drawn(timm(**SMALL))
    encoder = small(positions="sincos")
    found = convert(state, encoder)
    assert any("positions are left out" in note for note in found.notes)
    state["pos_embed"][0, 1:] = encoder.positions(4)
    assert not any("positions" in note for note in convert(state, encoder).notes)
    spectrogram = torch.randn(2, 64, 64, dtype=torch.float64)
    expected = slow_timm(state, spectrogram[:, None].expand(-1, 3, -1, -1), heads=2)
    torch.testing.assert_close(
        encoded(loaded(state, encoder), spectrogram), expected, rtol=0, atol=1e-12
    )


def test_what_is_left_out_and_what_starts_afresh_is_said():
    shapes = {name: shape for name, shape in timm(**SMALL).items() if not name.startswith("norm.")}
    state = drawn(shapes | {"fc_norm.weight": (16,), "decoder_pos_embed": (1, 17, 8)})
    encoder = small()
    found = convert(state, encoder)
    assert found.notes == [
        "3 colours summed",
        "no final norm in it, so the encoder keeps its own",
        "left out: decoder_pos_embed, fc_norm, head",
    ]
    assert torch.equal(found.state["transformer.norm.weight"], encoder.transformer.norm.weight)
    del state["cls_token"]
    found = convert(state | {"pos_embed": state["pos_embed"][:, 1:]}, encoder)
    assert torch.equal(found.state["cls_token"], encoder.cls_token)
    assert "no class token in it, so the encoder keeps its own" in found.notes


def test_statistics_of_the_input_are_kept():
    encoder = small(input_norm="batch")
    encoder.input_norm.running_mean.fill_(5.0)
    assert loaded(drawn(timm(**SMALL)), encoder).input_norm.running_mean == 5.0


@pytest.mark.parametrize(
    ("shapes", "settings", "message"),
    [
        (
            timm(768, 12),
            {},
            "width 768 and 12 blocks, but the encoder has width 16 and 2 blocks; use --size base",
        ),
        (
            timm(24, 2),
            {},
            "width 24 and 2 blocks, .*; use --encoder.embed-dim 24 --encoder.depth 2",
        ),
        (timm(16, 3), {}, "width 16 and 3 blocks"),
        (
            timm(**SMALL, patch=(8, 8)),
            {},
            "patches of 8 x 8, but .* are 16 x 16; use --encoder.patch 8 8",
        ),
        (timm(**SMALL), {"mlp_ratio": 2.0}, "MLPs 64 wide, .*; use --encoder.mlp-ratio 4"),
        (timm(**SMALL), {"norm": "post"}, "encoder.norm = 'post'; allowed: 'pre'"),
        (
            timm(16, 2, patches=15),
            {},
            "pos_embed has 15 positions of unknown geometry, but the encoder has 4 x 4; give the "
            "geometry .*--encoder.positions sincos",
        ),
        (
            timm(**SMALL) | {"blocks.0.ls1.gamma": (16,)},
            {},
            "blocks.0.ls1.gamma has no place in a plain ViT",
        ),
        (timm(**SMALL) | {"reg_token": (1, 4, 16)}, {}, "reg_token has no place"),
    ],
    ids=str,
)
def test_what_does_not_fit_says_what_it_is_and_which_flag_helps(shapes, settings, message):
    with pytest.raises(ConfigError, match=message):
        convert(blank(shapes), small(**settings))


def test_a_file_without_positions_needs_fixed_ones():
    state = {name: value for name, value in drawn(timm(**SMALL)).items() if name != "pos_embed"}
    with pytest.raises(ConfigError, match=r"holds no positions; use --encoder\.positions sincos"):
        convert(state, small())
    assert torch.equal(loaded(state, small(positions="sincos")).cls_token, state["cls_token"][0])


def test_an_odd_grid_is_no_trouble_for_fixed_positions():
    state = drawn(timm(16, 2, patches=15))
    notes = convert(state, small(positions="sincos")).notes
    assert any("positions are left out" in note for note in notes)
