"""Recipes: every one builds, survives TOML, and has the sizes that its source states."""

import inspect
import tomllib
from dataclasses import replace

import pytest
import torch

from melpatch import recipes as folder
from melpatch.config import from_dict, owner, to_toml
from melpatch.encoders.vit import SIZES, ViT
from melpatch.errors import ConfigError
from melpatch.objectives.ssast import SSAST
from melpatch.recipes.base import recipe, recipes
from melpatch.training.config import RunConfig, build, objective_names
from melpatch.training.start import fitted

PUBLISHED = {"tiny": 6.046, "small": 22.854, "base": 88.763}
"""Millions of parameters of the published SSAST, two unused heads for ImageNet's 1000 classes among them."""


def built(config):
    """The objective without memory for its weights."""
    with torch.device("meta"):
        return build(config)


def settings(name, size):
    config = recipe(name)(size)
    return replace(config, labels=("a", "b")) if owner(config.objective).needs_labels else config


def test_what_is_found_is_what_the_files_hold():
    assert {"ssast", "ssast_patch", "ssast_frame", "finetune"} <= recipes().keys()
    assert all(inspect.isfunction(one) and one.__module__.startswith(folder.__name__) for one in recipes().values())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_recipe_builds_and_may_be_trained(name, size):
    config = fitted(settings(name, size))
    objective = built(config)
    objective.check(config.loader.seconds)
    assert objective.encoder.embed_dim == SIZES[size]["embed_dim"]
    assert objective.encoder.num_layers == SIZES[size]["depth"]


@pytest.mark.parametrize("size", ["nano", "base"])
@pytest.mark.parametrize("name", [*sorted(recipes()), *objective_names(with_labels=False)])
def test_every_recipe_survives_toml(name, size):
    config = recipe(name)(size)
    assert from_dict(RunConfig, tomllib.loads(to_toml(config))) == config


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_ssast_has_the_published_number_of_parameters(size):
    count = sum(parameter.numel() for parameter in built(recipe("ssast_patch")(size)).parameters())
    unused = 2 * (1000 * SIZES[size]["embed_dim"] + 1000)
    assert round((count + unused) / 1e6, 3) == PUBLISHED[size]


@pytest.mark.parametrize(("name", "grid"), [("ssast_patch", (8, 64)), ("ssast_frame", (1, 512))])
def test_published_ssast_has_512_patches_of_256_pixels_and_hides_400(name, grid):
    config = recipe(name)("base")
    assert fitted(config) == config
    objective = built(config)
    objective.check(config.loader.seconds)
    rows, columns = grid
    frames = objective.front_end.frames(round(config.loader.seconds * objective.front_end.sample_rate))
    assert (frames, objective.encoder.grid.rows, objective.encoder.grid.columns(frames)) == (1024, rows, columns)
    assert objective.encoder.grid.pixels == 256
    assert objective.window == 512
    assert config.objective.num_masked == 400


def test_published_ssast_takes_segments_of_any_length_as_they_are_padded_to_1024_frames():
    config = recipe("ssast_patch")("nano")
    assert fitted(replace(config, loader=replace(config.loader, seconds=5.0))).encoder.columns == 64


def test_clusters_hide_patches_and_chance_hides_frames():
    assert built(recipe("ssast_patch")("nano")).clusters
    assert not built(recipe("ssast_frame")("nano")).clusters


@pytest.mark.parametrize(("size", "batch_size", "lr"), [("tiny", 120, 5e-4), ("base", 24, 1e-4)])
def test_published_batch_and_rate_go_by_size(size, batch_size, lr):
    config = recipe("ssast_patch")(size)
    assert (config.loader.batch_size, config.train.lr) == (batch_size, lr)
    assert (config.train.optimizer, config.train.betas, config.train.weight_decay) == ("adam", (0.95, 0.999), 5e-7)


def test_an_objective_is_a_recipe_of_its_plain_defaults():
    plain = recipe("classify")("nano")
    assert plain == RunConfig(objective=plain.objective, encoder=ViT.Config(**SIZES["nano"]))
    assert plain.objective == type(plain.objective)()


def test_a_class_of_ones_own_is_a_recipe_too():
    assert recipe("melpatch.objectives.ssast:SSAST")("nano").objective == SSAST.Config()
    assert recipe("ssast-patch") is recipe("ssast_patch")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", "no recipe or objective is called 'nope'; there are: .*ssast, ssast_frame, ssast_patch"),
        ("nowhere.at_all:X", "cannot be imported.*write package.module:Class"),
        ("melpatch.objectives.ssast:Nope", "cannot be imported.*write package.module:Class"),
        ("melpatch.rng:uniform", "is no objective; name a class derived from melpatch.objectives.base.Objective"),
        ("melpatch.encoders.vit:ViT", "is no objective"),
    ],
)
def test_what_is_no_recipe_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        recipe(name)


def test_a_size_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="size = 'huge'; allowed: nano, mini, tiny, small, base"):
        recipe("ssast")("huge")
