"""A protocol's scores on disk, with all that they hang on, and warnings of what may make them too good or too bad."""

import csv
import dataclasses
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melpatch.atomic import written_aside
from melpatch.config import to_dict
from melpatch.data.clip import Clip
from melpatch.data.leaks import warn_of_shared_groups
from melpatch.data.splits import describe_scarce_classes
from melpatch.distributed import on_rank_zero, world_size
from melpatch.errors import ConfigError, MelpatchError
from melpatch.evaluation.rounds import Round
from melpatch.evaluation.summary import Trial, summary
from melpatch.objectives.classify import Classify
from melpatch.plots.confusion import MOST_CLASSES, confusion
from melpatch.plots.per_class import per_class
from melpatch.progress import notice
from melpatch.protocols.base import EvaluationJob, Protocol
from melpatch.registry import name_of
from melpatch.training.run import COMMAND, Run, environment

_SCORES = "scores.json"


def score(protocol: Protocol, job: EvaluationJob) -> dict[str, Any]:
    """Run a protocol and return the record of it, as plain values that JSON can hold.

    ``job.out`` then holds the record (``scores.json``), a line per scored clip and trial (``predictions.csv``) and, if
    matplotlib is there, the pictures ``confusion.png`` and ``per_class.png``. All processes must call it, and get the
    same; the first one writes.
    """
    trials, told = protocol.run(job)
    return on_rank_zero(lambda: _written(protocol, job, trials, told))


def _written(
    protocol: Protocol, job: EvaluationJob, trials: Sequence[Trial], told: dict[str, Any]
) -> dict[str, Any]:
    labels, multi_label = protocol.labels(job), protocol.multi_label(job)
    found = summary(trials, labels, multi_label, protocol.metric(multi_label))
    record = _about(protocol, job, trials) | found | told
    with written_aside(job.out / _SCORES) as aside:
        aside.write_text(json.dumps(record, indent=1), encoding="utf-8")
    _write_predictions(job.out / "predictions.csv", trials, labels)
    _draw(job.out, found, labels)
    return record


def refuse_others(jobs: Sequence[EvaluationJob]) -> None:
    """Raise ConfigError if the folder for the results of a job holds scores of something else, which would be lost."""
    for job in jobs:
        if not (job.out / _SCORES).exists():
            continue
        there = json.loads((job.out / _SCORES).read_text(encoding="utf-8"))
        run, name = Path(there["run"]), there.get("name", job.name)
        if (run.resolve(), name) != (job.run.resolve(), job.name):
            asked = f"{job.name} by {job.run}"
            raise ConfigError(
                f"{job.out}: holds the scores of {name} by {run}, not {asked}; give another --out"
            )


def warn(protocols: Sequence[Protocol], jobs: Sequence[EvaluationJob]) -> None:
    """Say, each thing once, what may make the scores of some jobs on one corpus too good or too bad.

    Too good: scored clips that the run was trained on, or one that it started from; recordings, speakers or patients on
    both sides. Too bad: labels that are not learnt; classes with fewer training clips than were asked for.

    Raises:
        MelpatchError: a job cannot be done: a protocol does not go with its run, its labels or its splits.
    """
    sentences: dict[str, None] = {}
    learnt: list[Round] = []
    for protocol, job in zip(protocols, jobs, strict=True):
        protocol.labels(job)
        parts = protocol.rounds(job)
        heard = _heard(job, [clip for one in parts for clip in one.test.clips])
        for run, clips in heard.items():
            how = "with" if isinstance(job.model.objective, Classify) else "without"
            which = (
                f"{run} itself, {how} their labels"
                if run == job.run
                else f"{run}, from which {job.run} started"
            )
            sentences[
                f"{len(clips)} of the scored clips trained {which}; scores may be too good"
            ] = None
        found = [one.unseen() for one in parts if one.train.clips]
        if (per_class := protocol.labels_per_class(job)) is not None:
            found += [
                describe_scarce_classes(one.train, per_class) for one in parts if one.train.clips
            ][:1]
        sentences |= dict.fromkeys(filter(None, found))
        learnt = learnt or [one for one in parts if one.train.clips]
    for sentence in sentences:
        notice(sentence)
    if learnt:
        _warn_of_groups(learnt)


def trained_on(job: EvaluationJob, clips: Sequence[Clip]) -> int:
    """Return how many of some clips, by their marks, the run was trained on, or one that it started from."""
    return len(frozenset[int]().union(*_heard(job, clips).values()))


