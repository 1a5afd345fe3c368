"""Fit a pretraining run into a wall-clock budget by timing a few real steps."""

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from melpatch import distributed
from melpatch.config import check
from melpatch.data.manifest import Corpus
from melpatch.errors import ConfigError
from melpatch.objectives.base import Objective
from melpatch.progress import notice
from melpatch.training.checkpoints import Checkpoint
from melpatch.training.config import RunConfig, build
from melpatch.training.health import EmbeddingHealth
from melpatch.training.loop import Evaluate, fit
from melpatch.training.run import Run

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
# Only the second half is timed: in the first steps memory is allocated and kernels are chosen.
_FEW_STEPS = 6
_MANY_STEPS = 40
# Share of the budget that a second, longer measurement may take.
_MEASURING_SHARE = 0.05
# Share of the budget that evaluations may take: one may cost as much as several steps.
_EVALUATION_SHARE = 0.1
# Share of the budget held in reserve, since the speed varies with what else the machine does.
_RESERVE = 0.03


Ready = Callable[[Objective], None]


def _as_it_is(objective: Objective) -> None:
    """Leave an objective as its settings say."""


@dataclass(frozen=True)
class Costs:
    """What each part of a run costs, in seconds of wall-clock time.

    Attributes:
        step: one optimiser step, including data loading.
        evaluation: one measurement of the embedding health.
        save: one save of the state that the run can be resumed from.
        start: everything that happens once, such as starting the data workers.
    """

    step: float
    evaluation: float
    save: float
    start: float

    def fixed(self, training: RunConfig) -> float:
        """Return the seconds that a run needs besides its steps and the saves between them."""
        # The last step always saves, whatever ``save_every`` is.
        return self.start + training.train.evaluations * self.evaluation + self.save

    def steps_within(self, seconds: float, training: RunConfig) -> int:
        """Return how many steps fit into these seconds, including evaluations and saves."""
        # A save costs the same whenever it is made, so each step bears its share of one.
        per_step = self.step + self.save / training.train.save_every
        return max(0, int((seconds - self.fixed(training)) / per_step))


def parse_budget(text: str) -> float:
    """Return a budget such as ``45s``, ``30m``, ``2h`` or ``1h30m`` in seconds.

    Raises:
        ConfigError: the text is not such a time.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    whole = "".join(number + unit for number, unit in parts) == text
    check(whole and seconds > 0, "budget", text, "a time such as 45s, 30m, 2h or 1h30m")
    return seconds


def within_budget(
    training: RunConfig, corpus: Corpus, budget: str, started: float, ready: Ready = _as_it_is
) -> RunConfig:
    """Return the settings with the number of steps that fits into the budget.

    All ranks measure together, and rank 0 decides. The budget includes evaluations, saves, and the
    time that has passed since ``started``. There are fewer evaluations than the settings ask for
    where they would take more than a tenth of the budget.

    Args:
        training: the run's settings; ``steps`` replaces ``epochs``.
        corpus: the training clips.
        budget: see :func:`parse_budget`.
        started: the value of :func:`time.monotonic` when the command started.
        ready: see :func:`measure`.

    Raises:
        ConfigError: not a single step fits into the budget.
    """
    seconds = parse_budget(budget)
    costs = measure(training, corpus, _FEW_STEPS, ready)
    # A longer measurement is more exact, so it is made if the budget has room for it. Its length
    # is broadcast, because all ranks must take the same branch.
    longer = min(_MANY_STEPS, int(_MEASURING_SHARE * seconds / costs.step))
    longer = distributed.broadcast_from_rank_zero(longer)
    if longer > 2 * _FEW_STEPS:
        costs = measure(training, corpus, longer, ready)
    affordable = max(1, int(_EVALUATION_SHARE * seconds / costs.evaluation))
    evaluations = min(training.train.evaluations, distributed.broadcast_from_rank_zero(affordable))
    training = replace(training, train=replace(training.train, evaluations=evaluations))
    remaining = (1 - _RESERVE) * seconds - (time.monotonic() - started)
    steps = distributed.broadcast_from_rank_zero(costs.steps_within(remaining, training))
    if steps < 1:
        needed = seconds - remaining + costs.fixed(training) + costs.step
        raise ConfigError(
            f"--budget {budget} is too short: a run of a single step takes {needed:.0f} s here; "
            "give more time, a smaller --size, or a smaller --batch-size"
        )
    notice(
        f"a step takes {costs.step:.3g} s, an evaluation {costs.evaluation:.3g} s, "
        f"a save {costs.save:.3g} s; --budget {budget}: steps = {steps}, evaluations = {evaluations}"
    )
    return replace(training, train=replace(training.train, steps=steps))


def measure(training: RunConfig, corpus: Corpus, steps: int, ready: Ready = _as_it_is) -> Costs:
    """Return what each part of a run costs, measured in a short run that is thrown away.

    Args:
        training: the run's settings.
        corpus: the training clips.
        steps: length of the short run; its second half is timed.
        ready: gives an objective what its settings do not hold, such as a teacher.
    """
    # The two evaluations log the seconds that the steps took: after half of them, and after all.
    train = replace(training.train, steps=steps, evaluations=2, save_every=steps, keep_every=None)
    short = replace(training, train=train)
    folder = Path(distributed.on_rank_zero(lambda: tempfile.mkdtemp(prefix="melpatch-budget-")))
    begun = time.monotonic()
    try:
        objective = build(short)
        ready(objective)
        run = cast(_TimedRun, _TimedRun.create(folder, short))
        evaluate = _TimedEvaluation(EmbeddingHealth(corpus, short, objective))
        fit(objective, corpus, run, evaluate=evaluate)
    finally:
        distributed.on_rank_zero(lambda: shutil.rmtree(folder, ignore_errors=True))
    # What is neither a step, nor an evaluation, nor the save, is the start.
    total = time.monotonic() - begun
    # Of an odd number of steps the first evaluation is not exactly in the middle.
    first, *_, last = sorted(run.seconds_after)
    step = (run.seconds_after[last] - run.seconds_after[first]) / (last - first)
    evaluation = max(evaluate.seconds)
    start = total - steps * step - len(evaluate.seconds) * evaluation - run.save_seconds
    return Costs(step, evaluation, run.save_seconds, max(0.0, start))


class _TimedRun(Run):
    """A run that remembers how long its steps and its last save took."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        super().__init__(folder, config)
        self.seconds_after: dict[int, float] = {}
        self.save_seconds = 0.0

    def log_speed(self, record: Mapping[str, Any]) -> None:
        super().log_speed(record)
        self.seconds_after[record["step"]] = record["seconds"]

    def save(self, state: Checkpoint, publish: Mapping[str, Tensor] | None = None) -> None:
        begun = time.monotonic()
        super().save(state, publish)
        self.save_seconds = time.monotonic() - begun


class _TimedEvaluation:
    """An evaluation that remembers how long each call took."""

    def __init__(self, evaluate: Evaluate) -> None:
        self.evaluate = evaluate
        self.seconds: list[float] = []

    def __call__(self, objective: Objective, step: int) -> dict[str, float]:
        begun = time.monotonic()
        scores = self.evaluate(objective, step)
        self.seconds.append(time.monotonic() - begun)
        return scores
