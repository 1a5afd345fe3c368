"""Weights of other code bring the settings that they were trained with, unless a flag says otherwise."""

from dataclasses import replace

import pytest
import torch
from interop.inventories import cnn14, drawn, mae, timm, with_sines

from melpatch.commands.finetune import parse
from melpatch.encoders.cnn14 import CNN14
from melpatch.errors import ConfigError
from melpatch.interop.base import Reading
from melpatch.training.config import build as build_objective
from melpatch.training.start import fitted
from melpatch.workflows.finetune import finetune_defaults
from melpatch.workflows.initialize import initialize_encoder
from melpatch.workflows.pretrain import pretrain_defaults


def written(folder, shapes, prefix="", **sines):
    state = {f"{prefix}{name}": value.float() for name, value in drawn(shapes).items()}
    if sines:
        state = with_sines(state, **sines)
    torch.save(state, folder / "weights.pth")
    return str(folder / "weights.pth")


def build(training):
    return build_objective(replace(training, labels=("a", "b")))


@pytest.fixture
def ast(tmp_path):
    return written(tmp_path, timm(64, 1, colours=1, patches=600, distilled=True), "v.")


@pytest.fixture
def image(tmp_path_factory):
    return written(tmp_path_factory.mktemp("image"), timm(64, 1, patches=196, distilled=True))


def test_init_alone_takes_geometry_front_end_and_statistics(ast):
    training = finetune_defaults(ast).training
    encoder = training.encoder
    assert (encoder.embed_dim, encoder.depth, encoder.num_heads) == (64, 1, 1)
    assert (encoder.stride, encoder.partial, encoder.cls_tokens) == ((10, 10), "drop", 2)
    assert (encoder.positions, encoder.columns) == ("learned", 50)
    front_end = training.front_end
    assert (front_end.padding, front_end.target_frames) == ("legacy", 512)
    assert (front_end.mean, front_end.std) == (-6.6268077, 5.358466)
    assert training.loader.seconds == 5.135
    assert finetune_defaults(ast).stats_clips == 0
    # Nothing has to be fitted, so that the encoder is the published one.
    assert fitted(training).encoder.columns == 50


def test_what_is_taken_loads_without_a_change(ast, capsys):
    objective = build(finetune_defaults(ast).training)
    initialize_encoder(objective, ast)
    told = capsys.readouterr().err.replace("\n", " ")
    assert "fitted" not in told
    assert "positions are left out" not in told
    table = torch.load(ast)["v.pos_embed"][0, 2:]
    assert torch.equal(objective.encoder.position_table, table)


def test_a_flag_says_otherwise(ast):
    words = ["--init", ast, "--out", "x", "--data", "d", "--encoder.positions", "sincos"]
    config = parse([*words, "--front-end.target-frames", "256", "--seconds", "2.5"]).training
    assert config.encoder.positions == "sincos"
    assert config.encoder.stride == (10, 10)
    assert config.front_end.target_frames == 256


def test_a_papers_recipe_keeps_what_it_sets(ast):
    training = finetune_defaults(ast, recipe="ast_audioset").training
    assert training.front_end.target_frames == 1024
    assert training.front_end.mean == -4.2677393
    assert training.encoder.embed_dim == 64
    assert fitted(training).encoder.columns == 101


def test_image_weights_bring_their_size_and_learned_positions(image):
    training = finetune_defaults(image).training
    encoder = training.encoder
    assert (encoder.embed_dim, encoder.depth, encoder.cls_tokens) == (64, 1, 2)
    assert (encoder.positions, encoder.stride) == ("learned", None)
    assert training.front_end == finetune_defaults("scratch").training.front_end
    assert finetune_defaults(image).stats_clips == 512
    patched = finetune_defaults(image, recipe="ast_esc50").training.encoder
    assert (patched.stride, patched.partial) == ((10, 10), "drop")


