"""Finding a recipe by name: every public function in this folder is one."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from melpatch import registry
from melpatch.audio.logmel import LogMel
from melpatch.config import owner
from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.objectives.base import Objective
from melpatch.training.config import RunConfig, objective_names
from melpatch.training.start import OF_A_CORPUS

Recipe = Callable[[str], RunConfig]


def recipes() -> dict[str, Recipe]:
    """Return all recipes by name; each takes the size of the encoder ("tiny", ...)."""
    found: dict[str, Recipe] = {}
    for name in registry.names("recipes"):
        module = importlib.import_module(f"melpatch.recipes.{name}")
        for function_name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not function_name.startswith("_"):
                found[function_name] = function
    return found


def recipe(name: str) -> Recipe:
    """Return a recipe by its name, or an objective's plain defaults under the objective's name.

    Args:
        name: of melpatch's own, of an installed package's, or ``package.module:name``.

    Raises:
        ConfigError: neither is called so; the message lists both.
    """
    spelled = name if ":" in name else name.replace("-", "_")
    own = recipes()
    if spelled in own:
        registry.notice_if_shadowed("recipes", spelled)
        return own[spelled]
    if ":" in name or registry.is_installed("recipes", name):
        piece = registry.find("recipes", name)
    else:
        known = {*own, *registry.all_names("objectives"), *registry.all_names("recipes")}
        if spelled not in registry.all_names("objectives"):
            raise ConfigError(registry.unknown("recipe or objective", name, known))
        piece = registry.find("objectives", name)
    if isinstance(piece, type) and issubclass(piece, Objective):
        return lambda size: RunConfig(objective=piece.Config(), encoder=ViT.Config.of_size(size))
    if isinstance(piece, type):
        raise ConfigError(
            f"{name} is no objective; name a class derived from melpatch.objectives.base.Objective"
        )
    return lambda size: _settings_of(name, piece, size)


def _settings_of(name: str, recipe: Callable[[str], Any], size: str) -> RunConfig:
    """Return the settings that a recipe from outside melpatch gives.

    Raises:
        ConfigError: it is no recipe.
    """
    try:
        inspect.signature(recipe).bind(size)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} cannot be called with the size of an encoder: {error}"
        ) from error
    settings = recipe(size)
    if not isinstance(settings, RunConfig):
        raise ConfigError(
            f"{name} returned a {type(settings).__name__}; a recipe returns a melpatch.training.config.RunConfig"
        )
    return settings


@cache
def recipe_names(*, with_labels: bool) -> tuple[str, ...]:
    """Return the recipes, and the objectives with their defaults, that do or do not learn from labels, sorted."""
    found = {
        name for name, one in recipes().items() if _learns_from_labels(one("nano")) == with_labels
    }
    return tuple(sorted({*found, *objective_names(with_labels=with_labels)}))


def recipe_settings(name: str, size: str, encoder: str | None, *, with_labels: bool) -> RunConfig:
    """Return a recipe's settings for an encoder of a size.

    Args:
        name: recipe, objective, or ``package.module:Class``.
        size: name of the encoder's size.
        encoder: kind of encoder to put in the place of the recipe's; None, or the kind it has already, keeps that.
        with_labels: whether the recipe is to learn from labels.

    Raises:
        ConfigError: there is no such recipe, or one that learns the other way; the message lists what there is. Or its
            objective cannot train such an encoder.
    """
    spelled = name if ":" in name else name.replace("-", "_")
    allowed, others = (
        recipe_names(with_labels=labels) for labels in (with_labels, not with_labels)
    )
    elsewhere = ":" in name or any(
        registry.is_installed(group, name) for group in ("recipes", "objectives")
    )
    if not elsewhere and spelled not in {*allowed, *others}:
        raise ConfigError(registry.unknown("recipe or objective", name, allowed))
    config = recipe(name)(size)
    if _learns_from_labels(config) and not with_labels:
        raise ConfigError(
            f"{name} learns from labels, so it cannot pretrain; melpatch finetune --recipe {name} trains a classifier"
        )
    if with_labels and not _learns_from_labels(config):
        raise ConfigError(
            f"{name} learns without labels, so it trains no classifier; allowed for --recipe: {', '.join(allowed)}"
        )
    if encoder is None or registry.name_of(owner(config.encoder)) == encoder.replace("-", "_"):
        return config
    kind, objective = registry.find("encoders", encoder), owner(config.objective)
    objective.check_encoder(kind)  # type: ignore[attr-defined]  # before a corpus is read
    return replace(config, encoder=kind.Config.of_size(size))


def onto(recipe: RunConfig, run: RunConfig) -> RunConfig:
    """Return a recipe's settings with the front end and the encoder of the run that it is to start from.

    What belongs to the training and not to the weights is the recipe's, if it says so: drop path, another stride,
    positions that are stretched. So are, of a recipe for one corpus (it fixes ``target_frames``), that corpus's
    mean and std and how its clips are padded, where the two front ends mean the same by a spectrogram.

    Raises:
        ConfigError: the recipe has a stride, and the run patches of another size.
    """
    of_a_corpus = {name: getattr(recipe.front_end, name) for name in OF_A_CORPUS}
    fixed = recipe.front_end.target_frames is not None
    encoder = run.encoder.with_recipe(recipe.encoder)
    if fixed and replace(run.front_end, **of_a_corpus) == recipe.front_end:
        return replace(recipe, encoder=encoder)
    loader = recipe.loader
    if run.front_end.target_frames is not None:  # it hears no more at once than it did
        loader = replace(loader, seconds=min(loader.seconds, run.loader.seconds))
    return replace(recipe, front_end=run.front_end, encoder=encoder, loader=loader)


def _learns_from_labels(config: RunConfig) -> bool:
    objective: Any = owner(config.objective)
    return bool(objective.needs_labels)


def clips_to_measure(config: RunConfig) -> int:
    """Return on how many clips mean and std are measured by default: none where a recipe brings its own."""
    front, plain = config.front_end, LogMel.Config()
    published = front.padding == "legacy" or (front.mean, front.std) != (plain.mean, plain.std)
    return 0 if published else 512
