"""Fine-tune on ESC-50 as AST and SSAST do, with the epoch that is best on the scored folds."""

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import numpy as np

from melpatch.atomic import written_aside
from melpatch.config import check
from melpatch.distributed import on_rank_zero
from melpatch.errors import CheckpointError
from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.metrics import primary_metric
from melpatch.evaluation.splits import EvaluationSplit, ValidationSource
from melpatch.evaluation.trials import TrialResult
from melpatch.inference.corpus import ClipTable
from melpatch.objectives.base import Objective
from melpatch.opening import reading
from melpatch.protocols.finetune import FineTune
from melpatch.training.loop import Evaluate
from melpatch.training.run import Run
from melpatch.workflows.validation import Validation


@dataclass(frozen=True, kw_only=True)
class ESC50AST(FineTune):
    """AST's fine-tuning on five folds: four train, the fifth is scored after every epoch.

    The curves of the folds are averaged, and the score is that of the best epoch of the mean curve:
    one choice for all folds, but made on the scored clips themselves, so that it is slightly too
    high. The score of the last epoch, which is not, is reported as ``last_epoch_value``, with the
    mean curves as ``curves``; ``esc50_clean`` selects the epoch on other clips.

    Source: Gong, Chung and Glass 2021 (arXiv 2104.01778), section 3.2, Gong et al. 2022 (arXiv
        2110.09784), table
    2, and the published code.
    """

    version: ClassVar[int] = 1
    validation: ClassVar[ValidationSource] = "none"
    selection_rule: ClassVar[str] = (
        "the epoch whose mean over the folds is best on the scored clips themselves, as published: slightly too high; "
        "last_epoch_value is the score without this choice"
    )
    every_epoch: ClassVar[bool] = True

    recipe: str = "ast_esc50"
    """A recipe that learns from labels (melpatch list recipes), such as ssast_esc50 or asit_esc50."""

    def evaluate(self, split: EvaluationSplit, run: Run) -> Evaluate:
        """Return what scores the test clips, and keeps their probabilities in the run's folder ``epochs``."""
        metric = primary_metric(run.config.objective.multi_label)
        validation = Validation(split.test, run.config, metric, "test")

        def score_and_keep(objective: Objective, step: int) -> dict[str, float]:
            predictions = validation.table(objective)
            score = validation.scores(predictions)[metric]
            path = run.folder / "epochs" / f"step-{step:09d}.npz"
            on_rank_zero(lambda: _write_epoch(path, predictions, score))
            return {f"test_{metric}": score}

        return score_and_keep

    def run_trial(self, job: EvaluationJob, split: EvaluationSplit, seed: int) -> TrialResult:
        """See :meth:`melpatch.protocols.finetune.FineTune.run_trial`; ``curve`` is the score after each epoch."""
        trial = super().run_trial(job, split, seed)
        curve = [float(_read_epoch(path)["score"]) for path in self._epoch_files(job, trial)]
        return replace(trial, details=trial.details | {"curve": curve})

    def finalize(
        self, job: EvaluationJob, trials: list[TrialResult]
    ) -> tuple[list[TrialResult], dict[str, Any]]:
        """Return the trials after the best epoch of their seed, and the mean curve of each seed.

        Raises:
            ConfigError: folds differ so much in size that one had fewer evaluations than another.
            CheckpointError: the predictions of a finished trial after some epoch are gone.
        """
        selected: list[TrialResult] = []
        curves = []
        for seed in dict.fromkeys(trial.seed for trial in trials):
            folds = [trial for trial in trials if trial.seed == seed]
            lengths = sorted({len(trial.details["curve"]) for trial in folds})
            allowed = "as many in each fold; train for more steps per epoch"
            check(len(lengths) == 1, "evaluations", lengths, allowed)
            # As published: one epoch for all folds, the best of their mean, which the scored
            # clips choose.
            curve = np.mean([trial.details["curve"] for trial in folds], axis=0).tolist()
            best = curve.index(max(curve))
            selected += [self._after_epoch(job, trial, best) for trial in folds]
            curves.append(
                {
                    "seed": seed,
                    "best_epoch": best + 1,
                    "last_epoch_value": curve[-1],
                    "curve": curve,
                }
            )
        last = fmean(curve["last_epoch_value"] for curve in curves)
        return selected, {"last_epoch_value": last, "curves": curves}

    def _epoch_files(self, job: EvaluationJob, trial: TrialResult) -> list[Path]:
        return sorted((self.folder(job, trial.split, trial.seed) / "epochs").glob("*.npz"))

    def _after_epoch(self, job: EvaluationJob, trial: TrialResult, epoch: int) -> TrialResult:
        """Return a trial with its predictions after an epoch, counted from 0."""
        files = self._epoch_files(job, trial)
        num_epochs = len(trial.details["curve"])
        if len(files) != num_epochs:
            folder = self.folder(job, trial.split, trial.seed)
            path = job.out / "trials" / f"{folder.name}.npz"
            raise CheckpointError(
                f"{folder}: holds {len(files)} of the {num_epochs} epochs of a finished trial; restore the others, or "
                f"delete {path} to run it again"
            )
        saved = _read_epoch(files[epoch])
        clip_of_key = {clip.key: clip for clip in trial.clips}
        return replace(
            trial,
            clips=tuple(clip_of_key[key] for key in saved["keys"].tolist()),
            probabilities=saved["probabilities"],
        )


def _write_epoch(path: Path, predictions: ClipTable, score: float) -> None:
    keys = np.array([clip.key for clip in predictions.clips])
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, keys=keys, probabilities=predictions.rows, score=score)


def _read_epoch(path: Path) -> dict[str, np.ndarray]:
    fix = "delete the folder of that trial"
    with reading(path, fix, None), np.load(path, allow_pickle=False) as saved:
        return dict(saved)
