"""Carry out a comparison: measure the cost of a step, pretrain, evaluate; finished work is kept."""

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from melpatch import registry
from melpatch.comparison.plan import Pretraining, Scoring, slug
from melpatch.comparison.results import RESULTS, Line, Results
from melpatch.comparison.subprocesses import RunStopped, Subprocesses
from melpatch.errors import MelpatchError
from melpatch.opening import LOG_BYTES, read_text
from melpatch.progress import Bar, bar, notice
from melpatch.training.config import read_settings
from melpatch.training.run import Run

WARM = 4
"""Steps before the timed ones; the first steps are slower."""
TIMED = 12
"""Steps whose mean cost is measured."""
NAMED = 3
"""Runs and scores without a result that a message names."""


class Comparison:
    """A folder of runs, scores and logs, with a results file.

    Args:
        folder: the folder.
        runs: what is compared.
        floors: whether floors stand beside the scores, see :mod:`melpatch.evaluation.floors`.
    """

    def __init__(self, folder: Path, runs: Sequence[Pretraining], *, floors: bool = True) -> None:
        self.folder = folder
        self.runs = runs
        self.floors = floors
        self.results = Results(folder / RESULTS)
        self._processes = Subprocesses()

    def carry_out(self, jobs: int, after: Callable[[], None]) -> None:
        """Compute the cells without a result; failed ones are tried again.

        Args:
            jobs: number of commands to run at a time.
            after: called after every run with its scores, and at the end or on interruption.
        """
        priced = {cost_key(run): run for run in self.runs if run.unit == "cpu_seconds"}
        keys = [*priced, *(key for run in self.runs for key in (run.key, *score_keys(run)))]
        done = sum(self._result(key) is not None for key in keys)
        pool = ThreadPoolExecutor(jobs)
        try:
            with bar(len(keys), "comparing", "cell", done=done) as shown:
                # One at a time: a step costs more while other commands run.
                for run in priced.values():
                    self._measure_cost(run, shown)
                for _ in pool.map(lambda run: self._train_and_score(run, shown), self.runs):
                    after()
        finally:
            # Also after an interruption: commands end first, then the threads that wait for them.
            self._processes.stop()
            pool.shutdown(cancel_futures=True)
            after()

    def require_all_results(self) -> None:
        """Check that every run and every score has a result.

        Raises:
            MelpatchError: some failed or were interrupted; the message names the first of them.
        """
        missing = []
        for run in self.runs:
            about = f"{run.method.name}, {run.size}, {run.budget}, seed {run.seed}"
            if self._result(run.key) is None:
                # What would have been scored failed with it.
                missing.append(about)
                continue
            for scoring, key in zip(run.scorings, score_keys(run), strict=True):
                if self._result(key) is None:
                    missing.append(f"{about}, on {scoring.task.name} by {scoring.protocol}")
        if not missing:
            return
        named = "; ".join(missing[:NAMED])
        if len(missing) > NAMED:
            named += f"; and {len(missing) - NAMED} more"
        raise MelpatchError(
            f"{self.folder}: no result of {named}; table.md there gives the reasons, "
            "the same command tries again"
        )

    def path(self, kind: str, name: str) -> Path:
        """Return the folder or log of a cell."""
        return self.folder / kind / name

    def _measure_cost(self, run: Pretraining, shown: Bar) -> None:
        """Measure the cost of a step, unless it is known."""
        with suppress(RunStopped):
            about = {"method": run.method.name, "size": run.size}
            self._cell(cost_key(run), shown, about, partial(self._cost, run))

    def _train_and_score(self, run: Pretraining, shown: Bar) -> None:
        """Pretrain, and evaluate the run."""
        with suppress(RunStopped):
            trained = self._cell(run.key, shown, self._about(run), partial(self._pretrain, run))
            if "error" in trained:
                for _ in run.scorings:
                    shown.advance()
                return
            scores = [*zip(run.scorings, score_keys(run), strict=True)]
            missing = any(self._result(key) is None for _, key in scores)
            gone = ""
            if missing and not self.path("runs", trained["run"]).exists():
                trained, gone = self._train_again(run, trained)
            for scoring, key in scores:
                about = self._about(run) | {"task": scoring.task.name, "protocol": scoring.protocol}
                score = partial(self._score, run, scoring, key, trained["run"])
                self._cell(key, shown, about, partial(_failed, gone) if gone else score)

    def _train_again(self, run: Pretraining, trained: Line) -> tuple[Line, str]:
        """Train a run whose folder is gone, for the scores that it lacks.

        So results go on where only their file was copied to, and after a run was removed.

        Returns:
            The result, which stays what it was if training fails, and why it failed.
        """
        folder = self.path("runs", trained["run"])
        notice(f"{folder}: is gone, and trained again for scores that it lacks")
        try:
            again = self._pretrain(run)
        except MelpatchError as error:
            return trained, f"{folder}: is gone, and cannot be trained again: {error}"
        return self.results.add(run.key, self._about(run) | again), ""

    def _cell(
        self, key: tuple[str, ...], shown: Bar, about: Line, compute: Callable[[], Line]
    ) -> Line:
        """Return the result of a cell; it is computed unless it is known."""
        known = self._result(key)
        if known is not None:
            return known
        try:
            result = compute()
        except MelpatchError as error:
            result = {"error": str(error)}
        shown.advance()
        return self.results.add(key, about | result)

    def _result(self, key: tuple[str, ...]) -> Line | None:
        """Return the result of a cell; None if there is none, or an error, or floors are missing."""
        line = self.results.find(key)
        if line is None or "error" in line:
            return None
        if self.floors and "value" in line and "floors" not in line:
            return None
        return line

    def _about(self, run: Pretraining) -> Line:
        return {
            "method": run.method.name,
            "size": run.size,
            "budget": run.budget,
            "seed": run.seed,
            "run": run.name,
        }

    def _cost(self, run: Pretraining) -> Line:
        """Return the CPU seconds of a step, measured in a short run that is removed.

        Raises:
            MelpatchError: the run failed, or ran on a GPU.
        """
        name = slug(cost_key(run), "cost", run.method.name, run.size)
        folder = self.path("costs", name)
        log = self.path("logs", f"{name}.log")
        shutil.rmtree(folder, ignore_errors=True)
        words = ["pretrain", *run.words, "--steps", f"{WARM + TIMED}", "--save-every", f"{WARM}"]
        words += ["--evaluations", "1", "--workers", "0", "--out", str(folder)]
        self._processes.melpatch(words, log)
        lines = map(json.loads, read_text(folder / "speed.jsonl", LOG_BYTES).splitlines())
        cpu_seconds = {line["step"]: line["cpu_seconds"] for line in lines}
        gpu = _gpu(folder)
        shutil.rmtree(folder)
        if gpu:
            raise MelpatchError(
                f"cpu_seconds: not measured on a GPU ({gpu}); give --steps or --epochs"
            )
        # Mean over the timed steps; the warm-up before them is subtracted.
        return {"cpu_seconds_per_step": (cpu_seconds[WARM + TIMED] - cpu_seconds[WARM]) / TIMED}

    def _pretrain(self, run: Pretraining) -> Line:
        """Pretrain into a run folder, and return the cost."""
        folder = self.path("runs", run.name)
        words = ["pretrain", *run.words, *self._length(run), "--seed", f"{run.seed}"]
        words += ["--resume", "--out", str(folder)]
        self._processes.melpatch(words, self.path("logs", f"{run.name}.log"))
        return spent(folder)

    def _length(self, run: Pretraining) -> list[str]:
        """Return the flags for the training length of a run."""
        if run.unit is None:
            return []
        if run.unit != "cpu_seconds":
            return [f"--{run.unit}", run.length]
        cost = self.results.find(cost_key(run)) or {"error": "the cost of a step is not known"}
        if "error" in cost:
            raise MelpatchError(cost["error"])
        steps = max(1, round(run.amount / cost["cpu_seconds_per_step"]))
        # Without workers, so that the CPU time of decoding counts too.
        return ["--steps", f"{steps}", "--evaluations", "1", "--workers", "0"]

    def _score(
        self, run: Pretraining, scoring: Scoring, key: tuple[str, ...], trained: str
    ) -> Line:
        """Evaluate the trained run of this name, and return its scores."""
        name = slug(key, run.name, scoring.task.name, scoring.protocol)
        folder = self.path("scores", name)
        words = [
            "evaluate",
            str(self.path("runs", trained)),
            *scoring.words,
            "--out",
            str(folder),
            # The table is looked at; pictures of each of its cells take as long as their scores.
            "--no-pictures",
        ]
        if self.floors:
            # In one folder the features that all runs share, of spectrograms, are computed once.
            words += ["--features-dir", str(self.path("features", "shared"))]
        else:
            words.append("--no-floors")
        # Code that the user gave, or allowed the spec to name, is in the run's settings too.
        if any(map(registry.is_code, run.words)):
            words.append("--trust-code")
        self._processes.melpatch(words, self.path("logs", f"{name}.log"))
        (path,) = folder.glob("*/scores.json")
        record = json.loads(read_text(path))
        kept = ("metric", "value", "interval_95", "n", "version", "seconds")
        scores = {field: record[field] for field in (*kept, "scored_clips_trained_on")}
        for beside in ("balanced_accuracy", "majority_rate"):
            scores[beside] = record["metrics"].get(beside)
        scores["folder"] = name
        if self.floors:
            scores["floors"] = record["floors"]
        return scores


