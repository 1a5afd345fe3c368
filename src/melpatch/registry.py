"""Pieces by name: the files of a folder, entry points of installed packages, and ``package.module:name``.

A file dropped into ``objectives/`` (or ``encoders/``, ...) is found by its name. It holds one
public class or function of its own name in CamelCase or snake_case, or names it with
``__registered__ = "Name"``. Another package offers pieces with entry points, in the group of the
kind::

    [project.entry-points."melpatch.objectives"]
    warbler = "birds.objectives:Warbler"

Built-in names win over entry points of the same name. Summaries are read from docstrings without
importing anything.

Importing ``package.module:name`` runs code. A name that the user typed or passed is imported; one
that stands in a file, such as the ``config.toml`` of a run, is refused unless the user allows it.
"""

import ast
import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from melpatch.errors import ConfigError, shortened

KINDS = (
    *("objectives", "encoders", "recipes", "protocols", "datasets", "interop", "targets"),
    "commands",
)
"""The kinds of pieces that there are; each is a folder, and the end of the name of a group of entry points."""
NOT_PIECES = {
    "__init__",
    "base",
    "bootstrap",
    "contrastive",
    "latent",
    "made_up",
    "masked",
    "masked_contrastive",
    "synthesis",
    "teacher",
    "timm_positions",
    "trained_part",
    "views",
}
NOT_LISTED = {"encoder_only"}
"""Pieces that the settings of a run name, but that nobody chooses."""
_ROOT = Path(__file__).parent
# Names of code that the user gave in this process. A file may name that code too.
_GIVEN: set[str] = set()
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "objectives": (
        "an objective class with a Config",
        lambda piece: _is_class(piece, "Config", "needs_labels"),
    ),
    "encoders": (
        "an encoder class with a Config",
        lambda piece: _is_class(piece, "Config", "match_geometry"),
    ),
    "protocols": ("a protocol class", lambda piece: _is_class(piece)),
    "interop": ("a weight format class", lambda piece: _is_class(piece, "recognises")),
    "targets": ("a target class", lambda piece: _is_class(piece, "ending", "write")),
    "datasets": ("a dataset's card", lambda piece: hasattr(piece, "download")),
    "commands": ("a module with Config and run", lambda piece: _has(piece, "Config", "run")),
    # Functions of the interpreter, such as os.system, are no recipes, and must not be tried.
    "recipes": (
        "a function of the encoder's size",
        lambda piece: callable(piece) and not inspect.isbuiltin(piece),
    ),
}


class Piece(NamedTuple):
    """What a list says of a piece."""

    summary: str
    """The first line of its docstring."""
    origin: str
    """The package that it comes from."""


def names(kind: str) -> list[str]:
    """Return the names that melpatch itself offers: the modules of a folder, sorted, but for those above.

    Args:
        kind: path below the package, such as ``"objectives"``.
    """
    return sorted(_modules(kind) - NOT_LISTED)


def all_names(kind: str) -> list[str]:
    """Return the names that melpatch and installed packages offer; nothing is imported."""
    return sorted({*names(kind), *_installed(kind)})


def pieces(kind: str) -> dict[str, Piece]:
    """Return summary and origin of every piece of a kind by its name, without importing any.

    Every public function in the files of ``recipes/`` is a recipe.
    """
    listed = {}
    for name in names(kind):
        for piece, summary in _summaries(kind, name).items():
            listed[piece] = Piece(summary, "melpatch")
    for name, entry in _installed(kind).items():
        if name not in listed:
            listed[name] = Piece(_summary_of_entry(entry), _package(entry))
    return listed


def summary(kind: str, name: str) -> str:
    """Return the first line of the docstring of a file in a folder, without importing it."""
    return _first_line(_parsed(_ROOT / kind / f"{name}.py"))


