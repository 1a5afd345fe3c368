"""What is compared: a TOML file of methods, tasks and budgets. Some are shipped (``specs/``), known by their names."""

import shlex
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
    """What is pretrained on."""

    data: tuple[str, ...] = ()
    """Folders of audio, or CSV files."""
    split_column: str = "split"
    """Column of the CSV files that holds the split or fold."""
    exclude_splits: tuple[str, ...] | None = None
    """Splits or folds that stay out of pretraining; by default val and test, where they exist."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to pretrain: a row of the table for each size and length."""

    name: str
    """How the table calls it."""
    recipe: str = ""
    """Recipe of ``melpatch pretrain``; by default the budget's."""
    flags: str = ""
    """Further flags of ``melpatch pretrain``; they win over the budget's."""
    init: bool = False
    """Whether it starts from the budget's ``init`` instead of random weights."""
    trained: bool = True
    """Whether it is pretrained at all; or else the weights that it starts from are scored."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(bool(self.name), "name", self.name, "a name for the table")
        words_of("flags", self.flags)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A labelled corpus: a column of the table for each protocol."""

    name: str
    """How the table calls it."""
    data: str
    """Folder or CSV file."""
    split_column: str = "split"
    """Column of the CSV file that holds the split or fold."""
    split: tuple[str, ...] = ()
    """Splits or folds that are scored; by default test, or else every fold."""
    protocols: tuple[str, ...] = ()
    """Protocols for this task, in the place of the budget's."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(bool(self.name), "name", self.name, "a name for the table")
        _check_protocols(self.protocols)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A scale at which to compare: how long each method trains, and how it is scored."""

    name: str
    """What ``--budget`` calls it."""
    sizes: tuple[str, ...] = ("tiny",)
    """Encoders."""
    recipe: str = ""
    """Recipe of the methods that name none."""
    flags: str = ""
    """Flags of ``melpatch pretrain`` for all methods."""
    init: str = ""
    """Run folder, weight file or hf:owner/name for the methods that start from one."""
    steps: tuple[int, ...] = ()
    """Optimiser steps; a run of its own for each number."""
    epochs: tuple[float, ...] = ()
    """Passes over the sound, in the place of steps."""
    cpu_seconds: tuple[float, ...] = ()
    """CPU seconds of training on one thread, in the place of steps. What a step costs is measured first. Without any of
    the three, each recipe trains as long as it says."""
    protocols: tuple[str, ...] = ("knn", "linear")
    """Protocols of ``melpatch evaluate``, each with its changed settings, such as ``knn k=20``."""
    seeds: tuple[int, ...] = (0,)
    """One pretraining and one evaluation each."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        given = [name for name in UNITS if getattr(self, name)]
        check(
            len(given) < 2,
            " and ".join(given),
            [getattr(self, name) for name in given],
            "one of these lists",
        )
        for name in given:
            check(min(getattr(self, name)) > 0, name, getattr(self, name), "numbers above 0")
        check(bool(self.sizes), "sizes", self.sizes, "one or more")
        check(
            0 < len(self.seeds) == len({*self.seeds}),
            "seeds",
            self.seeds,
            "one or more, each but once",
        )
        words_of("flags", self.flags)
        _check_protocols(self.protocols)

    @property
    def lengths(self) -> tuple[tuple[Unit | None, float], ...]:
        """Unit and amount of every length to train for; (None, 0) for that of the recipe."""
        found = tuple((name, float(value)) for name in UNITS for value in getattr(self, name))
        return found or ((None, 0.0),)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A whole comparison."""

    title: str
    """What it shows, in a line."""
    sound: Sound = Sound()
    """What is pretrained on."""
    methods: tuple[Method, ...]
    """The rows."""
    tasks: tuple[Task, ...] = ()
    """The columns."""
    budgets: tuple[Budget, ...]
    """The scales, of which one is chosen."""

    def __post_init__(self) -> None:
        """Check that names tell things apart."""
        for name in ("methods", "tasks", "budgets"):
            names = [one.name for one in getattr(self, name)]
            check(len({*names}) == len(names), f"{name}.name", names, "a name of its own for each")
        check(bool(self.methods), "methods", (), "one or more; add a table [[methods]]")
        check(bool(self.budgets), "budgets", (), "one or more; add a table [[budgets]]")

    def budget(self, name: str | None) -> Budget:
        """Return the budget of that name, the first one without.

        Raises:
            ConfigError: there is none.
        """
        known = {one.name: one for one in self.budgets}
        check(name is None or name in known, "budget", name, ", ".join(known))
        return known[name] if name else self.budgets[0]


def words_of(field: str, text: str) -> list[str]:
    """Return the words of a command line.

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
    for one in protocols:
        words = words_of("protocols", one)
        check(
            bool(words),
            "protocols",
            one,
            "a protocol's name, and NAME=VALUE for each changed setting",
        )
        registry.find("protocols", words[0])


def task(text: str) -> Task:
    """Return a task that is spelled ``NAME=DATA:SPLIT_COLUMN:SPLIT,SPLIT``; splits, or both, may be left out.

    Raises:
        ConfigError: it is not spelled so.
    """
    name, _, place = text.partition("=")
    data, *rest = place.split(":")
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
    """Return the specs that come with melpatch, by name."""
    return {path.stem: from_toml(Spec, path) for path in sorted(_SHIPPED.glob("*.toml"))}


def read(name: str) -> Spec:
    """Return a spec: a TOML file's, or a shipped one's by its name.

    Raises:
        ConfigError: there is no such spec, or the file is not one; the message names file and key.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = _SHIPPED / f"{name}.toml"
        known = ", ".join(sorted(one.stem for one in _SHIPPED.glob("*.toml")))
        check(path.exists(), "spec", name, f"a TOML file, or one of {known}")
    return from_toml(Spec, path)
