"""The flags of a command: every field of its configuration, with type, default and documentation."""

import ast
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import tyro

REQUIRED = tyro.MISSING
"""The default of a setting that has none."""
_WORDS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", bool: "BOOL"}


class Flag(NamedTuple):
    """One setting as the command line offers it."""

    name: str
    """Dotted path of the setting, such as ``front_end.n_mels``; some tables add nothing to it."""
    kind: str
    """What follows the flag, such as ``INT``; empty for a switch."""
    default: Any
    doc: str
    owner: type
    """The dataclass that declares the setting."""
    positional: bool = False

    @property
    def spelled(self) -> str:
        """The flag as it is typed, such as ``--front-end.n-mels``; a positional is in capitals."""
        if self.positional:
            return self.name.upper()
        return f"--{self.name.replace('_', '-')}"

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is REQUIRED

    @property
    def is_switch(self) -> bool:
        """Whether the flag stands alone, and has an opposite with ``no-`` in it."""
        return not self.kind and not self.positional


def flags_of(kind: type, default: Any = None, prefix: str = "") -> Iterator[Flag]:
    """Yield the flags of a dataclass, those of nested dataclasses included.

    Args:
        kind: the dataclass.
        default: an instance with the defaults; without, the fields' own hold.
        prefix: what stands before every name.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, marks = _without_marks(hints[field.name])
        if tyro.conf.Suppress in marks:
            continue
        value = _default(field) if default is None else getattr(default, field.name)
        name = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            inner = prefix if _adds_no_prefix(marks) else f"{name}."
            yield from flags_of(type(value), value, inner)
        elif dataclasses.is_dataclass(hint):
            inner = prefix if _adds_no_prefix(marks) else f"{name}."
            yield from flags_of(typing.cast(type, hint), None, inner)
        else:
            positional = tyro.conf.Positional in marks
            words = "" if hint is bool and not positional else kind_of(hint)
            yield Flag(name, words, value, _doc(kind, field.name), kind, positional)


def kind_of(hint: Any) -> str:
    """Return what a value of a type looks like on the command line: ``INT``, ``{a,b}``, ``PATH...``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "{" + ",".join(map(str, arguments)) + "}"
    if origin in (Union, types.UnionType):
        kinds = [argument for argument in arguments if argument is not type(None)]
        return "|".join(map(kind_of, kinds))
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"{kind_of(arguments[0])}..."
    if origin is tuple:
        return " ".join(map(kind_of, arguments))
    return _WORDS.get(hint, "VALUE")


def _without_marks(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a type without what ``Annotated`` says beside it, and that."""
    if get_origin(hint) is typing.Annotated:
        return hint.__origin__, hint.__metadata__
    return hint, ()


def _adds_no_prefix(marks: tuple[Any, ...]) -> bool:
    """Return whether a nested dataclass is marked with ``tyro.conf.arg(name="")``."""
    return any(getattr(mark, "name", None) == "" for mark in marks)


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED


def _doc(kind: type, name: str) -> str:
    """Return the string below a field, in the class or the one that it inherits the field from."""
    for base in kind.__mro__:
        docs = _docs_of_module(base.__module__).get(base.__qualname__, {})
        if name in docs:
            return docs[name]
    return ""


@cache
def _docs_of_module(module: str) -> dict[str, dict[str, str]]:
    """Return the strings below the fields of every class of a module, by class and field."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:  # a class from a notebook
        return {}
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    return dict(_docs_of_classes(tree.body, ""))


def _docs_of_classes(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, dict[str, str]]]:
    for node in body:
        if not isinstance(node, ast.ClassDef):
            continue
        docs = {}
        for field, after in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
                docs[ast.unparse(field.target)] = _text(after)
        yield f"{prefix}{node.name}", docs
        yield from _docs_of_classes(node.body, f"{prefix}{node.name}.")


def _text(node: ast.Expr) -> str:
    """Return a string as one line."""
    if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(inspect.cleandoc(node.value.value).split())
    return ""
