"""Doing what is planned: measure what a step costs, pretrain, evaluate; each once, however often it is asked for."""

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from melpatch.comparison.plan import Pretraining, Scoring, slug
from melpatch.comparison.results import Line, Results
from melpatch.comparison.subprocesses import RunStopped, Subprocesses
from melpatch.config import from_toml
from melpatch.errors import MelpatchError
from melpatch.progress import Bar, bar
from melpatch.training.config import RunConfig
from melpatch.training.run import Run

WARM, TIMED = 4, 12
"""Steps before those that are timed, since the first ones are slower; and those whose mean cost counts."""


class Comparison:
    """A folder of runs, scores and logs, and the lines of what is known."""

    def __init__(self, folder: Path, runs: Sequence[Pretraining]) -> None:
        self.folder, self.runs = folder, runs
        self.results = Results(folder / "results.jsonl")
        self._processes = Subprocesses()

    def carry_out(self, jobs: int, after: Callable[[], None]) -> None:
        """Do what is not done yet; what failed before is tried again.

        Args:
            jobs: how many commands at a time.
            after: called after every run and its scores, and in the end, be it an early one.
        """
        priced = {cost_key(run): run for run in self.runs if run.unit == "cpu_seconds"}
        keys = [*priced, *(key for run in self.runs for key in (run.key, *score_keys(run)))]
        pool = ThreadPoolExecutor(jobs)
        try:
            with bar(
                len(keys), "comparing", done=sum(self._good(key) is not None for key in keys)
            ) as shown:
                for run in priced.values():  # one at a time: beside others, a step costs more
                    self._price(run, shown)
                for _ in pool.map(lambda run: self._chain(run, shown), self.runs):
                    after()
        finally:  # an interruption too
            self._processes.stop()
            pool.shutdown(cancel_futures=True)
            after()

    def path(self, kind: str, name: str) -> Path:
        """Return the folder or log of a cell."""
        return self.folder / kind / name

    def _price(self, run: Pretraining, shown: Bar) -> None:
        """Measure what a step costs."""
        with suppress(RunStopped):
            about = {"method": run.method.name, "size": run.size}
            self._cell(cost_key(run), shown, about, partial(self._cost, run))

    def _chain(self, run: Pretraining, shown: Bar) -> None:
        """Pretrain, and score what comes of it."""
        with suppress(RunStopped):
            trained = self._cell(run.key, shown, self._about(run), partial(self._pretrain, run))
            for scoring, key in zip(run.scorings, score_keys(run), strict=True):
                about = self._about(run) | {"task": scoring.task.name, "protocol": scoring.protocol}
                if "error" in trained:
                    shown.advance()
                else:
                    self._cell(
                        key, shown, about, partial(self._score, run, scoring, key, trained["run"])
                    )

    def _cell(
        self, key: tuple[str, ...], shown: Bar, about: Line, make: Callable[[], Line]
    ) -> Line:
        """Return what is known of a cell, made now unless it is known."""
        known = self._good(key)
        if known is not None:
            return known
        try:
            found = make()
        except MelpatchError as error:
            found = {"error": str(error)}
        shown.advance()
        return self.results.add(key, about | found)

    def _good(self, key: tuple[str, ...]) -> Line | None:
        line = self.results.find(key)
        return None if line is None or "error" in line else line

    def _about(self, run: Pretraining) -> Line:
        names = {
            "method": run.method.name,
            "size": run.size,
            "budget": run.budget,
            "seed": run.seed,
        }
        return names | {"run": run.name}

    def _cost(self, run: Pretraining) -> Line:
        """Return the CPU seconds of a step, from a short run that is not kept.

        Raises:
            MelpatchError: it failed, or was done by a GPU.
        """
        name = slug(cost_key(run), "cost", run.method.name, run.size)
        folder, log = self.path("costs", name), self.path("logs", f"{name}.log")
        shutil.rmtree(folder, ignore_errors=True)
        words = ["pretrain", *run.words, "--steps", f"{WARM + TIMED}", "--save-every", f"{WARM}"]
        self._processes.melpatch(
            [*words, "--evaluations", "1", "--workers", "0", "--out", str(folder)], log
        )
        lines = map(json.loads, (folder / "speed.jsonl").read_text(encoding="utf-8").splitlines())
        after, gpu = {line["step"]: line["cpu_seconds"] for line in lines}, _gpu(folder)
        shutil.rmtree(folder)
        if gpu:
            raise MelpatchError(
                f"cpu_seconds: no budget for what runs on a GPU ({gpu}); give --steps or --epochs"
            )
        return {"cpu_seconds_per_step": (after[WARM + TIMED] - after[WARM]) / TIMED}

    def _pretrain(self, run: Pretraining) -> Line:
        """Leave a run folder; return what it cost."""
        folder = self.path("runs", run.name)
        words = [
            "pretrain",
            *run.words,
            *self._length(run),
            "--seed",
            f"{run.seed}",
            "--resume",
            "--out",
            str(folder),
        ]
        self._processes.melpatch(words, self.path("logs", f"{run.name}.log"))
        return spent(folder)

    def _length(self, run: Pretraining) -> list[str]:
        """Return the flags that say how long a run is."""
        if run.unit is None:
            return []
        if run.unit != "cpu_seconds":
            return [f"--{run.unit}", run.length]
        cost = self.results.find(cost_key(run)) or {"error": "the cost of a step is not known"}
        if "error" in cost:
            raise MelpatchError(cost["error"])
        steps = max(1, round(run.amount / cost["cpu_seconds_per_step"]))
        return [
            "--steps",
            f"{steps}",
            "--evaluations",
            "1",
            "--workers",
            "0",
        ]  # decoding is paid for too

    def _score(self, run: Pretraining, scoring: Scoring, key: tuple[str, ...], made: str) -> Line:
        """Leave scores of the run that was made under this name; return those that count."""
        name = slug(key, run.name, scoring.task.name, scoring.protocol)
        folder = self.path("scores", name)
        words = ["evaluate", str(self.path("runs", made)), *scoring.words, "--out", str(folder)]
        self._processes.melpatch(words, self.path("logs", f"{name}.log"))
        (path,) = folder.glob("*/scores.json")
        record = json.loads(path.read_text(encoding="utf-8"))
        kept = (
            "metric",
            "value",
            "interval_95",
            "n",
            "version",
            "seconds",
            "scored_clips_trained_on",
        )
        return {name: record[name] for name in kept} | {"folder": name}


def cost_key(run: Pretraining) -> tuple[str, ...]:
    """Return all that the cost of a step hangs on."""
    return ("cost", *run.words, *run.files)


def score_keys(run: Pretraining) -> list[tuple[str, ...]]:
    """Return all that each score of a run hangs on."""
    return [(*run.key, *scoring.key) for scoring in run.scorings]


def spent(folder: Path) -> dict[str, Any]:
    """Return what a run cost: CPU seconds, seconds by the clock, steps, passes over the sound, and on what GPU."""
    config, speed = from_toml(RunConfig, folder / "config.toml"), Run.speed(folder)
    clips = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))["clips"]
    steps = speed.get("step", 0)
    heard = steps * config.loader.batch_size
    return {
        "cpu_seconds": speed.get("cpu_seconds", 0.0),
        "seconds": speed.get("seconds", 0.0),
        "steps": steps,
        "passes": round(heard / clips, 3),
        "gpu": _gpu(folder),
    }


def _gpu(folder: Path) -> str | None:
    """Return the GPU that a run was last on, if any."""
    gpu: str | None = json.loads((folder / "environment.json").read_text(encoding="utf-8"))[-1][
        "gpu"
    ]
    return gpu
