"""A protocol's scores on disk, with everything they depend on: a record, predictions and pictures."""

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melpatch.atomic import written_aside
from melpatch.config import to_dict
from melpatch.data.answers import seconds_text
from melpatch.data.columns import class_columns
from melpatch.distributed import on_rank_zero, world_size
from melpatch.errors import ConfigError, MelpatchError
from melpatch.evaluation.against import describe_difference
from melpatch.evaluation.floors import Floor, describe_floor, measure_floors
from melpatch.evaluation.intervals import describe_intervals
from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.majority import describe_collapse
from melpatch.evaluation.metrics import BASELINES
from melpatch.evaluation.own_decisions import decisions_entry, given_labels
from melpatch.evaluation.pictures import NAMES, pictures_of
from melpatch.evaluation.probe import VectorProbe
from melpatch.evaluation.protocol import Protocol
from melpatch.evaluation.provenance import describe_initialisation, trained_on
from melpatch.evaluation.summary import summarize
from melpatch.evaluation.temperature import calibration_entry
from melpatch.evaluation.trials import TrialResult
from melpatch.inference.label_rule import LabelRule, names_of
from melpatch.opening import read_json, reading
from melpatch.progress import notice
from melpatch.registry import name_of
from melpatch.training.run import environment

SCORES = "scores.json"
"""The record of an evaluation, in its folder."""
PREDICTIONS = "predictions.csv"
"""A line per scored clip and trial: where it is, its labels, and the probability of each class."""
_DIGESTS = "predictions_digests"
_REPLACE = "give another --out, or --overwrite to replace it"


def score(
    protocol: Protocol,
    job: EvaluationJob,
    floor_probe: VectorProbe | None = None,
    other: EvaluationJob | None = None,
) -> dict[str, Any]:
    """Run a protocol and return its record, as plain values that JSON can hold.

    ``job.out`` then holds the record (``scores.json``), a line per scored clip and trial
    (``predictions.csv``) and, if the job wants them and matplotlib is installed, the pictures
    ``confusion.png``, ``per_class.png`` and ``reliability.png``. All processes must call it and get the same result;
    only rank 0 writes.

    Args:
        protocol: how to score.
        job: what to score.
        floor_probe: the probe of the floors, see :mod:`melpatch.evaluation.floors`; None leaves
            them out.
        other: another run on the same corpus, to which the difference is given.
    """
    trials, entries = protocol.run_trials(job)
    floors: list[Floor] = []
    if floor_probe is not None:
        floors = [*measure_floors(protocol, job, trials, floor_probe)]
    entries["against"] = None
    if other is not None:
        entries["against"] = describe_difference(protocol, job, trials, other)
    return on_rank_zero(lambda: _write(protocol, job, trials, floors, entries))


def refuse_to_overwrite(jobs: Sequence[EvaluationJob], *, own_folder: bool) -> None:
    """Raise ConfigError if the results folder of a job holds what would be lost.

    Args:
        jobs: the jobs.
        own_folder: whether the folder is the default one. It is named after what is scored, so its
            scores are of the same, also if the run has moved since.
    """
    for job in jobs:
        record = record_in(job.out)
        present = [name for name in (PREDICTIONS, *NAMES) if (job.out / name).exists()]
        if record is None and present:
            raise ConfigError(
                f"{job.out}: holds {present[0]}, which is of no evaluation here; {_REPLACE}"
            )
        if record is None:
            continue
        path = job.out / PREDICTIONS
        if path.exists() and _digest(path) not in record.get(_DIGESTS, [_digest(path)]):
            raise ConfigError(f"{path}: was changed since it was written; {_REPLACE}")
        run = Path(record["run"])
        name = record["name"]
        if not own_folder and (run.resolve(), name) != (job.run.resolve(), job.name):
            raise ConfigError(
                f"{job.out}: holds the scores of {name} by {run}, not {job.name} by {job.run}; "
                f"{_REPLACE}"
            )


