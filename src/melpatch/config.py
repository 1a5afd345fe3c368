"""Frozen dataclasses to TOML and back, strictly: errors name the key by its path and what is allowed.

A field with the metadata ``piece("encoders")`` holds the ``Config`` of any registered piece. It is
written with the piece's ``name`` beside its settings, and read back through the registry.
"""

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import tomli_w

from melpatch import registry
from melpatch.errors import ConfigError, SettingError, shortened
from melpatch.faults import let_pass
from melpatch.opening import read_text

T = TypeVar("T")

# Larger numbers are infinite in float32.
_LARGEST_FLOAT = 1e37
_LARGEST_INT = (1 << 63) - 1
# Bounds of every machine; those of this one are checked where processes start.
MOST_WORKERS = 1024
MOST_CLIPS = 1 << 20


def piece(folder: str) -> dict[str, str]:
    """Return field metadata for a value that is the ``Config`` of a class registered in ``folder``."""
    return {"registry": folder}


def owner(config: Any) -> type:
    """Return the class whose nested ``Config`` this is an instance of (``SSAST`` for an ``SSAST.Config``)."""
    cls = config if isinstance(config, type) else type(config)
    module = __import__(cls.__module__, fromlist=["_"])
    holder = module
    for part in cls.__qualname__.split(".")[:-1]:
        holder = getattr(holder, part)
    return typing.cast(type, holder)


def to_dict(config: Any) -> dict[str, Any]:
    """Return a dataclass as nested plain values, in field order.

    TOML has no null: a ``None`` that is also the field's default is left out, any other is written
    as ``"none"``.
    """
    out: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None and field.default is None:
            continue
        out[field.name] = _plain(value)
        if "registry" in field.metadata and value is not None:
            out[field.name] = {"name": registry.name_of(owner(value))} | out[field.name]
    return out


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return "none" if value is None else value


def to_toml(config: Any) -> str:
    """Return a dataclass as TOML text.

    Raises:
        SettingError: a text is no Unicode, such as an argument that a terminal sent in Latin-1.
    """
    values = to_dict(config)
    _require_unicode(values, "")
    return tomli_w.dumps(values)


def _require_unicode(value: Any, name: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _require_unicode(item, key)
    elif isinstance(value, list):
        for item in value:
            _require_unicode(item, name)
    elif isinstance(value, str):
        fits = not any("\ud800" <= letter <= "\udfff" for letter in value)
        check(fits, name, value.encode("utf-8", "backslashreplace").decode(), "text in UTF-8")


def from_toml(cls: type[T], path: Path, *, trust_code: bool = False) -> T:
    """Read a dataclass from a TOML file.

    Args:
        cls: the dataclass.
        path: the file.
        trust_code: whether the file may name encoders and objectives outside melpatch, whose code
            is run.

    Raises:
        ConfigError: the file is missing or not TOML, or a key is unknown, ill-typed or out of
            range.
    """
    try:
        data = tomllib.loads(read_text(path))
    except OSError as error:
        let_pass(error)
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); give a run folder that holds config.toml"
        ) from error
    # ValueError: no TOML, no UTF-8, or a number of thousands of digits. RecursionError: brackets
    # within brackets without end.
    except (ValueError, RecursionError) as error:
        reason = shortened(error, typed=True)
        raise ConfigError(
            f"{path}: not TOML ({reason}); correct that line or take the file from another run"
        ) from error
    return from_dict(cls, data, str(path), trust_code=trust_code)


def from_dict(
    cls: type[T], data: Mapping[str, Any], where: str = "config", *, trust_code: bool = False
) -> T:
    """Build a dataclass from nested plain values; the inverse of :func:`to_dict`.

    Args:
        cls: the dataclass to build.
        data: its fields; missing ones take their defaults.
        where: the path so far, for messages.
        trust_code: see :func:`from_toml`.

    Raises:
        ConfigError: a key is unknown, a value ill-typed or out of range, or a field without default
            is missing.
    """
    fields = {
        field.name: field for field in dataclasses.fields(typing.cast(Any, cls)) if field.init
    }
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ConfigError(
            f"{where}: unknown key {shortened(unknown[0])}; known: {', '.join(fields)}"
        )
    hints = _hints(typing.cast(Any, cls))
    values: dict[str, Any] = {}
    for key, value in data.items():
        folder = fields[key].metadata.get("registry")
        if value == "none" and type(None) in get_args(hints[key]):
            values[key] = None
        elif folder:
            values[key] = _piece_from_dict(folder, value, f"{where}.{key}", trust_code=trust_code)
        else:
            values[key] = _convert(hints[key], value, f"{where}.{key}", trust_code)
    try:
        config = cls(**values)
        require_usable_numbers(config)
        return config
    # A check may compute with numbers that are out of all range.
    except (TypeError, ValueError, ArithmeticError, ConfigError) as error:
        raise ConfigError(f"{where}: {error}") from error