def _heard(job: EvaluationJob, clips: Sequence[Clip]) -> dict[Path, frozenset[int]]:
    """Return the runs behind the weights, the last first, that were trained on some of these clips, and the keys of
    these."""
    runs = [] if job.untrained else [job.run]
    while (
        runs and (init := _init(runs[-1])) and Path(init) not in runs
    ):  # a run made anew may name its own heir
        runs.append(Path(init))
    noted = {run: Run.trained_on(run) or frozenset() for run in runs}
    found = {
        run: frozenset(clip.key for clip in clips if not noted[run].isdisjoint(clip.identities))
        for run in runs
    }
    return {run: keys for run, keys in found.items() if keys}


def _warn_of_groups(parts: Sequence[Round]) -> None:
    """Warn of groups that are both learnt from and scored, in whichever round."""
    scored = {clip.key for one in parts for clip in one.test.clips}
    learnt = {clip.key: clip for one in parts for clip in one.train.clips if clip.key not in scored}
    rest = dataclasses.replace(parts[0].train, clips=tuple(learnt.values()))
    warn_of_shared_groups(rest, *(one.test for one in parts))


def _about(protocol: Protocol, job: EvaluationJob, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return under what conditions a score came about."""
    rejected = {one.path for one in job.corpus.rejected}
    rejected |= {path for trial in trials for path in trial.details.get("rejected", ())}
    seconds = [trial.details["seconds"] for trial in trials]
    embedding = [
        trial.details["embedding_seconds"]
        for trial in trials
        if "embedding_seconds" in trial.details
    ]
    details = [
        {name: value for name, value in trial.details.items() if name != "rejected"}
        for trial in trials
    ]
    return {
        "run": str(job.run),
        "method": type(job.model.objective).__name__,
        "initialisation": "random weights" if job.untrained else _origin(job.run),
        "corpus": job.corpus.name,
        "name": job.name,
        "protocol": name_of(type(protocol)),
        "version": protocol.version,
        "settings": to_dict(protocol),
        "settings_changed": sorted(protocol.changed),
        "split_rule": protocol.split_rule(),
        "selection_rule": protocol.selection,
        "seeds": [*job.seeds],
        "labels_per_class": protocol.labels_per_class(job),
        "scored_clips_trained_on": trained_on(job, [clip for one in trials for clip in one.clips]),
        "trials": [
            {"round": one.round, "seed": one.seed, **each}
            for one, each in zip(trials, details, strict=True)
        ],
        "seconds": None if None in seconds else round(sum(seconds), 2),
        "embedding_seconds": round(sum(embedding), 2) if embedding else None,
        "processes": world_size(),
        "rejected": sorted(rejected),
        "environment": environment(),
    }


def _origin(run: Path) -> str:
    """Return in words what the run's own weights started from."""
    return f"trained from {_init(run) or 'random weights'}"


def _init(run: Path) -> str | None:
    """Return the run or the weights that a run started from; None for random weights, or where it did not note it."""
    path = run / COMMAND
    init = tomllib.loads(path.read_text(encoding="utf-8")).get("init") if path.exists() else None
    return None if init in (None, "none", "scratch") else str(init)


def _write_predictions(path: Path, trials: Sequence[Trial], labels: Sequence[str]) -> None:
    with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "start", "label", "predicted", "round", "seed", *labels])
        for trial in trials:
            for clip, row in zip(trial.clips, trial.probabilities, strict=True):
                said = [
                    labels[int(np.argmax(row))],
                    trial.round,
                    trial.seed,
                    *(f"{value:.6g}" for value in row),
                ]
                writer.writerow([clip.location, f"{clip.start:g}", ";".join(clip.labels), *said])


def _draw(out: Path, found: dict[str, Any], labels: Sequence[str]) -> None:
    title = f"{found['metric']} {found['value']:.3f}" if found["value"] is not None else ""
    try:
        if "confusion" in found and len(labels) <= MOST_CLASSES:
            confusion(out / "confusion.png", np.rint(found["confusion"]).astype(int), labels, title)
        per_class(
            out / "per_class.png", found["per_class"], "F1" if "confusion" in found else "AP", title
        )
    except MelpatchError as error:  # matplotlib is an extra; scores must not be lost for want of it
        notice(str(error))
