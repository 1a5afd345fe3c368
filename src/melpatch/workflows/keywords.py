"""Pretraining and fine-tuning with keyword arguments instead of flags, for scripts and notebooks.

>>> import melpatch
>>> run = melpatch.pretrain(data="recordings/", objective="ssast", out="runs/a", size="nano")
>>> tuned = melpatch.finetune(data="labels.csv", init=run, out="runs/b", lr=5e-4)
>>> melpatch.load(tuned).predict("new.wav")
"""

import dataclasses
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from melpatch import registry
from melpatch.config import from_dict, owner, to_dict
from melpatch.errors import ConfigError
from melpatch.interop.base import Reading
from melpatch.objectives.base import Objective
from melpatch.training.run import Run
from melpatch.workflows import finetune as finetuning
from melpatch.workflows import pretrain as pretraining
from melpatch.workflows.auto import AUTO, choose
from melpatch.workflows.finetune import FinetuneConfig, finetune_defaults
from melpatch.workflows.pretrain import PretrainConfig, pretrain_defaults
from melpatch.workflows.runs import FLAT, recorded

T = TypeVar("T")
PathLike = str | os.PathLike[str]
Settings = dict[str, Any]
_OF_THE_CORPUS = ("split_column", "label_column", "group_column", "exclude_splits", "budget")


def pretrain(
    *,
    data: PathLike | Sequence[PathLike],
    out: PathLike,
    objective: str | type[Objective] | Mapping[str, Any] | Any = "ssast",
    **settings: Any,
) -> Run:
    """Pretrain an encoder on unlabelled audio as ``melpatch pretrain`` does, and return the run.

    Args:
        data: folders of audio, CSV files or shards.
        out: run folder to write.
        objective: the name of a recipe or an objective (``auto`` chooses one), an importable
            subclass of :class:`Objective`, its ``Config``, or a mapping of settings with the name
            under ``"name"``, as in ``{"name": "ssast", "mask_ratio": 0.6}``.
        **settings: any flag of ``melpatch pretrain`` with underscores, such as ``steps=300,
            batch_size=16, lr=1e-3, size="nano"``. Nested settings are mappings, as in config.toml:
            ``front_end={"n_mels": 64}``, ``encoder={"depth": 4}``; an encoder may also be a name or
            a ``Config``.

    Raises:
        ConfigError: a setting is unknown or out of range, or the objective cannot be imported by
            name.
        MelpatchError: the run cannot be started, resumed or trained; the message tells the remedy.
    """
    recipe, of_objective = _piece("objective", objective)
    kind, of_encoder = _piece("encoder", settings.pop("encoder", None))
    trust_code = bool(settings.get("trust_code", False))
    # A resumed run starts from its recorded settings, so that only what changed must be given.
    base = None
    if settings.get("resume"):
        base = recorded(PretrainConfig, Path(out), trust_code=trust_code)
    if base is None and recipe == AUTO:
        # The rules need the corpus and the budget; all other settings are applied below.
        known = {name: settings[name] for name in _OF_THE_CORPUS if name in settings}
        request = with_settings(pretrain_defaults("ssast"), known | {"data": data})
        base = choose(request, settings.get("size"))
    if base is None:
        front_end = settings.get("front_end")
        base = pretrain_defaults(
            recipe or "ssast",
            size=settings.get("size"),
            encoder=kind,
            init=_path(settings.get("init")),
            reading=_reading(settings, of_encoder),
            teacher=_path(of_objective.get("teacher")),
            own_rate=isinstance(front_end, Mapping) and "sample_rate" in front_end,
            trust_code=trust_code,
        )
    if recipe in (None, AUTO):
        recipe = base.recipe
    changes = settings | {"data": data, "out": out, "recipe": recipe}
    config = with_settings(base, changes, objective=of_objective, encoder=of_encoder)
    return pretraining.pretrain(config)


def finetune(
    *,
    data: PathLike | Sequence[PathLike],
    init: PathLike,
    out: PathLike,
    **settings: Any,
) -> Run:
    """Fine-tune a classifier on labelled audio as ``melpatch finetune`` does, and return the run.

    Args:
        data: folders with one sub-folder per class, or CSV files with labels.
        init: a run or its folder, a weight file, ``hf:owner/name``, or ``scratch`` for random
            weights.
        out: run folder to write.
        **settings: any flag of ``melpatch finetune`` with underscores, such as ``steps=300,
            labels_per_class=10``. Nested settings are mappings, see :func:`pretrain`.

    Raises:
        ConfigError: a setting is unknown or out of range.
        MelpatchError: the run cannot be started, resumed or trained; the message tells the remedy.
    """
    kind, of_encoder = _piece("encoder", settings.pop("encoder", None))
    objective, of_objective = _piece("objective", settings.pop("objective", None))
    if objective not in (None, "classify"):
        raise ConfigError(f"objective = {objective!r}; allowed: classify, with settings of its own")
    trust_code = bool(settings.get("trust_code", False))
    encoder_from = settings.get("encoder_from")
    if encoder_from is not None:
        encoder_from = Path(encoder_from)
    base = None
    if settings.get("resume"):
        base = recorded(FinetuneConfig, Path(out), trust_code=trust_code)
    if base is None:
        base = finetune_defaults(
            os.fspath(init),
            recipe=settings.get("recipe", "finetune"),
            size=settings.get("size"),
            encoder=kind,
            encoder_from=encoder_from,
            head=settings.get("head", "trained"),
            reading=_reading(settings, of_encoder),
            trust_code=trust_code,
        )
    changes = settings | {"data": data, "init": init, "out": out}
    config = with_settings(base, changes, objective=of_objective, encoder=of_encoder)
    return finetuning.finetune(config)


