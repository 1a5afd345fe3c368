"""Fine-tuning: the whole network is trained on the labels, by a recipe, in a run folder of its own for each trial."""

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
from melpatch.evaluation.rounds import Choice, Round
from melpatch.evaluation.summary import Trial
from melpatch.inference.model import load
from melpatch.protocols.as_trained import AsTrained
from melpatch.protocols.base import EvaluationJob, Protocol
from melpatch.training.config import RunConfig
from melpatch.training.loop import Evaluate
from melpatch.training.run import COMMAND, Run
from melpatch.training.states import Progress
from melpatch.workflows.finetune import (
    classifier,
    resolved,
    starting_settings,
    train_classifier,
)
from melpatch.workflows.initialize import SCRATCH


@dataclass(frozen=True)
class Started:
    """What the run of a trial was started for, as its command.toml keeps it.

    Attributes:
        init: the run whose encoder it started from, or ``scratch``.
        asked: see :meth:`melpatch.protocols.base.Protocol.asked`.
    """

    init: str
    asked: str


@dataclass(frozen=True, kw_only=True)
class FineTune(Protocol):
    """What ``melpatch finetune`` makes of a network, scored on clips that it has not seen.

    Each trial trains in ``runs/ROUND-SEED`` below the protocol's results. A trial that was killed goes on where its run
    stands; of one that is finished, settings and metrics stay, and the weights with ``keep_runs``. An untrained network
    has the same settings and starts from random weights, other ones for each seed.
    """

    choice: ClassVar[Choice] = "val"
    selection: ClassVar[str] = (
        "the weights of the best validation score, or the last ones without validation clips; or the mean of the last "
        "ones, where the recipe takes it"
    )
    every_epoch: ClassVar[bool] = False
    """Whether to evaluate after every epoch, however many there are (unless the recipe or the flags count steps), in
    the place of as often as the recipe says."""

    recipe: str = "finetune"
    """A recipe that learns from labels (melpatch list recipes)."""
    flags: str = ""
    """What differs from the recipe, as flags of melpatch finetune, such as "--epochs 12 --lr 1e-3"."""
    keep_runs: bool = False
    """Keep the weights that each trial was scored with; runs/ROUND-SEED is then a run like any other."""

    def init(self, job: EvaluationJob) -> str:
        """Return what the encoder starts from."""
        return (
            SCRATCH if job.untrained else str(job.run.resolve())
        )  # the same from whatever working directory

    def starting(self, job: EvaluationJob) -> RunConfig:
        """Return the settings from which the flags differ: the recipe's, with front end and encoder of the run."""
        return starting_settings(self.recipe, self.init(job), encoder_from=job.run)

    def settings(self, job: EvaluationJob) -> RunConfig:
        """Return the settings of all trials, as far as they do not hang on the round or the seed.

        Raises:
            ConfigError: there is no such recipe, or a flag that the training does not have.
        """
        base = self.starting(job)
        try:
            chosen = tyro.cli(
                RunConfig, default=base, args=shlex.split(self.flags), prog="flags", add_help=False
            )
        except (SystemExit, ValueError) as error:  # tyro has said on stderr which word is wrong
            allowed = f"flags of a training, as melpatch finetune --recipe {self.recipe} --help lists them"
            raise ConfigError(f"flags = {self.flags!r}; allowed: {allowed}") from error
        for name in ("data", "split_column", "label_column", "seed", "labels"):
            value, allowed = (
                getattr(chosen, name),
                "nothing, since the evaluation itself settles it; leave it out",
            )
            check(value == getattr(base, name), f"flags: {name}", value, allowed)
        if self.every_epoch and chosen.train.steps is None:
            chosen = replace(
                chosen, train=replace(chosen.train, evaluations=max(1, round(chosen.train.epochs)))
            )
        return chosen

    def rounds(self, job: EvaluationJob) -> list[Round]:
        """See :meth:`melpatch.protocols.base.Protocol.rounds`.

        Raises:
            ConfigError: see :meth:`settings`; this way it is known before anything is trained.
        """
        self.settings(job)
        return super().rounds(job)

    def asked(self, job: EvaluationJob, one: Round) -> str:
        """See :meth:`melpatch.protocols.base.Protocol.asked`; with all that the recipe says, which a name does not
        tell."""
        return json.dumps([super().asked(job, one), to_dict(self.settings(job))], sort_keys=True)

    def folder(self, job: EvaluationJob, name: str, seed: int) -> Path:
        """Return the run folder of a trial."""
        return job.out / "runs" / f"{name}-{seed}"

    def evaluate(self, one: Round, run: Run) -> Evaluate | None:
        """Return what is measured in training where no clips choose; nothing by default."""
        return None

    def trial(self, job: EvaluationJob, one: Round, seed: int) -> Trial:
        """See :meth:`melpatch.protocols.base.Protocol.trial`.

        The details are how many steps the training had, its time on the processors of all processes in seconds, and
        the step whose weights were kept with its score, or how many were averaged. Where it was killed in between, the
        time is None, on the processors and by the clock.
        """
        begun, folder = time.process_time(), self.folder(job, one.name, seed)
        started = on_rank_zero(lambda: Started(self.init(job), self.asked(job, one)))
        opened = _left(folder, started)
        whole = opened is None or opened.newest is None
        settings = (
            opened.config
            if opened
            else resolved(replace(self.settings(job), seed=seed), job.corpus, one.train, 0)
        )
        objective = classifier(settings, started.init, run=opened)
        run = opened or Run.create(folder, settings, started)
        progress = train_classifier(
            objective, run, one.train, one.val, evaluate=self.evaluate(one, run)
        )
        spent = round(sum(all_gather_objects(time.process_time() - begun)), 6)
        barrier()  # for the weights, which the first process writes
        cost = {"cpu_seconds": spent} if whole else {"cpu_seconds": None, "seconds": None}
        scored = AsTrained().trial(replace(job, model=load(folder)), one, seed)
        return replace(scored, details={**scored.details, **cost, **_kept(progress)})

    def clear(self, job: EvaluationJob, one: Round, seed: int) -> None:
        """See :meth:`melpatch.protocols.base.Protocol.clear`; that is the run's state, and its weights."""
        folder = self.folder(job, one.name, seed)
        shutil.rmtree(folder / "resume", ignore_errors=True)
        if not self.keep_runs:
            (folder / "model.safetensors").unlink(missing_ok=True)


def _left(folder: Path, started: Started) -> Run | None:
    """Return the run that a killed trial left behind; None if there is none."""
    return Run.reopen(folder) if on_rank_zero(lambda: _goes_on(folder, started)) else None


def _goes_on(folder: Path, started: Started) -> bool:
    """Return whether there is a run to go on with; one that was started for something else is removed."""
    if (folder / "config.toml").exists() and from_toml(Started, folder / COMMAND) == started:
        return True
    if folder.exists():
        shutil.rmtree(folder)
    return False


def _kept(progress: Progress) -> dict[str, Any]:
    if progress.averaged:
        return {"steps": progress.step, "averaged": progress.averaged}
    if progress.best is not None:
        return {"steps": progress.step, "step": progress.best_step, "val": progress.best}
    return {"steps": progress.step}