def find(kind: str, name: str) -> Any:
    """Return a piece by its name.

    Args:
        kind: path below the package, such as ``"objectives"``.
        name: a module name (``ssast``, in small or capital letters; dashes are underscores), the
            name of an entry point, or ``package.module:name``.

    Raises:
        ConfigError: nothing of that name exists, or it is something else; the message lists what
            does.
    """
    if ":" in name:
        piece = _checked(kind, name, _imported(kind, name))
        _GIVEN.add(name)
        return piece
    name = name.replace("-", "_").lower()
    if name in _modules(kind):
        notice_if_shadowed(kind, name)
        module = importlib.import_module(f"melpatch.{kind.replace('/', '.')}.{name}")
        return module if kind == "commands" else getattr(module, _registered(module, name))
    installed = _installed(kind)
    if name in installed:
        return _checked(kind, installed[name].value, _imported(kind, installed[name].value))
    raise ConfigError(unknown(kind.removesuffix("s"), name, all_names(kind)))


def find_in_file(kind: str, name: Any, where: str, *, trust_code: bool) -> Any:
    """Return a piece by a name that stands in a file, whose author need not be the user.

    Args:
        kind: path below the package, such as ``"objectives"``.
        name: what the file holds.
        where: the place in the file, for messages.
        trust_code: whether the user allows the file to name code of any module.

    Raises:
        ConfigError: nothing of that name exists, or it is code that the user has not allowed.
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"{where}: name = {shortened(name)} is not text; allowed: the name of a piece"
        )
    require_trusted(kind, name, where, trust_code=trust_code)
    try:
        return find(kind, name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def require_trusted(kind: str, name: str, where: str, *, trust_code: bool) -> None:
    """Raise ConfigError if a name in a file is code that the user has neither given nor allowed."""
    if ":" not in name or trust_code or name in _GIVEN:
        return
    # A name that is no path of code runs nothing; find() says what is wrong with it.
    if not _PATH.fullmatch(name) or any(name == entry.value for entry in _installed(kind).values()):
        return
    raise ConfigError(
        f"{where}: names {shortened(name)}, and opening it would run that code; if you trust it, "
        "add --trust-code (in Python, trust_code=True)"
    )


def give(name: str) -> None:
    """Note a name that the user gave, so that files may name the same code in this process."""
    _GIVEN.add(name)


def is_code(name: str) -> bool:
    """Return whether a name is of the form ``package.module:name``."""
    return _PATH.fullmatch(name) is not None


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return a message for a name that does not exist, with names that are spelled alike, or else all names."""
    known = sorted(known)
    close = difflib.get_close_matches(name[:100], known)
    advice = f"did you mean {' or '.join(close)}? " if close else ""
    return f"unknown {what} {shortened(name)}; {advice}available: {', '.join(known)}"


def is_installed(kind: str, name: str) -> bool:
    """Return whether an installed package offers a piece under this name; nothing is imported."""
    return name.replace("-", "_").lower() in _installed(kind)


@cache
def notice_if_shadowed(kind: str, name: str) -> None:
    """Say, once, that a name of melpatch's own hides one of an installed package."""
    entry = _installed(kind).get(name)
    if entry is None:
        return
    from melpatch.progress import notice  # not above: it imports rich, which listing does without

    notice(f"{kind} {name!r} is melpatch's own; for that of {_package(entry)}, write {entry.value}")


def name_of(piece: type) -> str:
    """Return the name under which ``find`` gives this class back."""
    module = piece.__module__
    if module.startswith("melpatch."):
        return module.rsplit(".", 1)[1]
    return f"{module}:{piece.__qualname__}"


def _modules(kind: str) -> set[str]:
    """Return the names of the modules of a folder that hold pieces."""
    return {file.stem for file in (_ROOT / kind).glob("*.py")} - NOT_PIECES


def _imported(kind: str, path: str) -> Any:
    """Return the object at ``package.module:name``, where the name may also be a module; or a whole module.

    Raises:
        ConfigError: the path is malformed, or importing it fails.
    """
    module, colon, attribute = path.partition(":")
    if not _PATH.fullmatch(path if colon else f"{module}:x"):
        raise ConfigError(f"{kind} {shortened(path)}: not a name; write package.module:name")
    try:
        piece: Any = importlib.import_module(module)
        for part in attribute.split(".") if colon else ():
            if not hasattr(piece, part) and isinstance(piece, ModuleType):
                importlib.import_module(f"{piece.__name__}.{part}")
            piece = getattr(piece, part)
    # Whatever the module does at its import, even ending the process.
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{kind} {path!r} cannot be imported: {_why_not_imported(module, attribute, error)}"
        ) from error
    return piece


