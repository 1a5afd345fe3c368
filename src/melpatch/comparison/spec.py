"""Specs of comparisons: TOML files of methods, tasks and budgets; ``specs/`` holds some."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from melpatch import registry
from melpatch.config import check, from_toml
from melpatch.errors import ConfigError

Unit = Literal["steps", "epochs", "cpu_seconds"]
UNITS: tuple[Unit, ...] = ("steps", "epochs", "cpu_seconds")
_SHIPPED = Path(__file__).parent / "specs"


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Audio to pretrain on."""

    data: tuple[str, ...] = ()
    """Folders of audio, or CSV files."""
    split_column: str = "split"
    """Column of the CSV files that holds the split or fold."""
    exclude_splits: tuple[str, ...] | None = None
    """Splits or folds to leave out of pretraining; by default val and test, where they exist."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A pretraining method: one row of the table for each size and length."""

    name: str
    """Name in the table."""
    recipe: str = ""
    """Recipe of ``melpatch pretrain``; by default that of the budget."""
    flags: str = ""
    """Further flags of ``melpatch pretrain``; they override those of the budget."""
    init: bool = False
    """Start from the budget's ``init`` instead of random weights."""
    trained: bool = True
    """Pretrain; if false, the initial weights are scored."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(bool(self.name), "name", self.name, "a name for the table")
        words_of("flags", self.flags)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A labelled corpus to score on: one column of the table for each protocol."""

    name: str
    """Name in the table."""
    data: str
    """Folder or CSV file."""
    split_column: str = "split"
    """Column of the CSV file that holds the split or fold."""
    split: tuple[str, ...] = ()
    """Splits or folds to score; by default test, or else every fold."""
    protocols: tuple[str, ...] = ()
    """Protocols for this task, instead of those of the budget."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(bool(self.name), "name", self.name, "a name for the table")
        _check_protocols(self.protocols)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A scale of comparison: how long each method trains, and how it is scored."""

    name: str
    """Name, as given to ``--budget``."""
    sizes: tuple[str, ...] = ("tiny",)
    """Encoder sizes."""
    recipe: str = ""
    """Recipe of the methods that do not name a recipe."""
    flags: str = ""
    """Flags of ``melpatch pretrain`` for all methods."""
    init: str = ""
    """Run folder, weight file or hf:owner/name for the methods with ``init = true``."""
    steps: tuple[int, ...] = ()
    """Optimiser steps; one run for each number."""
    epochs: tuple[float, ...] = ()
    """Passes over the audio, instead of steps."""
    cpu_seconds: tuple[float, ...] = ()
    """CPU seconds of training on one thread, instead of steps; the cost of a step is measured
    first. Without steps, epochs and CPU seconds, each recipe trains for its own length."""
    protocols: tuple[str, ...] = ("knn", "linear")
    """Protocols of ``melpatch evaluate``, each with its changed settings, such as ``knn k=20``."""
    seeds: tuple[int, ...] = (0,)
    """Seeds; one pretraining run and its evaluations for each."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        given = [name for name in UNITS if getattr(self, name)]
        check(
            len(given) < 2,
            " and ".join(given),
            [getattr(self, name) for name in given],
            "only one of these lists",
        )
        for name in given:
            check(min(getattr(self, name)) > 0, name, getattr(self, name), "numbers above 0")
        check(bool(self.sizes), "sizes", self.sizes, "one or more")
        check(
            0 < len(self.seeds) == len({*self.seeds}),
            "seeds",
            self.seeds,
            "one or more, all different",
        )
        words_of("flags", self.flags)
        _check_protocols(self.protocols)

    @property
    def lengths(self) -> tuple[tuple[Unit | None, float], ...]:
        """Unit and amount of every training length; (None, 0) stands for that of the recipe."""
        lengths = tuple((name, float(value)) for name in UNITS for value in getattr(self, name))
        return lengths or ((None, 0.0),)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A whole comparison."""

    title: str
    """What the comparison shows, in one line."""
    sound: Sound = Sound()
    """Audio to pretrain on."""
    methods: tuple[Method, ...]
    """Rows of the table."""
    tasks: tuple[Task, ...] = ()
    """Columns of the table."""
    budgets: tuple[Budget, ...]
    """Scales, one of which is chosen."""

    def __post_init__(self) -> None:
        """Check that names are unique, and that there is a method and a budget."""
        for name in ("methods", "tasks", "budgets"):
            names = [item.name for item in getattr(self, name)]
            check(len({*names}) == len(names), f"{name}.name", names, "different names")
        check(bool(self.methods), "methods", (), "one or more; add a table [[methods]]")
        check(bool(self.budgets), "budgets", (), "one or more; add a table [[budgets]]")

    def budget(self, name: str | None) -> Budget:
        """Return the budget of a name; without a name, the first budget.

        Raises:
            ConfigError: no budget has this name.
        """
        if not name:
            return self.budgets[0]
        known = {budget.name: budget for budget in self.budgets}
        check(name in known, "budget", name, ", ".join(known))
        return known[name]


