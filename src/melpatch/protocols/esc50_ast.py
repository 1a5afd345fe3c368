"""ESC-50 as AST and SSAST publish it: the epoch that is best on the scored folds themselves, all taken together."""

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import numpy as np

from melpatch.atomic import written_aside
from melpatch.config import check
from melpatch.distributed import on_rank_zero
from melpatch.errors import CheckpointError
from melpatch.evaluation.metrics import primary_metric
from melpatch.evaluation.rounds import Choice, Round
from melpatch.evaluation.summary import Trial
from melpatch.inference.corpus import ClipTable
from melpatch.objectives.base import Objective
from melpatch.protocols.base import EvaluationJob
from melpatch.protocols.finetune import FineTune
from melpatch.training.loop import Evaluate
from melpatch.training.run import Run
from melpatch.workflows.finetune import Validation


@dataclass(frozen=True, kw_only=True)
class ESC50AST(FineTune):
    """AST's fine-tuning on five folds: four train, the fifth is scored after every epoch.

    The curves of the folds are averaged, and the best epoch of the average is the score: one choice for all folds, but
    made on the very clips that are scored, so that it is too good by a little. The score of the last epoch, which is
    not, stands beside it as ``last_epoch``, with the whole curve as ``curves``; ``esc50_clean`` chooses on other clips.

    Source: Gong, Chung and Glass 2021 (arXiv 2104.01778), section 3.2, Gong et al. 2022 (arXiv 2110.09784), table
    2, and the published code.
    """

    choice: ClassVar[Choice] = "none"
    selection: ClassVar[str] = (
        "the one epoch whose mean over the folds is best on the scored clips themselves, as published: too good by a "
        "little; last_epoch is the score without this choice"
    )
    every_epoch: ClassVar[bool] = True

    recipe: str = "ast_esc50"
    """A recipe that learns from labels (melpatch list recipes), such as ssast_esc50 or asit_esc50."""

    def evaluate(self, one: Round, run: Run) -> Evaluate:
        """Return what scores the test clips, and keeps their probabilities in the run's folder ``epochs``."""
        metric = primary_metric(run.config.objective.multi_label)
        seen = Validation(one.test, run.config, metric, "test")

        def keep(objective: Objective, step: int) -> dict[str, float]:
            table = seen.table(objective)
            score, path = seen.score(table), run.folder / "epochs" / f"step-{step:09d}.npz"
            on_rank_zero(lambda: _write(path, table, score))
            return {f"test_{metric}": score}

        return keep

    def trial(self, job: EvaluationJob, one: Round, seed: int) -> Trial:
        """See :meth:`melpatch.protocols.finetune.FineTune.trial`; the details have the score after each epoch too."""
        trial = super().trial(job, one, seed)
        curve = [float(_read(path)["score"]) for path in self._epochs(job, trial)]
        return replace(trial, details=trial.details | {"curve": curve})

    def conclude(
        self, job: EvaluationJob, trials: list[Trial]
    ) -> tuple[list[Trial], dict[str, Any]]:
        """Return the trials as they stood after the best epoch of their seed, and the seeds' mean curves.

        Raises:
            ConfigError: folds differ so much in size that one had fewer evaluations than another.
            CheckpointError: what a finished trial said after some epoch is gone.
        """
        chosen: list[Trial] = []
        curves = []
        for seed in dict.fromkeys(trial.seed for trial in trials):
            folds = [trial for trial in trials if trial.seed == seed]
            lengths = sorted({len(trial.details["curve"]) for trial in folds})
            check(
                len(lengths) == 1,
                "evaluations",
                lengths,
                "as many in each fold; train for more steps in an epoch",
            )
            curve = np.mean([trial.details["curve"] for trial in folds], axis=0).tolist()
            best = curve.index(max(curve))
            chosen += [self._after(job, trial, best) for trial in folds]
            curves.append(
                {"seed": seed, "best_epoch": best + 1, "last_epoch": curve[-1], "curve": curve}
            )
        return chosen, {"last_epoch": fmean(one["last_epoch"] for one in curves), "curves": curves}

    def _epochs(self, job: EvaluationJob, trial: Trial) -> list[Path]:
        return sorted((self.folder(job, trial.round, trial.seed) / "epochs").glob("*.npz"))

    def _after(self, job: EvaluationJob, trial: Trial, epoch: int) -> Trial:
        """Return a trial as it stood after an epoch, counted from 0."""
        known, wanted = self._epochs(job, trial), len(trial.details["curve"])
        if len(known) != wanted:
            folder = self.folder(job, trial.round, trial.seed)
            raise CheckpointError(
                f"{folder}: holds {len(known)} of the {wanted} epochs of a finished trial; put the others back, or "
                f"delete {job.out / 'trials' / f'{folder.name}.npz'}, and it is done anew"
            )
        kept, place = _read(known[epoch]), {clip.key: clip for clip in trial.clips}
        return replace(
            trial,
            clips=tuple(place[key] for key in kept["keys"].tolist()),
            probabilities=kept["probabilities"],
        )


def _write(path: Path, table: ClipTable, score: float) -> None:
    with written_aside(path) as aside, aside.open("wb") as file:
        keys = np.array([clip.key for clip in table.clips])
        np.savez_compressed(file, keys=keys, probabilities=table.rows, score=score)


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as kept:
        return dict(kept)
