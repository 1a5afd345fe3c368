"""Finding a recipe by name: every public function in this folder is one."""

import importlib
import inspect
from collections.abc import Callable

from melpatch import registry
from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.objectives.base import Objective
from melpatch.training.config import RunConfig

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

    Raises:
        ConfigError: neither is called so; the message lists both.
    """
    name = name.replace("-", "_") if ":" not in name else name
    known = recipes()
    if name in known:
        return known[name]
    if ":" not in name and name not in registry.names("objectives"):
        names = sorted({*known, *registry.names("objectives")})
        raise ConfigError(f"no recipe or objective is called {name!r}; there are: {', '.join(names)}")
    objective = registry.find("objectives", name)
    if not (isinstance(objective, type) and issubclass(objective, Objective)):
        raise ConfigError(f"{name} is no objective; name a class derived from melpatch.objectives.base.Objective")
    return lambda named: RunConfig(objective=objective.Config(), encoder=ViT.sized(named))
