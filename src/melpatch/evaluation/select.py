"""From names and changed settings to protocols, found through the registry."""

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from melpatch import registry
from melpatch.config import check, from_dict
from melpatch.errors import ConfigError
from melpatch.evaluation.probe import KeptProbe, LinearProbe
from melpatch.evaluation.protocol import Protocol
from melpatch.inference.model import Model
from melpatch.objectives.classify import Classify


def default_protocols(model: Model) -> tuple[str, ...]:
    """Return the protocols of a run for which none is named: by its own predictions, or by two probes."""
    if isinstance(model.objective, Classify):
        return ("as_trained",)
    return ("knn", "linear")


def linear_probe() -> LinearProbe:
    """Return the linear probe: it is kept as a classifier, and scores statistics of spectrograms."""
    (probe,) = select_protocols(["linear"])
    assert isinstance(probe, LinearProbe)
    return probe


def probe_to_keep(name: str) -> KeptProbe:
    """Return a probe that can be kept as a classifier, by its name."""
    (probe,) = select_protocols([name])
    assert isinstance(probe, KeptProbe)
    return probe


def select_protocols(
    names: Sequence[str], settings: Mapping[str, Any] | None = None
) -> list[Protocol]:
    """Return protocols by their names, or by ``package.module:Class``, with some settings changed.

    Args:
        names: of the protocols.
        settings: values by name; each goes to the protocols that have such a setting.

    Raises:
        ConfigError: there is no such protocol, none of them has such a setting, or a value is out
            of range.
    """
    settings = settings or {}
    classes = {name: protocol_class(name) for name in names}
    fields = {
        name: [field.name for field in dataclasses.fields(protocol)]
        for name, protocol in classes.items()
    }
    known = sorted(set().union(*fields.values()))
    for setting in settings:
        allowed = f"the settings of {', '.join(names)}, which are {', '.join(known) or 'none'}"
        check(setting in known, "set", setting, allowed)
    protocols = []
    for name, protocol in classes.items():
        own = {setting: value for setting, value in settings.items() if setting in fields[name]}
        protocols.append(from_dict(protocol, own, f"protocol {name}"))
    return protocols


def parse_settings(changes: Iterable[str]) -> dict[str, Any]:
    """Return settings that are spelled ``NAME=VALUE``, VALUE as in TOML; text needs no quotation marks.

    Raises:
        ConfigError: one is not spelled so, or is given twice.
    """
    changes = [*changes]
    settings = dict(_parse_setting(change) for change in changes)
    check(len(settings) == len(changes), "set", changes, "each setting once")
    return settings


def _parse_setting(change: str) -> tuple[str, Any]:
    name, equals, text = change.partition("=")
    check(bool(equals), "set", change, "NAME=VALUE, such as k=20")
    try:
        return name, tomllib.loads(f"value = {text}")["value"]
    # ValueError: no TOML, or a number of thousands of digits. RecursionError: too many brackets.
    except (ValueError, RecursionError):
        return name, text


def protocol_class(name: str) -> type[Protocol]:
    """Return the class of a protocol by its name.

    Raises:
        ConfigError: there is none of that name, or it is no protocol.
    """
    protocol = registry.find("protocols", name)
    if not (isinstance(protocol, type) and issubclass(protocol, Protocol)):
        raise ConfigError(
            f"{name} is not a protocol; name a class derived from melpatch.evaluation.protocol.Protocol"
        )
    return protocol
