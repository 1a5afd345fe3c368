"""Fine-tune the whole network by a recipe, in a run folder per trial."""

import json
import shlex
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import tyro

from melpatch.config import check, from_toml, to_dict
from melpatch.distributed import all_gather_objects, barrier, on_rank_zero
from melpatch.errors import ConfigError
from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.protocol import Protocol
from melpatch.evaluation.splits import EvaluationSplit, ValidationSource
from melpatch.evaluation.trials import TrialResult
from melpatch.inference.model import load
from melpatch.outputs import as_file_name
from melpatch.protocols.as_trained import AsTrained
from melpatch.training.checkpoints import Progress
from melpatch.training.config import RunConfig
from melpatch.training.loop import Evaluate
from melpatch.training.run import COMMAND, Run
from melpatch.weight_files import is_on_hub
from melpatch.workflows.classifier import classifier, starting_settings, train_classifier
from melpatch.workflows.initialize import SCRATCH
from melpatch.workflows.label_settings import resolved


@dataclass(frozen=True)
class TrialCommand:
    """What the run of a trial was started for, kept as its command.toml.

    Attributes:
        init: the run whose encoder it started from, or ``scratch``.
        fingerprint: see :meth:`melpatch.evaluation.protocol.Protocol.fingerprint`.
    """

    init: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class FineTune(Protocol):
    """Fine-tune a network as ``melpatch finetune`` does, and score it on clips that it was not trained on.

    Each trial trains in ``runs/SPLIT-SEED`` in the folder of the protocol's results. An interrupted
    trial resumes its run; of a finished one, settings and metrics stay, and with ``keep_runs`` the
    weights. A network at random weights has the same settings and starts from random weights,
    different ones for each seed.
    """

    # Version 1 chose by accuracy where classes differ much in size, too; version 2 pooled the mean
    # of each frequency row only.
    version: ClassVar[int] = 3
    validation: ClassVar[ValidationSource] = "val"
    selection_rule: ClassVar[str] = (
        "the weights with the best validation score, or the last ones without validation clips; or the last ones "
        "averaged, where the recipe says so"
    )
    every_epoch: ClassVar[bool] = False
    """Whether to evaluate after every epoch instead of as often as the recipe says, unless recipe
    or flags count steps."""

    recipe: str = "finetune"
    """A recipe that learns from labels (melpatch list recipes)."""
    flags: str = ""
    """What differs from the recipe, as flags of melpatch finetune, such as "--epochs 12 --lr 1e-3"."""
    keep_runs: bool = False
    """Keep the weights of each trial; runs/SPLIT-SEED is then a run like any other."""

    def init(self, job: EvaluationJob) -> str:
        """Return what the encoder starts from."""
        if job.random_weights:
            return SCRATCH
        # An absolute path, so that it is the same from any working directory.
        return str(job.run) if is_on_hub(str(job.run)) else str(job.run.resolve())

    def base_settings(self, job: EvaluationJob) -> RunConfig:
        """Return the settings that the flags change: the recipe's, with front end and encoder of the run."""
        return starting_settings(self.recipe, self.init(job), encoder_from=job.run)

    def settings(self, job: EvaluationJob) -> RunConfig:
        """Return the settings of all trials, except for what depends on the split or the seed.

        Raises:
            ConfigError: there is no such recipe, or a flag that the training does not have.
        """
        base = self.base_settings(job)
        try:
            chosen = tyro.cli(
                RunConfig, default=base, args=shlex.split(self.flags), prog="flags", add_help=False
            )
        except (SystemExit, ValueError) as error:  # tyro has said on stderr which word is wrong
            allowed = f"flags of a training, as melpatch finetune --recipe {self.recipe} --help lists them"
            raise ConfigError(f"flags = {self.flags!r}; allowed: {allowed}") from error
        decided = (
            "data",
            "split_column",
            "label_column",
            "group_column",
            "channel",
            "seed",
            "labels",
        )
        for name in decided:
            value = getattr(chosen, name)
            allowed = "nothing, since the evaluation decides it; leave it out"
            check(value == getattr(base, name), f"flags: {name}", value, allowed)
        if self.every_epoch and chosen.train.steps is None:
            evaluations = max(1, round(chosen.train.epochs))
            chosen = replace(chosen, train=replace(chosen.train, evaluations=evaluations))
        return chosen

    def splits(self, job: EvaluationJob) -> list[EvaluationSplit]:
        """See :meth:`melpatch.evaluation.protocol.Protocol.splits`.

        Raises:
            ConfigError: see :meth:`settings`; raised here so that it is known before anything is
                trained.
        """
        self.settings(job)
        return super().splits(job)

    def fingerprint(self, job: EvaluationJob, split: EvaluationSplit) -> str:
        """See :meth:`melpatch.evaluation.protocol.Protocol.fingerprint`; includes all settings of the recipe."""
        depends_on = [super().fingerprint(job, split), to_dict(self.settings(job))]
        return json.dumps(depends_on, sort_keys=True)

    def folder(self, job: EvaluationJob, split: str, seed: int) -> Path:
        """Return the run folder of a trial."""
        return job.out / "runs" / f"{as_file_name(split, any_case=False)}-{seed}"

    def evaluate(self, split: EvaluationSplit, run: Run) -> Evaluate | None:
        """Return what is measured during training where there are no validation clips; nothing by default."""
        return None

    def run_trial(self, job: EvaluationJob, split: EvaluationSplit, seed: int) -> TrialResult:
        """See :meth:`melpatch.evaluation.protocol.Protocol.run_trial`.

        The details are the number of steps, the CPU seconds of all processes, and the step whose
        weights were kept with its score, or how many weights were averaged. For a trial that was
        interrupted, the CPU seconds and the seconds by the clock are None.
        """
        start = time.process_time()
        folder = self.folder(job, split.name, seed)
        command = on_rank_zero(lambda: TrialCommand(self.init(job), self.fingerprint(job, split)))
        interrupted = _interrupted_run(folder, command)
        if interrupted is None:
            settings = replace(self.settings(job), seed=seed)
            settings = resolved(settings, job.corpus, split.train, 0, split.val)
        else:
            settings = interrupted.config
        # A run that was interrupted before its first checkpoint starts from the beginning.
        is_whole = interrupted is None or interrupted.newest is None
        objective = classifier(settings, command.init, run=interrupted)
        run = interrupted or Run.create(folder, settings, command)
        progress = train_classifier(
            objective, run, split.train, split.val, evaluate=self.evaluate(split, run)
        )
        cpu_seconds = round(sum(all_gather_objects(time.process_time() - start)), 6)
        # Wait for the weights, which rank 0 writes.
        barrier()
        tuned = load(folder, precision=job.model.precision)
        trial = AsTrained().run_trial(replace(job, model=tuned), split, seed)
        details = trial.details | _selected_weights(progress)
        details["cpu_seconds"] = cpu_seconds if is_whole else None
        if not is_whole:
            details["seconds"] = None
        return replace(trial, details=details)

    def clean_up(self, job: EvaluationJob, split: EvaluationSplit, seed: int) -> None:
        """See :meth:`melpatch.evaluation.protocol.Protocol.clean_up`; removes the run's state and its weights."""
        folder = self.folder(job, split.name, seed)
        shutil.rmtree(folder / "resume", ignore_errors=True)
        if not self.keep_runs:
            (folder / "model.safetensors").unlink(missing_ok=True)


def _interrupted_run(folder: Path, command: TrialCommand) -> Run | None:
    """Return the run that an interrupted trial left; None if there is none.

    Only rank 0 looks, since it may remove the folder of a run that was started for something else.
    """
    if on_rank_zero(lambda: _can_resume(folder, command)):
        return Run.reopen(folder)
    return None


def _can_resume(folder: Path, command: TrialCommand) -> bool:
    """Return whether there is a run to resume; one that was started for something else is removed."""
    has_run = (folder / "config.toml").exists()
    if has_run and from_toml(TrialCommand, folder / COMMAND) == command:
        return True
    if folder.exists():
        shutil.rmtree(folder)
    return False


def _selected_weights(progress: Progress) -> dict[str, Any]:
    if progress.averaged:
        return {"steps": progress.step, "averaged": progress.averaged}
    if progress.best is not None:
        return {
            "steps": progress.step,
            "best_step": progress.best_step,
            "val_score": progress.best,
        }
    return {"steps": progress.step}
