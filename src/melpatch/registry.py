"""The folder is the registry: a file dropped into ``objectives/`` (or ``encoders/``, ...) is found by its name.

A registered module holds exactly one public class or function of its own name in CamelCase or snake_case, or names it
with ``__registered__ = "Name"``. Its summary is the first line of its docstring, read without importing it, so that
listing is instant.
"""

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from melpatch.errors import ConfigError

_ROOT = Path(__file__).parent
NOT_PIECES = {"__init__", "base"}


def names(folder: str) -> list[str]:
    """Return the names that a folder of the package offers: its modules, sorted, without ``base``.

    Args:
        folder: path below the package, such as ``"objectives"``.
    """
    return sorted(
        file.stem for file in (_ROOT / folder).glob("*.py") if file.stem not in NOT_PIECES
    )


def summary(folder: str, name: str) -> str:
    """Return the first line of a module's docstring, without importing the module."""
    tree = ast.parse((_ROOT / folder / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").split("\n")[0]


def find(folder: str, name: str) -> Any:
    """Return what the module ``name`` of ``folder`` registers, or an object of the user's own code.

    Args:
        folder: path below the package, such as ``"objectives"``.
        name: a module name (``ssast``, in small or capital letters; dashes are underscores) or
            ``package.module:Class`` for code outside melpatch.

    Raises:
        ConfigError: nothing of that name exists; the message lists what does.
    """
    if ":" in name:
        module_name, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"{folder} {name!r} cannot be imported: {error}; write package.module:Class"
            ) from error
    name = name.replace("-", "_").lower()
    if name not in names(folder):
        raise ConfigError(
            f"no {folder} piece is called {name!r}; there are: {', '.join(names(folder))}"
        )
    module = importlib.import_module(f"melpatch.{folder.replace('/', '.')}.{name}")
    return getattr(module, _registered(module, name))


def _registered(module: ModuleType, name: str) -> str:
    explicit = getattr(module, "__registered__", None)
    if explicit:
        return str(explicit)
    wanted = name.replace("_", "").lower()
    for attribute, value in vars(module).items():
        own = (
            inspect.isclass(value) or inspect.isfunction(value)
        ) and value.__module__ == module.__name__
        if own and attribute.replace("_", "").lower() == wanted:
            return attribute
    raise ConfigError(
        f"{module.__name__} registers nothing: name its class like the file, or set __registered__"
    )


def name_of(piece: type) -> str:
    """Return the name under which ``find`` gives this class back."""
    module = piece.__module__
    if module.startswith("melpatch."):
        return module.rsplit(".", 1)[1]
    return f"{module}:{piece.__qualname__}"
