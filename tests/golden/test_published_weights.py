"""Every file of a published layout gives, by itself, the front end and the tokens of the published code."""

import json
import re
from dataclasses import replace

import pytest
import torch
from golden.published_weights import (
    all_tokens,
    model_input,
    numbers,
    opened,
    our_order,
    published_file,
    reading,
    wave,
)

from melpatch.audio.logmel import LogMel
from melpatch.encoders.vit import ViT
from melpatch.interop.base import published_settings, recognise
from melpatch.weight_files import read_weights

# Families with the published tokens, the frames of their whole input, and the name of the array.
FAMILIES = {
    "ast": (1024, "tokens"),
    "hf_ast": (1024, "tokens"),
    "hf_ast_geometry": (256, "tokens"),
    "ssast_patch": (512, "tokens"),
    "ssast_frame": (300, "tokens"),
    "audiomae_pretrain": (1024, "tokens"),
    "audiomae_overlap": (256, "tokens"),
    "asit": (592, "teacher_tokens"),
    "asit_2024": (592, "teacher_tokens"),
}
QUIET = ("ast", "hf_ast", "hf_ast_geometry", "ssast_patch", "ssast_frame")
TOLERANCE = 5e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tokens_are_those_of_the_published_code(name, tmp_path):
    frames, array = FAMILIES[name]
    encoder, front_end, _ = opened(name, published_file(name, tmp_path))
    assert front_end.target_frames == frames
    arrays = numbers(name)
    found = all_tokens(encoder, model_input(arrays["features"], front_end, frames))
    expected = our_order(arrays[array], encoder.grid.rows, name)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_front_end_is_that_of_the_published_code(name, tmp_path):
    frames, _ = FAMILIES[name]
    _, front_end, _ = opened(name, published_file(name, tmp_path))
    clip = wave(name)
    found, length = LogMel(front_end)(clip[None], torch.tensor([len(clip)]))
    expected = model_input(numbers(name)["features"], front_end, frames)
    assert length.tolist() == [frames]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", QUIET)
def test_the_epsilon_of_the_norms_is_that_of_the_weights(name, tmp_path):
    """With tokens of a hundredth of their size, another epsilon moves them by far more than 1e-6."""
    frames, _ = FAMILIES[name]
    encoder, front_end, _ = opened(name, published_file(name, tmp_path, quiet=True))
    arrays = numbers(name)
    found = all_tokens(encoder, model_input(arrays["features"], front_end, frames))[:12]
    torch.testing.assert_close(found, arrays["tokens_quiet"], rtol=0, atol=1e-6)


def test_maskspec_has_the_sines_of_its_file(tmp_path):
    encoder, front_end, notes = opened("maskspec", published_file("maskspec", tmp_path))
    assert encoder.config.positions == "sincos_mae"
    assert encoder.position_table is None
    assert not any("position" in note for note in notes)
    arrays = numbers("maskspec")
    fill = -1.4025850296020508
    found = all_tokens(encoder, model_input(arrays["features"].T, front_end, 992, fill))
    torch.testing.assert_close(found, arrays["tokens"], rtol=0, atol=TOLERANCE)
    # Published clips are completed with zeros before the transform, ours mirrored at their end.
    clip = wave("maskspec")
    features = LogMel(front_end)(clip)[:, :218]
    torch.testing.assert_close(features, arrays["features"][:, :218], rtol=0, atol=1e-3)


@pytest.mark.parametrize(("quiet", "tolerance"), [(False, 1.4e-5), (True, 8.5e-8)])
def test_mae_ast_has_its_norms_and_its_input_statistics(quiet, tolerance, tmp_path, monkeypatch):
    encoder, front_end, _ = opened("mae_ast", published_file("mae_ast", tmp_path, quiet))
    if quiet:
        positions = 0.01 * encoder.positions(6)
        monkeypatch.setattr(encoder, "positions", lambda columns: positions)
    given = numbers("mae_ast", "input")
    log_mel = given["input"].float().transpose(1, 2)
    with torch.inference_mode():
        encoded = encoder(encoder.normalise(log_mel, None))
    found = encoded.patches.unflatten(1, (8, 6)).transpose(1, 2).flatten(1, 2)
    expected = numbers("mae_ast", "quiet" if quiet else "encoder")["tokens"]
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    features = LogMel(front_end)(given["wave"]).T
    expected = numbers("mae_ast", "encoder")["front_end"]
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["hf_vit", "hf_deit", "hf_vitmae"])
def test_image_models_see_a_grey_image_as_published(name, tmp_path):
    source = published_file(name, tmp_path)
    weights = read_weights(source)
    _, published = published_settings(source, reading(name))
    assert published.front_end is None
    encoder = ViT(replace(published.encoder, columns=4), 64).eval()
    encoder.load_state_dict(recognise(weights).convert(weights, encoder, reading(name)).state)
    arrays = numbers(name)
    found = all_tokens(encoder, arrays["grey"][None])
    torch.testing.assert_close(found, arrays["tokens_grey"], rtol=0, atol=TOLERANCE)


def test_the_settings_of_hugging_face_count_wherever_the_weights_lie(tmp_path):
    folder = published_file("hf_ast_geometry", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-5}))
    for source in (folder, f"{folder}/pytorch_model.bin"):
        encoder, front_end, _ = opened("hf_ast_geometry", source)
        assert encoder.config.norm_eps == 1e-5
        assert (encoder.config.stride, encoder.config.num_heads) == ((8, 12), 2)
        assert (front_end.mean, front_end.std) == (-6.6268077, 5.358466)


def test_a_state_dict_of_todays_transformers_reads_as_what_save_pretrained_writes(tmp_path):
    """In memory, version 5 has other names than in the file it writes."""
    published_file("hf_ast", tmp_path)
    written = torch.load(tmp_path / "pytorch_model.bin")
    renamed = {_in_memory(name): value for name, value in written.items()}
    assert len(renamed.keys() - written.keys()) == 2 * 16
    torch.save(renamed, tmp_path / "state.pth")
    expected, _, _ = opened("hf_ast", str(tmp_path / "pytorch_model.bin"))
    encoder, _, _ = opened("ast", str(tmp_path / "state.pth"))
    for name, value in expected.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value), name


def _in_memory(name):
    name = re.sub(r"encoder\.layer\.(\d+)", r"layers.\1", name)
    name = re.sub(r"attention\.attention\.(query|key|value)", _projection, name)
    name = name.replace("attention.output.dense", "attention.o_proj")
    name = name.replace("intermediate.dense", "mlp.fc1")
    return re.sub(r"(layers\.\d+)\.output\.dense", r"\1.mlp.fc2", name)


def _projection(match):
    return f"attention.{match.group(1)[0]}_proj"


def test_the_blocks_of_a_finetuned_audiomae_are_those_of_the_published_code(tmp_path):
    """It has no norm after its blocks, so that the last layer is compared."""
    name = "audiomae_finetuned"
    encoder, front_end, notes = opened(name, published_file(name, tmp_path))
    assert "no final norm in it, so the encoder keeps its own" in notes
    arrays = numbers(name)
    with torch.inference_mode():
        encoded = encoder(model_input(arrays["features"], front_end, 1024), layers=True)
    expected = our_order(arrays["tokens"], 8, name)
    torch.testing.assert_close(encoded.layers[-1][0], expected, rtol=0, atol=TOLERANCE)