def test_maskspec_takes_its_sines_under_its_own_recipes_and_the_default_one(tmp_path):
    shapes = mae(64, 1, patches=496, decoder=8, decoder_depth=1)
    source = written(tmp_path, shapes, rows=8, columns=62)
    for recipe in ("finetune", "maskspec_finetune", "maskspec_finetune_cls"):
        training = finetune_defaults(source, recipe=recipe).training
        assert training.encoder.positions == "sincos_mae"
        assert training.front_end.sample_rate == 32000
        objective = build(training)
        initialize_encoder(objective, source)
        expected = torch.load(source)["pos_embed"][0, 1:]
        torch.testing.assert_close(objective.encoder.positions(62), expected, atol=1e-4, rtol=0)
    pretraining = pretrain_defaults("maskspec_32k", init=source).training
    assert (pretraining.encoder.positions, pretraining.encoder.depth) == ("sincos_mae", 1)


def test_audiomae_takes_its_table_under_its_own_recipe(tmp_path):
    shapes = mae(64, 1, patches=512, decoder=8, decoder_depth=1)
    source = written(tmp_path, shapes, rows=8, columns=64)
    training = finetune_defaults(source, recipe="audiomae_finetune").training
    assert (training.encoder.positions, training.encoder.columns) == ("learned", 64)
    objective = build(training)
    initialize_encoder(objective, source)
    table = torch.load(source)["pos_embed"][0, 1:].view(64, 8, 64).transpose(0, 1)
    assert torch.equal(objective.encoder.position_table.view(8, 64, 64), table)


@pytest.mark.parametrize(("points", "rate"), [(1024, 32000), (512, 16000), (256, 8000)])
def test_panns_brings_its_encoder_and_front_end(points, rate, tmp_path):
    shapes = cnn14(2)
    shapes["spectrogram_extractor.stft.conv_real.weight"] = (points // 2 + 1, 1, points)
    training = finetune_defaults(written(tmp_path, shapes)).training
    assert training.encoder == CNN14.Config(width=2, trim="pooling")
    assert (training.front_end.sample_rate, training.front_end.n_mels) == (rate, 64)


def test_heads_that_no_tensor_tells_are_asked_for(tmp_path):
    source = written(tmp_path, timm(48, 1, colours=1, patches=600), "v.")
    with pytest.raises(ConfigError, match=r"weights\.pth: width 48 .* give --encoder\.num-heads"):
        finetune_defaults(source)
    config = parse(["--init", source, "--out", "x", "--data", "d", "--encoder.num-heads", "3"])
    assert config.training.encoder.num_heads == 3
    assert finetune_defaults(source, reading=Reading(num_heads=4)).training.encoder.num_heads == 4


def test_axes_that_no_tensor_tells_are_asked_for(tmp_path):
    source = written(tmp_path, timm(64, 1, colours=1, patches=512))
    with pytest.raises(ConfigError, match=r"give --init-axes mel_frame or frame_mel"):
        finetune_defaults(source)
    words = ["--init", source, "--out", "x", "--data", "d", "--init-axes", "frame_mel"]
    config = parse(words)
    assert config.init_axes == "frame_mel"
    with pytest.raises(ConfigError, match=r"--init-axes = 'both'; allowed: mel_frame or frame_mel"):
        parse([*words[:-1], "both"])


def test_a_size_of_another_width_is_refused_when_the_weights_are_read(ast):
    training = finetune_defaults(ast, size="tiny").training
    assert training.encoder.embed_dim == 192
    with pytest.raises(ConfigError, match="width 64 and 1 blocks, but the encoder has width 192"):
        initialize_encoder(build(training), ast)


def test_another_kind_of_encoder_is_refused_when_the_weights_are_read(ast):
    training = finetune_defaults(ast, encoder="cnn14").training
    with pytest.raises(ConfigError, match="use --encoder vit"):
        initialize_encoder(build(training), ast)


def test_pretraining_keeps_its_own_padding_and_positions_of_image_models(ast, image):
    recipe = pretrain_defaults("ssast").training
    audio = pretrain_defaults("ssast", init=ast).training
    assert (audio.front_end.padding, audio.front_end.target_frames) == ("masked", None)
    assert audio.front_end.mean == -6.6268077
    assert (audio.encoder.positions, audio.encoder.embed_dim) == ("learned", 64)
    images = pretrain_defaults("ssast", init=image).training
    assert images.encoder.positions == recipe.encoder.positions
    assert images.encoder.embed_dim == 64
    assert images.front_end == recipe.front_end


def test_a_file_that_is_missing_is_reported_when_it_is_read(tmp_path):
    missing = str(tmp_path / "missing.pth")
    assert finetune_defaults(missing).training == finetune_defaults("x.pth").training
