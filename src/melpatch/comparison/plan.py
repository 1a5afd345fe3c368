"""From a spec to cells: every pretraining, and every score of what comes of it, with the command that makes it."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from melpatch import registry
from melpatch.comparison import files
from melpatch.comparison.spec import Budget, Method, Sound, Spec, Task, Unit, words_of
from melpatch.config import check
from melpatch.data.sources import LABEL, Row, rows
from melpatch.errors import DataError


@dataclass(frozen=True)
class Scoring:
    """A task under a protocol.

    Attributes:
        task: what is scored.
        protocol: how, with its changed settings.
        words: the words of ``melpatch evaluate`` after the run, but for ``--out``.
        version: of the protocol.
        files: a hash of the clips that the task lists.
    """

    task: Task
    protocol: str
    words: tuple[str, ...]
    version: int
    files: str

    @property
    def key(self) -> tuple[str, ...]:
        """All that the score hangs on, but for the run."""
        return ("evaluate", *self.words, f"version {self.version}", f"clips {self.files}")


@dataclass(frozen=True)
class Pretraining:
    """A run to be made.

    Attributes:
        method: the row of the spec.
        size: of the encoder.
        unit: what its length is counted in; None where that is the recipe's.
        amount: the length; 0 where nothing is trained, or the recipe says.
        seed: of the run, and of what is scored of it.
        words: the words of ``melpatch pretrain``, but for length, seed and ``--out``.
        files: hashes of the clips that are listed, and of the weights that it starts from.
        scorings: what is scored of it.
    """

    method: Method
    size: str
    unit: Unit | None
    amount: float
    seed: int
    words: tuple[str, ...]
    files: tuple[str, ...]
    scorings: tuple[Scoring, ...]

    @property
    def length(self) -> str:
        """The amount, as on the command line."""
        return f"{self.amount:.15g}"

    @property
    def key(self) -> tuple[str, ...]:
        """All that the run hangs on."""
        length = f"{self.unit} {self.length}" if self.method.trained else "untrained"
        return (*self.words, *self.files, length, f"seed {self.seed}")

    @property
    def name(self) -> str:
        """A name for folders, that tells it from all other runs."""
        length = f"{self.length}-{self.unit}" if self.unit else ""
        return slug(self.key, self.method.name, self.size, length, f"seed-{self.seed}")

    @property
    def budget(self) -> str:
        """The length in words."""
        if not self.method.trained:
            return "none"
        return (
            f"{self.length} {self.unit.replace('cpu_seconds', 'CPU-s')}"
            if self.unit
            else "the recipe's"
        )


def slug(key: tuple[str, ...], *parts: str) -> str:
    """Return a readable name for a file, with a short hash of all that it hangs on."""
    text = re.sub(r"[^\w.]+", "-", "-".join(filter(None, parts))).strip("-")
    return f"{text}-{hashlib.blake2b(repr(key).encode(), digest_size=4).hexdigest()}"


def plan(spec: Spec, budget: Budget) -> list[Pretraining]:
    """Return the runs to make, all of the first seed first.

    Raises:
        ConfigError: sound, a task, a recipe or an ``init`` is missing.
        DataError: a folder or CSV file is, or cannot be read.
    """
    check(
        bool(spec.sound.data),
        "data",
        (),
        "the sound to pretrain on; give it with --data, or in [sound]",
    )
    check(bool(spec.tasks), "tasks", (), "what to score; give it with --task, or in [[tasks]]")
    for task in spec.tasks:
        told = "one or more; give them with --protocol, in the budget, or with the task"
        check(bool(task.protocols or budget.protocols), "protocols", (), told)
    sound = tuple(
        f"clips {files.of_clips(data, spec.sound.split_column)}" for data in spec.sound.data
    )
    weights = (f"weights {files.of_weights(budget.init)}",)
    scored = {task.name: files.of_clips(task.data, task.split_column) for task in spec.tasks}
    found = []
    for seed in budget.seeds:
        for size in budget.sizes:
            for method in spec.methods:
                words = _pretrain(spec.sound, budget, method, size)
                scorings = tuple(_scorings(spec, budget, method, seed, scored))
                read = sound + weights if method.init else sound
                for unit, amount in budget.lengths if method.trained else ((None, 0.0),):
                    found.append(
                        Pretraining(method, size, unit, amount, seed, words, read, scorings)
                    )
    return found


def _pretrain(sound: Sound, budget: Budget, method: Method, size: str) -> tuple[str, ...]:
    recipe = method.recipe or budget.recipe
    where = f"of method {method.name!r} in budget {budget.name!r}"
    check(bool(recipe), "recipe", recipe, f"a recipe of melpatch pretrain {where}")
    check(
        bool(budget.init) or not method.init,
        "init",
        budget.init,
        f"the weights to start from {where}; give --init",
    )
    words = [
        recipe,
        *words_of("flags", budget.flags),
        *words_of("flags", method.flags),
        "--size",
        size,
    ]
    words += ["--data", *sound.data, "--split-column", sound.split_column]
    words += ["--exclude-splits", *sound.exclude_splits] if sound.exclude_splits is not None else []
    words += ["--init", budget.init] if method.init else []
    return (*words, "--steps", "0") if not method.trained else tuple(words)


def _scorings(
    spec: Spec, budget: Budget, method: Method, seed: int, scored: Mapping[str, str]
) -> Iterator[Scoring]:
    for task in spec.tasks:
        for protocol in task.protocols or budget.protocols:
            name, *changes = words_of("protocols", protocol)
            words = ["--data", task.data, "--split-column", task.split_column, "--protocol", name]
            words += ["--split", *task.split] if task.split else []
            words += ["--set", *changes] if changes else []
            words += ["--random-weights"] if not (method.trained or method.init) else []
            version = registry.find("protocols", name).version
            yield Scoring(
                task, protocol, (*words, "--seeds", f"{seed}"), version, scored[task.name]
            )


def refuse_leaks(spec: Spec) -> None:
    """Stop if a file that is scored is one that is pretrained on.

    Raises:
        DataError: there is one; the message names it.
    """
    every = [row for data in spec.sound.data for row in _listed(data, spec.sound.split_column)]
    excluded = (
        {"val", "test"} if spec.sound.exclude_splits is None else {*spec.sound.exclude_splits}
    )
    heard = {row.path.resolve() for row in every if row.split not in excluded}
    for task in spec.tasks:
        for row in _scored(task):
            if row.path.resolve() in heard:
                raise DataError(
                    f"{row.path}: is scored by {task.name} but pretrained on; keep its split ({row.split or 'none'}) "
                    "out with --exclude-splits, or take the file out of --data"
                )


def _scored(task: Task) -> list[Row]:
    listed = [*_listed(task.data, task.split_column)]
    splits = (
        {*task.split}
        or ({"test"} & {row.split for row in listed})
        or {row.split for row in listed} - {"val"}
    )
    return [row for row in listed if row.split in splits]


def _listed(source: str, split_column: str) -> Iterator[Row]:
    return rows(Path(source), split_column=split_column, label_column=LABEL)
