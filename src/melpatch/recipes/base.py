"""Find recipes by name, and apply them: every public function in this folder is a recipe."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import fields, replace
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
    by_name: dict[str, Recipe] = {}
    for name in registry.names("recipes"):
        module = importlib.import_module(f"melpatch.recipes.{name}")
        for function_name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not function_name.startswith("_"):
                by_name[function_name] = function
    return by_name


def recipe(name: str) -> Recipe:
    """Return a recipe by its name, or an objective's plain defaults under the objective's name.

    Args:
        name: of melpatch's own, of an installed package's, or ``package.module:name``.

    Raises:
        ConfigError: neither has this name; the message lists both.
    """
    spelled = _spelled(name)
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


def give_pieces(name: str) -> None:
    """Note the encoder and objective of a recipe outside melpatch as given by the user.

    A run that such a recipe started can then be resumed by the same command.
    """
    if ":" not in name and not registry.is_installed("recipes", name):
        return
    settings = recipe(name)("nano")
    for config in (settings.encoder, settings.objective):
        registry.give(registry.name_of(owner(config)))


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
    try:
        settings = recipe(size)
    except ConfigError:
        raise
    # Whatever is called may be no recipe at all.
    except Exception as error:
        raise ConfigError(f"{name} failed when called with {size!r}: {error!r}") from error
    if not isinstance(settings, RunConfig):
        raise ConfigError(
            f"{name} returned a {type(settings).__name__}; a recipe returns a melpatch.training.config.RunConfig"
        )
    return settings


@cache
def recipe_names(*, with_labels: bool) -> tuple[str, ...]:
    """Return the sorted names of recipes and objectives that learn with labels, or without."""
    names = {
        name
        for name, settings in recipes().items()
        if _learns_from_labels(settings("nano")) == with_labels
    }
    return tuple(sorted({*names, *objective_names(with_labels=with_labels)}))


def recipe_settings(name: str, size: str, encoder: str | None, *, with_labels: bool) -> RunConfig:
    """Return a recipe's settings for an encoder of a size.

    Args:
        name: recipe, objective, or ``package.module:Class``.
        size: name of the encoder's size.
        encoder: kind of encoder instead of the recipe's; None, or the recipe's own kind, keeps the
            recipe's settings.
        with_labels: whether the recipe must learn from labels, or must not.

    Raises:
        ConfigError: there is no such recipe, or it learns the other way (the message lists those
            allowed), or its objective cannot train such an encoder.
    """
    allowed = recipe_names(with_labels=with_labels)
    others = recipe_names(with_labels=not with_labels)
    elsewhere = ":" in name or any(
        registry.is_installed(group, name) for group in ("recipes", "objectives")
    )
    if not elsewhere and _spelled(name) not in {*allowed, *others}:
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
    kind = registry.find("encoders", encoder)
    objective: Any = owner(config.objective)
    # Refused now, before a corpus is read.
    objective.check_encoder(kind)
    return replace(config, encoder=kind.Config.of_size(size))


def onto(recipe: RunConfig, run: RunConfig) -> RunConfig:
    """Return a recipe's settings with the front end and the encoder of the run it starts from.

    What belongs to training rather than to the weights follows the recipe, if it sets it: drop
    path, stride, stretched positions. A recipe for one corpus, which fixes ``target_frames``, also
    brings that corpus's mean, std and padding, if the two front ends agree otherwise, up to the
    sampling rate, which is the run's.

    Raises:
        ConfigError: the recipe sets a stride for patches of another size than the run's.
    """
    encoder = run.encoder.with_recipe(recipe.encoder)
    is_for_one_corpus = recipe.front_end.target_frames is not None
    if is_for_one_corpus and _agree(run.front_end, recipe.front_end):
        corpus_settings = {name: getattr(recipe.front_end, name) for name in OF_A_CORPUS}
        front_end = replace(run.front_end, **corpus_settings)
        return replace(recipe, front_end=front_end, encoder=encoder)
    loader = recipe.loader
    if run.front_end.target_frames is not None:
        # A front end of fixed length takes no longer segments than in pretraining.
        loader = replace(loader, seconds=min(loader.seconds, run.loader.seconds))
    return replace(recipe, front_end=run.front_end, encoder=encoder, loader=loader)


def _agree(front_end: LogMel.Config, other: LogMel.Config) -> bool:
    """Return whether two front ends differ only in their rate and in what depends on a corpus."""
    names = {field.name for field in fields(front_end)} - {"sample_rate", *OF_A_CORPUS}
    return all(getattr(front_end, name) == getattr(other, name) for name in names)


def clips_to_measure(config: RunConfig) -> int:
    """Return how many clips mean and std are measured on by default: 0 if the recipe sets them."""
    front_end = config.front_end
    default = LogMel.Config()
    if front_end.padding == "legacy":
        return 0
    if (front_end.mean, front_end.std) != (default.mean, default.std):
        return 0
    return 512


def _spelled(name: str) -> str:
    """Return a recipe's name with underscores; ``package.module:Class`` stays as it is."""
    return name if ":" in name else name.replace("-", "_")


def _learns_from_labels(config: RunConfig) -> bool:
    objective: Any = owner(config.objective)
    return bool(objective.needs_labels)