def cost_key(run: Pretraining) -> tuple[str, ...]:
    """Return everything that the cost of a step depends on."""
    return ("cost", *run.words, *run.files)


def score_keys(run: Pretraining) -> list[tuple[str, ...]]:
    """Return, for each evaluation of a run, everything that its score depends on."""
    return [(*run.key, *scoring.key) for scoring in run.scorings]


def spent(folder: Path) -> dict[str, Any]:
    """Return the cost of a run: CPU seconds, wall-clock seconds, steps, passes, and its GPU."""
    config = read_settings(folder)
    speed = Run.speed(folder)
    clips = json.loads(read_text(folder / "corpus.json"))["clips"]
    steps = speed.get("step", 0)
    # Clips with repetition; divided by those of the corpus they are passes over it.
    trained_on = steps * config.loader.batch_size
    return {
        "cpu_seconds": speed.get("cpu_seconds", 0.0),
        "seconds": speed.get("seconds", 0.0),
        "steps": steps,
        "passes": round(trained_on / clips, 3),
        "gpu": _gpu(folder),
    }


def _gpu(folder: Path) -> str | None:
    """Return the name of the GPU that a run last ran on; None for a CPU."""
    sessions = json.loads(read_text(folder / "environment.json"))
    gpu: str | None = sessions[-1]["gpu"]
    return gpu


def _failed(reason: str) -> Line:
    raise MelpatchError(reason)
