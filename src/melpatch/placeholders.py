"""Import the package without torch and its like, to show settings in a fraction of a second.

The help of a command shows the defaults of a recipe, whose settings are declared beside the
networks that they build. Reading them needs none of the arithmetic. So, while help is written,
heavy libraries are replaced by empty modules, as Sphinx does to document a package that is not
installed (``autodoc_mock_imports``).
"""

import sys
from abc import ABCMeta
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

HEAVY = {
    "filelock",
    "fsspec",
    "jaxtyping",
    "lightning_fabric",
    "matplotlib",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "soundfile",
    "soxr",
    "torch",
}
"""Libraries that take long to import and that no setting is made of."""


@contextmanager
def heavy_libraries_replaced() -> Iterator[None]:
    """Replace heavy libraries for the body of a ``with``; all modules imported in it are dropped again.

    Does nothing where torch is imported already.
    """
    if "torch" in sys.modules:
        yield
        return
    before = dict(sys.modules)
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _forget(sys.modules.keys() - before.keys())


def is_placeholder(value: object) -> bool:
    """Return whether a value comes out of a replaced library."""
    return isinstance(value, _Placeholder) and value.__module__ == __name__


class _Placeholder(ABCMeta):
    """The type of everything that a replaced library seems to hold.

    Each such thing is a class without content: it can be derived from, called, used as a decorator
    and named in an annotation. Classes of ours that derive from one are ordinary classes.
    """

    def __getattr__(cls, name: str) -> Any:
        if cls.__module__ != __name__ or name.startswith("__"):
            raise AttributeError(name)
        return _placeholder(name)

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        if cls.__module__ != __name__:
            return super().__call__(*arguments, **named)
        if len(arguments) == 1 and isinstance(arguments[0], FunctionType):
            return arguments[0]
        return cls

    def __getitem__(cls, item: Any) -> Any:
        return cls

    def __or__(cls, other: Any) -> Any:
        return cls

    __ror__ = __or__


def _placeholder(name: str) -> _Placeholder:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Placeholder(name, (), {"__module__": __name__})


class _Finder(MetaPathFinder, Loader):
    """Finds an empty module under the name of every heavy library, and of every part of one."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where to load a module from, or None if it is not a heavy one."""
        if name.partition(".")[0] in HEAVY:
            return ModuleSpec(name, self, is_package=True)
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Give the module a placeholder for whatever is asked of it."""
        module.__dict__["__getattr__"] = _placeholder


def _forget(names: set[str]) -> None:
    """Drop modules of this package and heavy ones, so that the next import is a real one."""
    for name in names:
        if name.partition(".")[0] not in {*HEAVY, "melpatch"}:
            continue
        module = sys.modules.pop(name)
        # A package also holds its modules as attributes, where "from package import module" looks
        # first.
        package, _, child = name.rpartition(".")
        holder = sys.modules.get(package)
        if getattr(holder, child, None) is module:
            delattr(holder, child)
