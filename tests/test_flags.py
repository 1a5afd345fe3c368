"""Flags: one for every field of a configuration, spelled as tyro reads them, with type, default and documentation."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import tyro

from melpatch.flags import Flag, flags_of, kind_of
from melpatch.objectives.distill import Distill
from melpatch.recipes.base import recipe


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A table of its own."""

    rate: float = 0.1
    """Share of the
    clips."""
    exact: bool = False
    """Whether to count."""


@dataclass(frozen=True, kw_only=True)
class Outer:
    """A command's settings."""

    sources: tyro.conf.Positional[tuple[str, ...]]
    """Folders."""
    out_folder: Path | None = None
    silent: bool = True
    inner: Inner = field(default_factory=Inner)
    """Nested."""
    flat: Annotated[Inner, tyro.conf.arg(name="")] = field(default_factory=lambda: Inner(rate=0.5))
    """Nested, without a prefix."""


def test_every_field_is_a_flag_with_its_default_and_its_documentation():
    flags = {flag.spelled: flag for flag in flags_of(Outer)}
    assert list(flags) == [
        *("SOURCES", "--out-folder", "--silent", "--inner.rate", "--inner.exact"),
        *("--rate", "--exact"),
    ]
    assert flags["SOURCES"] == Flag("sources", "TEXT...", tyro.MISSING, "Folders.", Outer, True)
    assert flags["SOURCES"].required
    assert flags["--out-folder"] == Flag("out_folder", "PATH", None, "", Outer)
    assert flags["--silent"].is_switch
    assert flags["--inner.rate"] == Flag("inner.rate", "FLOAT", 0.1, "Share of the clips.", Inner)
    assert flags["--rate"].default == 0.5


def test_defaults_are_those_of_the_instance_if_there_is_one():
    defaults = Outer(sources=("a",), inner=Inner(rate=0.7))
    flags = {flag.name: flag.default for flag in flags_of(Outer, defaults)}
    assert (flags["sources"], flags["inner.rate"], flags["rate"]) == (("a",), 0.7, 0.5)


def test_a_setting_that_nobody_types_is_no_flag():
    names = [flag.name for flag in flags_of(Distill.Config)]
    assert "teacher" in names
    assert not any(name.startswith("network") for name in names)


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "INT"),
        (float | None, "FLOAT"),
        (Path, "PATH"),
        (Literal["a", "b"], "{a,b}"),
        (tuple[int, int], "INT INT"),
        (tuple[str, ...], "TEXT..."),
        (int | tuple[int, int], "INT|INT INT"),
        (Any, "VALUE"),
    ],
)
def test_a_type_is_told_in_words(hint, words):
    assert kind_of(hint) == words


@pytest.mark.parametrize(
    "name", ["asit", "audiomae", "cnn14", "cola", "distill", "finetune", "mae_ast", "ssast"]
)
def test_the_flags_of_a_recipe_are_those_that_tyro_reads(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    settings = recipe(name)("nano")
    flags = list(flags_of(type(settings), settings))
    with pytest.raises(SystemExit):
        tyro.cli(type(settings), default=settings, args=["--help"])
    entries = re.findall(r"^[^-\n]{0,4}(--.*)", capsys.readouterr().out, re.MULTILINE)
    read = {flag for entry in entries for flag in re.findall(r"--[a-z][\w.-]*", entry)}
    assert {flag.spelled for flag in flags} | set(map(opposite, filter(is_switch, flags))) == read
    assert [flag.spelled for flag in flags if not flag.doc] == []


def is_switch(flag):
    return flag.is_switch


def opposite(flag):
    """Return the flag that turns a switch off."""
    table, dot, name = flag.spelled.removeprefix("--").rpartition(".")
    return f"--{table}{dot}no-{name}"