def with_settings(config: T, changes: Mapping[str, Any], **pieces: Settings) -> T:
    """Return a workflow config with some settings changed, each by the name of its flag.

    Args:
        config: a workflow config.
        changes: new values; ``front_end`` takes a mapping or a ``Config``.
        **pieces: changed settings of ``objective`` and ``encoder``, as mappings.

    Raises:
        ConfigError: a name is unknown, or a value ill-typed or out of range.
    """
    places = _places(config)
    data = to_dict(config)
    for name, value in changes.items():
        if name not in places:
            raise ConfigError(_unknown(name, places))
        _set(data, places[name], _plain(config, places[name], value))
    for name, values in pieces.items():
        _set(data, ("training", name), values)
    # Code that these settings name was given by the caller, or allowed where it was read.
    return from_dict(type(config), data, "settings", trust_code=True)


def importable_name(cls: type, kind: str) -> str:
    """Return the registered name of a class, or its ``package.module:Class``.

    Args:
        cls: an objective or encoder, or the ``Config`` of one.
        kind: ``objective`` or ``encoder``.

    Raises:
        ConfigError: the class cannot be imported, because a notebook or script defines it.
    """
    outer, _, inner = cls.__qualname__.partition(".")
    if cls.__module__ != "__main__":
        piece = cls
        if inner == "Config":
            piece = owner(cls)
        name = registry.name_of(piece)
        if registry.find(f"{kind}s", name) is piece:
            return name
    file = f"my_{kind}"
    raise ConfigError(
        f"{kind} {outer} is defined in {cls.__module__}, so its runs could not be opened again; "
        f"save the class to a file such as {file}.py (in a notebook, put %%writefile {file}.py on "
        f"top of its cell), and import it: from {file} import {outer}"
    )


def _reading(settings: Settings, encoder: Settings) -> Reading:
    """Return how the settings say that weights in ``init`` are read."""
    return Reading(axes=settings.get("init_axes"), num_heads=encoder.get("num_heads"))


def _piece(kind: str, value: Any) -> tuple[str | None, Settings]:
    """Return the name of an objective or encoder, None for the default, and changed settings."""
    if value is None or isinstance(value, str):
        return value, {}
    if isinstance(value, type):
        return importable_name(value, kind), {}
    if isinstance(value, Mapping):
        settings = {key: item for key, item in value.items() if key != "name"}
        return value.get("name"), settings
    if dataclasses.is_dataclass(value):
        return importable_name(type(value), kind), to_dict(value)
    raise ConfigError(f"{kind} = {value!r}; allowed: a name, a class, its Config, or a mapping")


def _places(config: Any, prefix: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Return for each flag the names of the fields that lead to it in a nested config."""
    places: dict[str, tuple[str, ...]] = {}
    for field in dataclasses.fields(config):
        path = (*prefix, field.name)
        if field.name in FLAT:
            # Outer fields win: --encoder chooses the kind, not the settings of the encoder.
            places = _places(getattr(config, field.name), path) | places
        else:
            places[field.name] = path
    return places


def _plain(config: Any, path: tuple[str, ...], value: Any) -> Any:
    """Return a value as TOML holds it: paths and None as text, an item of a list as a list."""
    *parents, name = path
    for parent in parents:
        config = getattr(config, parent)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    # A field may be a tuple that is None by default, so its annotation counts too.
    annotation = str(type(config).__annotations__[name])
    is_list = isinstance(getattr(config, name), tuple) or "tuple" in annotation
    if is_list and isinstance(value, str | os.PathLike):
        value = (value,)
    if isinstance(value, list | tuple):
        return [_path(item) for item in value]
    if value is None:
        return "none"
    return _path(value)


def _path(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def _set(data: Settings, path: Sequence[str], value: Any) -> None:
    """Set a nested value; a mapping changes only the settings that it names."""
    for name in path[:-1]:
        data = data[name]
    old = data.get(path[-1])
    if isinstance(value, Mapping) and isinstance(old, dict):
        for key, item in value.items():
            _set(old, (key,), item)
    else:
        data[path[-1]] = value


def _unknown(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known)
    if close:
        return f"no setting is called {name!r}; did you mean {' or '.join(close)}?"
    return f"no setting is called {name!r}; there are: {', '.join(known)}"