def words_of(field: str, text: str) -> list[str]:
    """Return the words of a command line, split as a shell does.

    Raises:
        ConfigError: a quotation mark is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(
            f"{field} = {text!r}: {error}; write it as on the command line"
        ) from error


def _check_protocols(protocols: tuple[str, ...]) -> None:
    for protocol in protocols:
        words = words_of("protocols", protocol)
        check(
            bool(words),
            "protocols",
            protocol,
            "a protocol's name, and NAME=VALUE for each changed setting",
        )
        # Code outside melpatch is found once the whole file is read, and the user trusts it.
        if not registry.is_code(words[0]):
            registry.find("protocols", words[0])


def parse_task(text: str) -> Task:
    """Return the task of ``NAME=DATA:SPLIT_COLUMN:SPLIT,SPLIT``; column and splits are optional.

    Raises:
        ConfigError: the text has another form.
    """
    name, _, place = text.partition("=")
    # The colons of URLs, of ports and of Windows' drives belong to the place.
    data, *rest = re.split(r":(?!//|\d+/)(?<!^[A-Za-z]:)", place)
    check(
        bool(name and data) and len(rest) < 3,
        "task",
        text,
        "NAME=labels.csv:split_column:split,split",
    )
    column, splits = [*rest, "", ""][:2]
    return Task(
        name=name,
        data=data,
        split_column=column or "split",
        split=tuple(filter(None, splits.split(","))),
    )


def shipped() -> dict[str, Spec]:
    """Return the specs that are shipped with melpatch, by name."""
    return {path.stem: from_toml(Spec, path) for path in sorted(_SHIPPED.glob("*.toml"))}


def read_spec(name: str, *, trust_code: bool = False) -> Spec:
    """Read a spec from a TOML file, or a shipped spec by its name.

    Args:
        name: the file or the name.
        trust_code: whether the file may name code outside melpatch, which is then run.

    Raises:
        ConfigError: there is no such spec, or the file is not valid.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = _SHIPPED / f"{name}.toml"
        known = ", ".join(sorted(file.stem for file in _SHIPPED.glob("*.toml")))
        check(path.exists(), "spec", name, f"a TOML file, or one of {known}")
    spec = from_toml(Spec, path)
    for kind, word in _named(spec):
        registry.require_trusted(kind, word, str(path), trust_code=trust_code)
    return spec


def _named(spec: Spec) -> Iterator[tuple[str, str]]:
    """Yield the words of a spec that may name code, each with the kind of piece."""
    for method in spec.methods:
        yield "recipes", method.recipe
        yield from (("encoders", word) for word in _code_in(method.flags))
    for budget in spec.budgets:
        yield "recipes", budget.recipe
        yield from (("encoders", word) for word in _code_in(budget.flags))
    protocols = [protocol for task in spec.tasks for protocol in task.protocols]
    protocols += [protocol for budget in spec.budgets for protocol in budget.protocols]
    for protocol in protocols:
        yield "protocols", words_of("protocols", protocol)[0]


def _code_in(flags: str) -> Iterator[str]:
    """Yield the words of flags, and the values after an equals sign, that are names of code."""
    for word in words_of("flags", flags):
        yield from filter(registry.is_code, (word, word.partition("=")[2]))
