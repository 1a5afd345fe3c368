"""What a fine-tuning recipe takes from the run that it starts from."""

from dataclasses import replace

import pytest
import torch
from journeys.three_sounds import melpatch, write_corpus, write_run

from melpatch.config import from_toml
from melpatch.encoders.cnn14 import CNN14
from melpatch.errors import ConfigError
from melpatch.nn.positions import resize
from melpatch.recipes.base import onto, recipe
from melpatch.training.config import RunConfig
from melpatch.training.start import load_run

NARROW = {"embed_dim": 12, "depth": 1, "num_heads": 1}


def pretrained(name):
    """Return the settings of a pretraining run with a narrow encoder."""
    config = recipe(name)("nano")
    config = replace(config, encoder=replace(config.encoder, **NARROW))
    if hasattr(config.objective, "distillation"):
        heads = {
            "global_prototypes": 8,
            "local_prototypes": 6,
            "hidden_dim": 8,
            "bottleneck_dim": 4,
        }
        distillation = replace(config.objective.distillation, **heads)
        config = replace(
            config, objective=replace(config.objective, decoder=(8,), distillation=distillation)
        )
    return config


def test_a_recipe_for_own_data_keeps_the_front_end_and_encoder_of_the_run():
    run = pretrained("asit")
    run = replace(run, front_end=replace(run.front_end, mean=-7.0, std=3.0))
    own = recipe("finetune")("nano")
    merged = onto(own, run)
    assert merged == replace(own, front_end=run.front_end, encoder=run.encoder)
    assert merged.encoder.drop_path == 0.1


def test_a_recipe_for_one_corpus_sets_statistics_padding_and_stride():
    run = pretrained("ssast")
    run = replace(run, front_end=replace(run.front_end, mean=-7.0, std=3.0))
    published = recipe("ssast_esc50")("base")
    merged = onto(published, run)
    assert merged == replace(
        published, encoder=replace(run.encoder, stride=(10, 10), partial="drop")
    )
    assert merged.front_end.mean == -6.6268077
    assert merged.encoder.positions == "sincos"


def test_the_run_keeps_its_statistics_if_its_front_end_differs():
    run = pretrained("ssast")
    run = replace(run, front_end=replace(run.front_end, window="povey"))
    merged = onto(recipe("ssast_esc50")("nano"), run)
    assert merged.front_end == run.front_end
    assert merged.encoder.stride == (10, 10)


def test_a_recipe_for_one_corpus_is_for_a_run_of_any_rate():
    """As ASiT of the paper, at 32 kHz: frames are as long as at 16 kHz, and statistics are taken."""
    published = recipe("asit_esc50")("nano")
    merged = onto(published, pretrained("asit"))
    assert merged.front_end == replace(published.front_end, sample_rate=32000)
    assert merged.front_end.mean == -6.6268077


def test_segments_are_no_longer_than_a_kept_front_end_of_fixed_length():
    run = pretrained("ssast_patch")
    run = replace(run, loader=replace(run.loader, seconds=2.0))
    assert onto(recipe("finetune")("nano"), run).loader.seconds == 2.0
    assert onto(recipe("ssast_esc50")("nano"), run).loader.seconds == 5.135


def test_learned_positions_are_stretched_if_the_recipe_asks_for_it():
    learned = pretrained("asit")
    fixed = pretrained("asit_short")
    assert onto(recipe("asit_esc50")("nano"), learned).encoder == replace(
        learned.encoder, positions="stretched"
    )
    assert onto(recipe("asit_esc50")("nano"), fixed).encoder == fixed.encoder


def test_another_kind_of_encoder_is_unchanged():
    run = replace(pretrained("ssast"), encoder=CNN14.Config(width=1))
    assert onto(recipe("ssast_esc50")("nano"), run).encoder == run.encoder


@pytest.mark.parametrize(
    ("name", "run"), [("ssast_esc50", "ssast_frame"), ("ssast_esc50_frame", "ssast_patch")]
)
def test_a_stride_for_other_patches_is_refused(name, run):
    with pytest.raises(
        ConfigError,
        match=r"^encoder.patch = \(\d+, \d+\); allowed: \(\d+, \d+\), which this recipe's",
    ):
        onto(recipe(name)("nano"), pretrained(run))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"), per_class=2)


@pytest.mark.parametrize(
    ("run", "name", "grid", "how"),
    [
        ("ssast_patch", "ssast_esc50", (12, 50), "bilinear"),
        ("ssast_patch", "ssast_speech_commands", (12, 12), "bilinear"),
        ("ssast_patch", "ssast_keywords", (12, 9), "bilinear"),
        ("ssast_frame", "ssast_esc50_frame", (1, 511), "bilinear"),
        ("ssast_frame", "ssast_keywords_frame", (1, 99), "bilinear"),
        ("asit", "asit_esc50", (8, 32), "bicubic"),
        ("asit", "asit_audioset_20k", (8, 64), "bicubic"),
    ],
)
def test_a_published_recipe_fine_tunes_a_run_on_its_own_grid(
    run, name, grid, how, corpus, tmp_path
):
    before = write_run(tmp_path / "before", pretrained(run))
    start = ("--init", before, "--recipe", name)
    short = ("--steps", "2", "--batch-size", "2", "--workers", "0", "--evaluations", "1")
    out = tmp_path / "after"
    melpatch("finetune", *start, "--data", corpus, "--out", out, *short, "--objective.frozen")
    config = from_toml(RunConfig, tmp_path / "after" / "config.toml")
    published = recipe(name)("nano")
    sample_rate = pretrained(run).front_end.sample_rate
    assert config.front_end == replace(published.front_end, sample_rate=sample_rate)
    assert config.encoder == replace(
        published.encoder, **NARROW, drop_path=pretrained(run).encoder.drop_path
    )
    assert config.encoder.grid(128).rows == grid[0]
    assert config.encoder.columns == grid[1]
    source, classifier = (
        load_run(tmp_path / part)[1].export_encoder() for part in ("before", "after")
    )
    expected = resize(source.position_table, (source.grid.rows, source.config.columns), grid, how)
    torch.testing.assert_close(classifier.position_table, expected)