def _why_not_imported(module: str, attribute: str, error: BaseException) -> str:
    """Return why ``module:attribute`` could not be imported, and what to do."""
    if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
        return (
            f"there is no module {error.name!r} in the folder that the command started in, nor "
            "among the installed ones; start in the folder of the file, or name that folder in "
            "PYTHONPATH"
        )
    imported = sys.modules.get(module)
    if imported is not None and "." not in attribute and not hasattr(imported, attribute):
        close = difflib.get_close_matches(attribute, vars(imported))
        advice = f"; did you mean {' or '.join(close)}?" if close else "; write package.module:name"
        return f"{module} has no {attribute!r}{advice}"
    reason = str(error) if isinstance(error, ImportError | AttributeError) else repr(error)
    return f"{reason}; write package.module:name"


def _checked(kind: str, name: str, piece: Any) -> Any:
    """Return a piece from outside.

    Raises:
        ConfigError: it is nothing of that kind.
    """
    wanted, fits = _EXPECTED.get(kind, ("", lambda piece: True))
    if not fits(piece):
        raise ConfigError(f"{kind} {name!r} is a {type(piece).__name__}; wanted: {wanted}")
    if isinstance(piece, type) and isinstance(getattr(piece, "Config", None), type):
        _require_own_config(kind, name, piece)
    return piece


def _require_own_config(kind: str, name: str, piece: Any) -> None:
    """Raise ConfigError if a class inherits its Config, by which the parent would be built."""
    of = piece.Config.__qualname__.rpartition(".")[0]
    if (piece.Config.__module__, of) != (piece.__module__, piece.__qualname__):
        raise ConfigError(
            f"{kind} {name!r} has no Config of its own, so {of} would be built in its stead; add "
            f"to the class a frozen dataclass, class Config({of}.Config), which may be empty"
        )


def _is_class(piece: Any, *attributes: str) -> bool:
    return isinstance(piece, type) and _has(piece, *attributes)


def _has(piece: Any, *attributes: str) -> bool:
    return all(hasattr(piece, attribute) for attribute in attributes)


def _installed(kind: str) -> dict[str, EntryPoint]:
    """Return the entry points of a kind by their names, in small letters and with underscores."""
    folders = tuple((path, _changed_at(path)) for path in sys.path)
    return _installed_in(folders, kind)


@lru_cache(maxsize=64)
def _installed_in(folders: tuple[tuple[str, int], ...], kind: str) -> dict[str, EntryPoint]:
    """Return the entry points of a kind, which are read again once a folder of ``sys.path`` has changed."""
    group = entry_points(group=f"melpatch.{kind}")
    return {entry.name.replace("-", "_").lower(): entry for entry in group}


def _changed_at(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns  # noqa: PTH116 - called often
    except (OSError, ValueError):
        return 0


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.module


def _registered(module: ModuleType, name: str) -> str:
    explicit = getattr(module, "__registered__", None)
    if explicit:
        return str(explicit)
    wanted = name.replace("_", "").lower()
    for attribute, value in vars(module).items():
        is_piece = inspect.isclass(value) or inspect.isfunction(value)
        if not is_piece or value.__module__ != module.__name__:
            continue
        if attribute.replace("_", "").lower() == wanted:
            return attribute
    raise ConfigError(
        f"{module.__name__} registers nothing: name its class like the file, or set __registered__"
    )


def _summaries(kind: str, name: str) -> dict[str, str]:
    """Return the summary of each piece in a file by its name."""
    if kind != "recipes":
        return {name: summary(kind, name)}
    return {
        node.name: _first_line(node)
        for node in _parsed(_ROOT / kind / f"{name}.py").body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


def _summary_of_entry(entry: EntryPoint) -> str:
    """Return the first line of the docstring of what an entry point names, if its source is found."""
    file = Path(*entry.module.split("."))
    for path in (file.with_suffix(".py"), file / "__init__.py"):
        source = Path(str(entry.dist.locate_file(path))) if entry.dist else path
        if not source.is_file():
            continue
        tree = _parsed(source)
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == entry.attr:
                return _first_line(node) or _first_line(tree)
        return _first_line(tree)
    return f"See {entry.value}."


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _first_line(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]
