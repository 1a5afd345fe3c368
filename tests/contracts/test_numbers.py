"""Every number among the settings of every command and piece is finite, or refused by its name."""

import dataclasses
import importlib
import typing
from pathlib import Path

import pytest

from melpatch import registry
from melpatch.audio.logmel import LogMel
from melpatch.config import require_usable_numbers
from melpatch.data.loader import LoaderConfig
from melpatch.errors import SettingError
from melpatch.training.config import RunConfig, TrainConfig

REFUSED = (float("nan"), float("inf"), -float("inf"), 1e300, -1e300)


def settings_classes():
    """Yield the classes of all settings by a name."""
    yield from (("front end", LogMel.Config), ("loader", LoaderConfig), ("train", TrainConfig))
    for folder in ("encoders", "objectives", "protocols"):
        for name in registry.names(folder):
            kind = getattr(registry.find(folder, name), "Config", None)
            if kind is not None:
                yield name, kind
    for name in registry.names("commands"):
        yield name, importlib.import_module(f"melpatch.commands.{name}").Config


def instance_of(kind):
    """Return settings with their defaults, and something of its type for what has none."""
    hints = typing.get_type_hints(kind)
    required = {
        field.name: something(hints[field.name])
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    # Commands need them depending on another setting.
    if "out" in hints:
        required["out"] = Path("x")
    if "recordings" in hints:
        required["recordings"] = something(hints["recordings"])
    if "true_events" in hints and "events" not in hints:
        required |= {"true_events": ("x",), "hop": 0.5}
    return kind(**required)


def something(hint):
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)[0]
    return {str: "x", Path: Path("x"), RunConfig: RunConfig()}.get(hint, ("x",))


def decimals(kind, name):
    """Yield the fields of settings that take decimal numbers, those of nested ones too."""
    config = instance_of(kind)
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from decimals(type(value), f"{name} {field.name}")
        elif "float" in str(hints[field.name]):
            yield pytest.param(config, field.name, id=f"{name} {field.name}")


# Each once, though commands share some.
CASES = {
    (type(case.values[0]), case.values[1]): case
    for name, kind in settings_classes()
    for case in decimals(kind, name)
}


@pytest.mark.parametrize(("config", "field"), CASES.values())
def test_a_setting_that_is_no_finite_number_is_refused(config, field):
    hint = str(typing.get_type_hints(type(config))[field])
    for number in REFUSED:
        value = number
        if "tuple[float" in hint:
            value = (number, number)
        with pytest.raises(SettingError):
            require_usable_numbers(dataclasses.replace(config, **{field: value}))


def test_settings_were_found():
    names = {field for _, field in CASES}
    for known in ("lr_step_factor", "generative_weight", "threshold", "shard_mib", "window_ms"):
        assert known in names
