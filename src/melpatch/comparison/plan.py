"""Plan a comparison: the pretraining runs and evaluations of a spec, as commands of melpatch."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from melpatch.comparison import files
from melpatch.comparison.spec import Budget, Method, Sound, Spec, Task, Unit, words_of
from melpatch.config import check
from melpatch.data.columns import ColumnNames
from melpatch.data.row import Row
from melpatch.data.sources import read_source
from melpatch.data.split_roles import not_trained_on, role_of, usual_split
from melpatch.errors import DataError
from melpatch.evaluation.select import protocol_class


@dataclass(frozen=True)
class Scoring:
    """One evaluation: a task under a protocol.

    Attributes:
        task: the task to score.
        protocol: name of the protocol, with its changed settings.
        words: arguments of ``melpatch evaluate`` after the run, without ``--out``.
        version: version of the protocol.
        files: hash of the clips that the task lists.
    """

    task: Task
    protocol: str
    words: tuple[str, ...]
    version: int
    files: str

    @property
    def key(self) -> tuple[str, ...]:
        """Everything that the score depends on, except the run."""
        return ("evaluate", *self.words, f"version {self.version}", f"clips {self.files}")


@dataclass(frozen=True)
class Pretraining:
    """One pretraining run, with its evaluations.

    Attributes:
        method: method of the spec.
        size: size of the encoder.
        unit: unit of the training length; None for the length of the recipe.
        amount: training length in that unit; 0 where the unit is None.
        seed: seed of the run and of its evaluations.
        words: arguments of ``melpatch pretrain``, without length, seed and ``--out``.
        files: hashes of the listed clips, and of the initial weights.
        scorings: evaluations of the run.
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
        """The training length, as on the command line."""
        return f"{self.amount:.15g}"

    @property
    def key(self) -> tuple[str, ...]:
        """Everything that the run depends on."""
        length = "untrained"
        if self.method.trained:
            length = f"{self.unit} {self.length}"
        return (*self.words, *self.files, length, f"seed {self.seed}")

    @property
    def name(self) -> str:
        """Name of the run's folder, different from that of every other run."""
        parts = [self.method.name, self.size]
        if self.unit:
            parts.append(f"{self.length}-{self.unit}")
        return slug(self.key, *parts, f"seed-{self.seed}")

    @property
    def budget(self) -> str:
        """The training length in words."""
        if not self.method.trained:
            return "none"
        if self.unit is None:
            return "the recipe's"
        return f"{self.length} {self.unit.replace('cpu_seconds', 'CPU-s')}"


def slug(key: tuple[str, ...], *parts: str) -> str:
    """Return a readable name for a file, with a short hash of everything that it depends on."""
    text = re.sub(r"[^\w.]+", "-", "-".join(filter(None, parts))).strip("-")
    return f"{text}-{hashlib.blake2b(repr(key).encode(), digest_size=4).hexdigest()}"


def plan(spec: Spec, budget: Budget) -> list[Pretraining]:
    """Return the runs of a comparison, ordered by seed.

    Raises:
        ConfigError: the audio, the tasks, a recipe or an ``init`` is not given.
        DataError: a folder or CSV file is missing or cannot be read.
    """
    _require_all_parts(spec, budget)
    sound = tuple(
        f"clips {files.of_clips(data, spec.sound.split_column)}" for data in spec.sound.data
    )
    weights = (f"weights {files.of_weights(budget.init)}",)
    task_files = {task.name: files.of_clips(task.data, task.split_column) for task in spec.tasks}
    runs = []
    # Seeds vary slowest, so that the table has every row before any row has a second seed.
    for seed in budget.seeds:
        for size in budget.sizes:
            for method in spec.methods:
                words = _pretrain_words(spec.sound, budget, method, size)
                scorings = tuple(_scorings(spec, budget, method, seed, task_files))
                inputs = sound
                if method.init:
                    inputs = sound + weights
                for unit, amount in _lengths(budget, method):
                    runs.append(
                        Pretraining(method, size, unit, amount, seed, words, inputs, scorings)
                    )
    return runs


