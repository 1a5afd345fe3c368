"""Fit a pretraining run into a wall-clock budget: measure a few real steps, then set the number of steps."""

import re
import shutil
import tempfile
import time
from collections.abc import Mapping
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
# The second half of them is timed; the first steps are slower, since memory is allocated and kernels are chosen.
_FEW_STEPS = 6
_MANY_STEPS = 40
# Share of the budget that a second, longer measurement may take.
_MEASURING_SHARE = 0.05
# Share of the budget kept back for what varies, such as another process on the machine.
_RESERVE = 0.03


@dataclass(frozen=True)
class Costs:
    """What the parts of a run take, in seconds of wall-clock time.

    Attributes:
        step: one optimiser step, data loading included.
        evaluation: one measurement of the embedding health.
        save: one save that a crash can be resumed from.
        start: everything that happens once, such as starting the decoding processes.
    """

    step: float
    evaluation: float
    save: float
    start: float

    def fixed(self, training: RunConfig) -> float:
        """Return the seconds that a run takes apart from its steps and the saves between them."""
        # The last step always saves, and the start has an evaluation of its own.
        return self.start + training.train.evaluations * self.evaluation + self.save

    def steps_within(self, seconds: float, training: RunConfig) -> int:
        """Return how many steps fit into this many seconds, with evaluations and saves; 0 if none does."""
        per_step = self.step + self.save / training.train.save_every
        return max(0, int((seconds - self.fixed(training)) / per_step))


def parse_budget(text: str) -> float:
    """Return the seconds that a budget such as ``45s``, ``30m``, ``2h`` or ``1h30m`` stands for.

    Raises:
        ConfigError: it is none.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    whole = "".join(number + unit for number, unit in parts) == text
    check(whole and seconds > 0, "budget", text, "a time such as 45s, 30m, 2h or 1h30m")
    return seconds


def within_budget(training: RunConfig, corpus: Corpus, budget: str, started: float) -> RunConfig:
    """Return the settings with the number of steps that ends the run in time.

    All ranks measure together, and rank 0 decides. Evaluations, saves, and the time that has passed since ``started``
    are part of the budget.

    Args:
        training: the run's settings; their ``steps`` and ``epochs`` are replaced.
        corpus: the training clips.
        budget: see :func:`parse_budget`.
        started: reading of :func:`time.monotonic` at which the budget began.

    Raises:
        ConfigError: not a single step fits into the budget.
    """
    seconds = parse_budget(budget)
    costs = measure(training, corpus, _FEW_STEPS)
    # A longer measurement is better, where the budget has room for it; all ranks take the same branch.
    longer = min(_MANY_STEPS, int(_MEASURING_SHARE * seconds / costs.step))
    longer = distributed.broadcast_from_rank_zero(longer)
    if longer > 2 * _FEW_STEPS:
        costs = measure(training, corpus, longer)
    remaining = (1 - _RESERVE) * seconds - (time.monotonic() - started)
    steps = distributed.broadcast_from_rank_zero(costs.steps_within(remaining, training))
    if steps < 1:
        needed = seconds - remaining + costs.fixed(training) + costs.step
        raise ConfigError(
            f"--budget {budget} is too short: here a run of one step takes {needed:.0f} s; give more time, "
            "a smaller --size, or a smaller --batch-size"
        )
    notice(
        f"a step takes {costs.step:.3g} s, an evaluation {costs.evaluation:.3g} s, a save {costs.save:.3g} s: "
        f"{steps} steps fit into {budget}"
    )
    return replace(training, train=replace(training.train, steps=steps))


def measure(training: RunConfig, corpus: Corpus, steps: int) -> Costs:
    """Return what the parts of a run take, measured in a short run that is not kept.

    Args:
        training: the run's settings.
        corpus: the training clips.
        steps: length of the short run; its second half is timed.
    """
    # Two evaluations: each notes the seconds that the steps have taken, after half of the steps and after all.
    train = replace(training.train, steps=steps, evaluations=2, save_every=steps, keep_every=None)
    short = replace(training, train=train)
    folder = Path(distributed.on_rank_zero(lambda: tempfile.mkdtemp(prefix="melpatch-budget-")))
    begun = time.monotonic()
    try:
        objective = build(short)
        run = cast(_TimedRun, _TimedRun.create(folder, short))
        evaluate = _TimedEvaluation(EmbeddingHealth(corpus, short, objective))
        fit(objective, corpus, run, evaluate=evaluate)
    finally:
        distributed.on_rank_zero(lambda: shutil.rmtree(folder, ignore_errors=True))
    total = time.monotonic() - begun
    half = steps // 2
    step = (run.seconds_after[steps] - run.seconds_after[half]) / (steps - half)
    evaluation = max(evaluate.seconds)
    start = total - steps * step - len(evaluate.seconds) * evaluation - run.save_seconds
    return Costs(step, evaluation, run.save_seconds, max(0.0, start))


class _TimedRun(Run):
    """A run that keeps what the steps and the last save took."""

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
    """An evaluation that keeps what each call took."""

    def __init__(self, evaluate: Evaluate) -> None:
        self.evaluate = evaluate
        self.seconds: list[float] = []

    def __call__(self, objective: Objective, step: int) -> dict[str, float]:
        begun = time.monotonic()
        scores = self.evaluate(objective, step)
        self.seconds.append(time.monotonic() - begun)
        return scores
