"""Newer published files give, by themselves, front end, tokens and evaluation features of the published code."""

import pytest
import torch
from golden.newer_weights import (
    all_tokens,
    dasheng_input,
    model_input,
    opened,
    pooled,
    quiet_tolerance,
    tolerance,
    valid_tokens,
)
from golden.published_weights import numbers, published_file

from melpatch.objectives.base import Features
from melpatch.training.foreign import Given, open_foreign

OUTPUTS = {
    "m2d": "encoder",
    "eat": "encoder",
    "eat_hf": "outputs",
    "atst_clip": "encoder",
    "atst_frame": "encoder",
    "dasheng": "outputs",
    "audiomosaic": "encoder",
}
"""Families, each with the file of its tokens and features."""
FEATURES = {
    ("m2d", "features_clip"): "rows+mean",
    ("eat", "features_class"): "cls",
    ("eat", "features_mean"): "mean",
    ("eat_hf", "features_class"): "cls",
    ("eat_hf", "features_mean"): "mean",
    ("atst_clip", "features_class_last"): "cls",
    ("atst_clip", "features_class"): "cls+normed-layers=all",
    ("atst_frame", "features_clip"): "mean+normed-layers=all",
    ("dasheng", "features_mean"): "mean",
}
"""Published features, each with the pooling that gives them."""


@pytest.fixture(scope="module")
def open_once(tmp_path_factory):
    kept = {}

    def open_family(name):
        if name not in kept:
            kept[name] = opened(name, tmp_path_factory.mktemp(name))
        return kept[name]

    return open_family


def encoded(encoder, spectrogram, valid=None):
    with torch.inference_mode():
        return encoder(spectrogram, valid)


def close(found, expected, atol):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_tokens_are_those_of_the_published_code(name, open_once):
    encoder, _ = open_once(name)
    valid = valid_tokens(name, encoder)
    found = all_tokens(name, encoded(encoder, model_input(name), valid), encoder.grid.rows)
    close(found, numbers(name, OUTPUTS[name])["tokens"], tolerance(name, "tokens"))


@pytest.mark.parametrize(("name", "array"), FEATURES)
def test_the_published_features_are_those_of_a_pooling(name, array, open_once):
    encoder, _ = open_once(name)
    valid = valid_tokens(name, encoder)
    found = pooled(encoder, model_input(name), FEATURES[name, array], valid)
    close(found, numbers(name, OUTPUTS[name])[array], tolerance(name, array))


@pytest.mark.parametrize(
    "name", ["m2d", "eat", "atst_clip", "atst_frame", "dasheng", "audiomosaic"]
)
def test_the_epsilon_of_the_norms_is_that_of_the_weights(name, tmp_path, monkeypatch):
    encoder, _ = opened(name, tmp_path, quiet=True)
    if encoder.position_table is None:
        # Sines that are fixed here are scaled in the published file.
        positions = 0.01 * encoder.positions(10)
        monkeypatch.setattr(encoder, "positions", lambda columns: positions)
    valid = valid_tokens(name, encoder)
    found = all_tokens(name, encoded(encoder, model_input(name), valid), encoder.grid.rows)
    close(found, numbers(name, "quiet")["tokens"], quiet_tolerance(name))


def test_m2d_takes_shorter_clips_and_pieces_of_longer_ones(open_once):
    """The last patch of a clip is completed with zeros; a piece is as long as the table in the file."""
    encoder, _ = open_once("m2d")
    expected = numbers("m2d", "encoder")
    short = pooled(encoder, model_input("m2d", "short"), "rows+mean")
    close(short, expected["short_features_clip"], tolerance("m2d", "short_features_clip"))
    columns = []
    for piece in model_input("m2d", "long").split(160, dim=2):
        patches = encoded(encoder, piece).patches.unflatten(1, (5, -1))
        columns.append(patches.transpose(1, 2).flatten(2))
    found = torch.cat(columns, dim=1)
    close(found, expected["long_features_time"], tolerance("m2d", "long_features_time"))