def _require_all_parts(spec: Spec, budget: Budget) -> None:
    """Check that the audio, the tasks and their protocols are given."""
    check(
        bool(spec.sound.data),
        "data",
        (),
        "audio to pretrain on; give it with --data, or in [sound]",
    )
    check(bool(spec.tasks), "tasks", (), "tasks to score; give them with --task, or in [[tasks]]")
    allowed = "one or more; give them with --protocol, in the budget, or with the task"
    for task in spec.tasks:
        check(bool(task.protocols or budget.protocols), "protocols", (), allowed)


def _lengths(budget: Budget, method: Method) -> tuple[tuple[Unit | None, float], ...]:
    """Return the training lengths of a method; an untrained one has a single empty length."""
    if method.trained:
        return budget.lengths
    return ((None, 0.0),)


def _pretrain_words(sound: Sound, budget: Budget, method: Method, size: str) -> tuple[str, ...]:
    """Return the arguments of ``melpatch pretrain`` for a method."""
    recipe = method.recipe or budget.recipe
    where = f"of method {method.name!r} in budget {budget.name!r}"
    check(bool(recipe), "recipe", recipe, f"a recipe of melpatch pretrain {where}")
    check(
        bool(budget.init) or not method.init,
        "init",
        budget.init,
        f"the initial weights {where}; give --init",
    )
    # Flags of the method come after those of the budget, since the last one counts.
    words = [recipe, *words_of("flags", budget.flags), *words_of("flags", method.flags)]
    words += ["--size", size]
    words += ["--data", *sound.data, "--split-column", sound.split_column]
    if sound.exclude_splits is not None:
        words += ["--exclude-splits", *sound.exclude_splits]
    if method.init:
        words += ["--init", budget.init]
    if not method.trained:
        words += ["--steps", "0"]
    return tuple(words)


def _scorings(
    spec: Spec, budget: Budget, method: Method, seed: int, task_files: Mapping[str, str]
) -> Iterator[Scoring]:
    """Yield the evaluations of a method, task by task."""
    for task in spec.tasks:
        for protocol in task.protocols or budget.protocols:
            name, *changes = words_of("protocols", protocol)
            words = ["--data", task.data, "--split-column", task.split_column, "--protocol", name]
            if task.split:
                words += ["--split", *task.split]
            if changes:
                words += ["--set", *changes]
            if not (method.trained or method.init):
                words += ["--random-weights"]
            words += ["--seeds", f"{seed}"]
            version = protocol_class(name).version
            yield Scoring(task, protocol, tuple(words), version, task_files[task.name])


def refuse_leaks(spec: Spec) -> None:
    """Raise an error if a file is both pretrained on and scored.

    Raises:
        DataError: a file is in both; the message names it.
    """
    listed = [row for data in spec.sound.data for row in _listed(data, spec.sound.split_column)]
    if spec.sound.exclude_splits is None:
        excluded = {*not_trained_on({row.split for row in listed})}
    else:
        excluded = _splits_called(spec.sound.exclude_splits, listed)
    trained_on = {_sound(row) for row in listed if row.split not in excluded}
    for task in spec.tasks:
        for row in _scored(task):
            if _sound(row) in trained_on:
                raise DataError(
                    f"{row.path}: is scored by {task.name} but pretrained on; keep its split "
                    f"({row.split or 'none'}) out with --exclude-splits, or take the file out of "
                    "--data"
                )


def _sound(row: Row) -> tuple[Path, int | None]:
    """Return what a row is of: a file, or a place in one that is packed."""
    return row.path.resolve(), row.offset if row.size else None


def _splits_called(names: Sequence[str], listed: Sequence[Row]) -> set[str]:
    """Return the splits of these names, see :meth:`melpatch.data.corpus.Corpus.split_called`."""
    present = {row.split for row in listed}
    return {name if name in present else usual_split(name) or name for name in names}


def _scored(task: Task) -> list[Row]:
    """Return the clips that a task scores: of its splits, else of test, else all but val."""
    listed = [*_listed(task.data, task.split_column)]
    present = {row.split for row in listed}
    splits = _splits_called(task.split, listed)
    if not splits:
        splits = {name for name in present if role_of(name) == "test"}
    if not splits:
        splits = {name for name in present if role_of(name) != "val"}
    return [row for row in listed if row.split in splits]


def _listed(source: str, split_column: str) -> Sequence[Row]:
    return read_source(source, ColumnNames(split=split_column)).rows