def _digest(path: Path) -> str:
    """Return a digest of a file's content, by which a change is noticed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def record_in(folder: Path) -> dict[str, Any] | None:
    """Return the record of scores in a folder; None if there is none.

    Raises:
        CheckpointError: the record is damaged.
    """
    path = folder / SCORES
    if not path.exists():
        return None
    with reading(path, "delete it, or give another --out"):
        record = read_json(path)
        for name in ("run", "name"):
            if not isinstance(record[name], str):
                raise ValueError(f"{name} is no text")
        for name in ("data", _DIGESTS):
            if not isinstance(record.get(name, []), list):
                raise ValueError(f"{name} is no list")
    return record


def _write(
    protocol: Protocol,
    job: EvaluationJob,
    trials: Sequence[TrialResult],
    floors: Sequence[Floor],
    entries: dict[str, Any],
) -> dict[str, Any]:
    labels = protocol.labels(job)
    multi_label = protocol.multi_label(job)
    metric = protocol.metric(multi_label)
    scores = summarize(trials, labels, multi_label, metric)
    scores["metrics_95"] = {
        name: describe_intervals(trials, labels, name)["interval_95"]
        for name in scores["metrics"]
        if name not in BASELINES
    }
    rule = protocol.label_rule(job)
    scores["decisions"] = None if rule is None else decisions_entry(trials, labels, rule)
    scores["warning"] = warning_of(scores, multi_label=multi_label)
    scores["calibration"] = calibration_entry(trials, labels, multi_label)
    scores["floors"] = [
        describe_floor(floor, trials, scores["value"], labels, multi_label, metric)
        for floor in floors
    ]
    record = _conditions(protocol, job, trials) | scores | entries
    predictions = job.out / PREDICTIONS
    with written_aside(predictions) as new:
        _write_predictions(new, trials, labels, rule)
        # A kill may leave the new record beside the old predictions, so it knows both.
        digests = [_digest(path) for path in (new, predictions) if path.exists()]
        record[_DIGESTS] = [*dict.fromkeys(digests)]
        with written_aside(job.out / SCORES) as aside:
            aside.write_text(json.dumps(record, indent=1), encoding="utf-8")
    _draw(job, record)
    return record


def warning_of(scores: Mapping[str, Any], *, multi_label: bool) -> str | None:
    """Return a sentence if predictions collapsed, see :mod:`melpatch.evaluation.majority`.

    Where a clip may have several labels, those count that the run gives by thresholds of its own.

    Args:
        scores: ``metrics``, ``per_class`` and ``decisions`` of a record.
        multi_label: whether a clip may have several labels.
    """
    decisions = scores["decisions"]
    if not multi_label or decisions is None or decisions["threshold_rule"] == "none":
        return describe_collapse(scores)
    rows = zip(scores["per_class"], decisions["per_class"], strict=True)
    given = [{**row, "predicted": own["given"]} for row, own in rows]
    return describe_collapse({**scores, "per_class": given}, own_thresholds=True)


def _conditions(
    protocol: Protocol, job: EvaluationJob, trials: Sequence[TrialResult]
) -> dict[str, Any]:
    """Return the conditions under which a score was made."""
    scored_clips = [clip for trial in trials for clip in trial.clips]
    return {
        "run": str(job.run),
        "folder": str(job.out),
        "objective": name_of(type(job.model.objective)),
        "precision": job.model.precision,
        "initialisation": describe_initialisation(job),
        "corpus": job.corpus.shown_name,
        "name": job.name,
        "data": [*job.data],
        "protocol": name_of(type(protocol)),
        "version": protocol.version,
        "settings": to_dict(protocol),
        "settings_changed": sorted(protocol.changed_settings),
        "split_rule": protocol.split_rule(),
        "selection_rule": protocol.selection_rule,
        "seeds": [*job.seeds],
        "labels_per_class": protocol.labels_per_class(job),
        "scored_clips_trained_on": trained_on(job, scored_clips).count,
        "trials": [_trial_entry(trial) for trial in trials],
        "seconds": _total(trial.details["seconds"] for trial in trials),
        "embedding_seconds": _total(trial.details.get("embedding_seconds") for trial in trials),
        "world_size": world_size(),
        "rejected": _rejected(job, trials),
        "environment": environment(),
    }


def _trial_entry(trial: TrialResult) -> dict[str, Any]:
    details = {name: value for name, value in trial.details.items() if name != "rejected"}
    return {"split": trial.split, "seed": trial.seed, **details}


def _total(seconds: Iterable[float | None]) -> float | None:
    """Return the sum; None if a part of it is unknown."""
    parts = [*seconds]
    known = [part for part in parts if part is not None]
    return round(sum(known), 2) if len(known) == len(parts) else None


def _rejected(job: EvaluationJob, trials: Sequence[TrialResult]) -> list[str]:
    """Return the paths of files that could not be read, in the listing or in any trial."""
    paths = {rejected.path for rejected in job.corpus.rejected}
    for trial in trials:
        paths.update(trial.details.get("rejected", ()))
    return sorted(paths)


def _write_predictions(
    path: Path, trials: Sequence[TrialResult], labels: Sequence[str], rule: LabelRule | None
) -> None:
    """Write a line per clip and trial; with a rule, also its labels and the novelty."""
    columns = ["path", "start", "end", "label", "predicted", "split", "seed"]
    if rule is not None:
        columns[5:5] = ["given", "novelty"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, *class_columns(labels, columns)])
        for trial in trials:
            decided: Sequence[list[str]] = [[]] * len(trial.clips)
            if rule is not None:
                decided = _decided(trial, labels, rule)
            lines = zip(trial.clips, trial.probabilities, decided, strict=True)
            for clip, probabilities, more in lines:
                predicted = labels[int(np.argmax(probabilities))]
                times = map(seconds_text, (clip.start, clip.start + clip.duration))
                row = [clip.location, *times]
                row += [";".join(clip.labels), predicted, *more, trial.split, str(trial.seed)]
                row += [f"{probability:.6g}" for probability in probabilities]
                writer.writerow(row)


def _decided(trial: TrialResult, labels: Sequence[str], rule: LabelRule) -> list[list[str]]:
    """Return for each clip its given labels and its novelty; empty if that is not known."""
    names = names_of(given_labels(trial, rule), labels).tolist()
    novelty = [""] * len(names)
    if trial.novelty is not None:
        novelty = [f"{value:.4g}" for value in trial.novelty.tolist()]
    return [[*pair] for pair in zip(names, novelty, strict=True)]


def _draw(job: EvaluationJob, record: Mapping[str, Any]) -> None:
    if not job.pictures:
        # Those of earlier scores would stand beside these.
        for name in NAMES:
            (job.out / name).unlink(missing_ok=True)
        return
    try:
        for name, draw in pictures_of(record).items():
            draw(job.out / name)
    except MelpatchError as error:
        # matplotlib is an extra; scores must not be lost because it is missing.
        notice(str(error))