def test_m2d_normalises_by_the_statistics_in_the_file(open_once):
    _, front_end = open_once("m2d")
    given = numbers("m2d", "input")
    close(front_end(given["wave"]), (given["logmel"][0, 0] + 7.1) / 4.2, 1e-3 / 4.2)


def test_eat_of_hugging_face_takes_shorter_clips(open_once):
    encoder, _ = open_once("eat_hf")
    found = all_tokens("eat_hf", encoded(encoder, model_input("eat_hf", "short")), 8)
    expected = numbers("eat_hf", "outputs")["short_tokens"]
    close(found, expected, tolerance("eat_hf", "short_tokens"))


def test_the_classifier_of_eat_is_that_of_the_published_code(tmp_path):
    """The norm before its head has an epsilon of its own."""
    model = open_foreign(published_file("eat_hf", tmp_path), Given(multi_label=True))
    features = Features(model_input("eat_hf"), None)
    with torch.inference_mode():
        found = model.objective.eval().logits(features)
    close(found, numbers("eat_hf", "outputs")["logits"], tolerance("eat_hf", "logits"))
    assert model.objective.config.head_norm_eps == 1e-5


@pytest.mark.parametrize("name", ["atst_clip", "atst_frame"])
def test_atst_has_its_front_end(name, open_once):
    _, front_end = open_once(name)
    found = front_end(numbers(name, "input")["wave"])
    close(found, numbers(name, "encoder")["front_end"], tolerance(name, "front_end"))


def test_atst_takes_clips_without_padding(open_once):
    encoder, _ = open_once("atst_clip")
    found = all_tokens("atst_clip", encoded(encoder, model_input("atst_clip")), 1)
    expected = numbers("atst_clip", "encoder")["tokens_no_lengths"]
    close(found, expected, tolerance("atst_clip", "tokens_no_lengths"))


def test_dasheng_is_the_published_one_from_the_wave_on(open_once):
    encoder, front_end = open_once("dasheng")
    expected = numbers("dasheng", "outputs")
    spectrogram = front_end(numbers("dasheng", "input")["wave"])
    close(spectrogram, model_input("dasheng"), tolerance("dasheng", "input"))
    found = encoded(encoder, spectrogram).patches
    close(found, expected["tokens"], 10 * tolerance("dasheng", "tokens"))


def test_dasheng_takes_pieces_of_longer_clips(open_once):
    """As published: the last piece is completed with zeros after the normalisation, which it attends to."""
    encoder, _ = open_once("dasheng")
    expected = numbers("dasheng", "outputs")
    long = torch.nn.functional.pad(expected["long_input"], (0, 2 * 104 - 177))
    pieces = dasheng_input(torch.cat(long.split(104, dim=3)))
    tokens = encoded(encoder, pieces).patches.flatten(0, 1)[None, : 177 // 4]
    close(tokens, expected["long_tokens"], tolerance("dasheng", "long_tokens"))


def test_class_tokens_and_means_of_all_layers_of_atst_are_those_of_a_pooling(open_once):
    """The published class tokens come first, ours last."""
    encoder, _ = open_once("atst_clip")
    valid = valid_tokens("atst_clip", encoder)
    found = pooled(encoder, model_input("atst_clip"), "mean+cls+normed-layers=all", valid)
    means, cls = found.chunk(2, dim=1)
    expected = numbers("atst_clip", "encoder")["features_class_and_mean"]
    tolerated = tolerance("atst_clip", "features_class_and_mean")
    close(torch.cat([cls, means], dim=1), expected, tolerated)


def test_the_mean_of_audiomosaic_counts_its_class_token_as_a_patch(open_once):
    encoder, _ = open_once("audiomosaic")
    spectrogram = model_input("audiomosaic")
    mean, cls = pooled(encoder, spectrogram, "mean+cls").chunk(2, dim=1)
    patches = encoder.grid.count(spectrogram.shape[2])
    found = (patches * mean + cls) / (patches + 1)
    expected = numbers("audiomosaic", "encoder")["features_mean_all"]
    close(found, expected, tolerance("audiomosaic", "features_mean_all"))