# Cached, since a set of shards has a hundred thousand entries of one class.
@lru_cache(256)
def _hints(cls: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields."""
    return typing.get_type_hints(cls)


def _piece_from_dict(folder: str, data: Any, where: str, *, trust_code: bool) -> Any:
    if not isinstance(data, Mapping) or "name" not in data:
        raise ConfigError(
            f"{where}: needs a table with a name; known: {', '.join(registry.names(folder))}"
        )
    settings = {key: value for key, value in data.items() if key != "name"}
    piece = registry.find_in_file(folder, data["name"], where, trust_code=trust_code)
    return from_dict(piece.Config, settings, where, trust_code=trust_code)


def _convert(hint: Any, value: Any, where: str, trust_code: bool = False) -> Any:
    """Return a value as the annotated type, or raise a ConfigError that names the type."""
    origin = get_origin(hint)
    args = get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(typing.cast(type, hint), value, where, trust_code=trust_code)
    if origin in (Union, types.UnionType):
        return _convert_union(args, value, where, trust_code)
    if origin is Literal and (type(value), value) in [(type(known), known) for known in args]:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) == len(value):
            return _convert_items(kinds, value, where, trust_code)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _as_float(value, where)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is Any or (isinstance(hint, type) and type(value) is hint):
        return value
    wanted = str(hint).replace("typing.", "")
    if isinstance(hint, type):
        wanted = hint.__name__
    raise ConfigError(f"{where}: {shortened(value)} is not of type {wanted}")


def _as_float(value: int | float, where: str) -> float:
    """Return a number as a float, or raise a ConfigError if it is too large for one."""
    try:
        return float(value)
    except OverflowError as error:
        raise ConfigError(f"{where}: {shortened(value)} is too large for a number") from error


def _convert_items(
    kinds: list[Any], values: Sequence[Any], where: str, trust_code: bool
) -> tuple[Any, ...]:
    return tuple(
        _convert(kind, item, f"{where}[{number}]", trust_code)
        for number, (kind, item) in enumerate(zip(kinds, values, strict=True))
    )


def _convert_union(kinds: tuple[Any, ...], value: Any, where: str, trust_code: bool) -> Any:
    if value is None and type(None) in kinds:
        return None
    errors = []
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return _convert(kind, value, where, trust_code)
        except ConfigError as error:
            errors.append(str(error))
    raise ConfigError("; or ".join(errors))


def require_usable_numbers(config: Any) -> None:
    """Raise a SettingError if a number in a dataclass is not finite, or larger than anything counts.

    Ranges are checked by the dataclasses themselves, but ``not nan < 0`` holds, and a count of
    10^30 is above 0. This holds for every setting, nested ones included.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            require_usable_numbers(value)
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float):
                allowed = f"finite numbers up to {_LARGEST_FLOAT:g}"
                check(abs(number) <= _LARGEST_FLOAT, field.name, value, allowed)
            elif isinstance(number, int):
                allowed = "whole numbers of up to 63 bits"
                check(abs(number) <= _LARGEST_INT, field.name, value, allowed)


def check(condition: bool, field: str, value: Any, allowed: str) -> None:
    """Raise a SettingError unless a condition holds.

    Args:
        condition: what must be true of the value.
        field: name of the setting.
        value: its value.
        allowed: the values that it may have, in words.
    """
    if not condition:
        raise SettingError(field, value, allowed)


def check_workers(workers: int | None) -> None:
    """Raise SettingError unless this can be a number of worker processes of any machine."""
    check(
        workers is None or 0 <= workers <= MOST_WORKERS, "workers", workers, f"0 to {MOST_WORKERS}"
    )


def check_batch_size(batch_size: int | None) -> None:
    """Raise SettingError unless this can be a number of clips in a batch of any machine."""
    allowed = f"1 to {MOST_CLIPS}"
    known = batch_size is None or 1 <= batch_size <= MOST_CLIPS
    check(known, "batch_size", batch_size, allowed)
