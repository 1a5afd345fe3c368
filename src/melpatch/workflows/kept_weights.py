"""What the weights that a classifier keeps do on validation clips: told at the end, kept in the run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from melpatch.atomic import written_aside
from melpatch.checkpoint import load_into, load_weights
from melpatch.counted import counted
from melpatch.data.corpus import Corpus, label_matrix
from melpatch.distributed import barrier, on_rank_zero
from melpatch.evaluation.majority import (
    REMEDY,
    beside_in_words,
    describe_collapse,
    metric_in_words,
)
from melpatch.evaluation.metrics import compute_metrics
from melpatch.inference.calibration import Calibration, load_calibration
from melpatch.inference.corpus import ClipTable
from melpatch.inference.label_rule import LabelRule
from melpatch.inference.model import Model
from melpatch.objectives.classify import Classify
from melpatch.opening import read_json, reading
from melpatch.progress import notice
from melpatch.training.checkpoints import Progress
from melpatch.training.config import RunConfig, build_unfilled
from melpatch.training.run import Run
from melpatch.workflows.label_settings import selection_metric
from melpatch.workflows.validation import Validation

FILE = "validation.json"


def validation_record(
    table: ClipTable,
    config: RunConfig,
    metric: str,
    step: int | None = None,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Return the scores of predictions on validation clips, as plain values that JSON can hold.

    Args:
        table: the probability of each label for each clip.
        config: settings of the classifier.
        metric: what its weights are chosen by.
        step: the step that was chosen, if one was.
        calibration: what was learnt from these clips, if anything.

    Returns:
        ``selected_by``, the metric; ``step``; ``clips``, their number; ``metrics`` by name;
        ``warnings``, a sentence if the predictions are no better than a constant answer or leave
        classes out.
    """
    targets = label_matrix(table.clips, config.labels)
    scores = compute_metrics(table.rows, targets, config.labels, config.objective.multi_label)
    metrics = {name: value for name, value in scores.items() if isinstance(value, float)}
    undefined = dict.fromkeys(("mAP", "prevalence"))
    thresholds = None if calibration is None else calibration.thresholds
    if calibration is not None and thresholds is not None and config.objective.multi_label:
        rule = LabelRule(multi_label=True, thresholds=thresholds)
        given = rule.given(calibration.probabilities(table.rows)).sum(axis=0)
        for row, count in zip(scores["per_class"], given.tolist(), strict=True):
            row["predicted"] = count
    collapse = describe_collapse(
        {**scores, "metrics": undefined | metrics}, own_thresholds=thresholds is not None
    )
    warnings = []
    if collapse is not None:
        warnings.append(f"on validation {collapse}; {REMEDY}")
    return {
        "selected_by": metric,
        "step": step,
        "clips": len(table.clips),
        "metrics": metrics,
        "warnings": warnings,
    }


def tell_kept_weights(
    run: Run, progress: Progress, val: Corpus | None, probe: Mapping[str, Any] | None = None
) -> None:
    """Tell what the weights that a run keeps do on validation clips, and write it into the run.

    All processes must call it.

    Args:
        run: a finished run of a classifier.
        progress: what :func:`melpatch.training.loop.fit` returned.
        val: the validation clips, if any.
        probe: scores of the linear probe of the encoder that it started from, if there is one.
    """
    config = run.config
    kept = ""
    step = None if progress.best is None else progress.best_step
    if progress.averaged:
        kept = f"; the mean of the weights after the last {progress.averaged} evaluations"
        step = None
    if val is None:
        tell_record(run, kept, None)
        return
    metric = selection_metric(config.objective, val)
    # Wait for weights and calibration, which rank 0 writes.
    barrier()
    objective = build_unfilled(config)
    assert isinstance(objective, Classify)
    load_into(objective, load_weights(run.folder / "model.safetensors"))
    calibration = load_calibration(run.folder, objective)
    table = _predictions(objective, config, val, metric)
    record = validation_record(table, config, metric, step, calibration)
    record["linear_probe"] = None if probe is None else probe["metrics"]
    below = describe_loss(record, probe)
    start = describe_start(step) if progress.step else None
    record["warnings"] += filter(None, [below, start])
    tell_record(run, kept, record)


def tell_record(run: Run, kept: str, record: Mapping[str, Any] | None) -> None:
    """Tell that a run is done and how good it is, and write that into its folder.

    Args:
        run: the run.
        kept: what it keeps, in words after the folder; may be empty.
        record: what :func:`validation_record` returned; None without validation clips.
    """
    text = f"done: {run.folder}{kept}"
    if record is None:
        notice(text)
        return
    on_rank_zero(lambda: write_record(run.folder / FILE, record))
    notice(f"{text}; {score_of(record)}")
    for warning in record["warnings"]:
        notice(warning)


def describe_loss(record: Mapping[str, Any], probe: Mapping[str, Any] | None) -> str | None:
    """Return a sentence if a fine-tuned network ends below its linear probe on validation clips.

    Args:
        record: scores of the network, see :func:`validation_record`.
        probe: those of the probe; None if there is none.
    """
    if probe is None:
        return None
    metric = record["selected_by"]
    value = record["metrics"].get(metric)
    other = probe["metrics"].get(metric)
    if value is None or other is None or value >= other:
        return None
    return (
        f"the trained network ends below the linear probe on validation: {metric_in_words(metric)} "
        f"{value:.3f} against {other:.3f} on {counted(record['clips'], 'clip')}; "
        "melpatch finetune --head linear keeps the probe"
    )


def describe_start(step: int | None) -> str | None:
    """Return a sentence if the weights that a run started from are its best.

    Args:
        step: the step that validation chose; 0 is one of those only where the head started from a
            probe.
    """
    if step != 0:
        return None
    return (
        "no later step is better on validation than the start, so the run keeps the weights that "
        "it started from, with the linear probe as head; a lower --lr or more labels may help"
    )


def read_validation(folder: Path) -> dict[str, Any] | None:
    """Return what a run has of its validation clips; None without them, or before its end.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    with reading(path, "restore it from a backup, or delete it"):
        record = read_json(path)
        if not isinstance(record.get("metrics"), dict):
            raise ValueError("has no metrics")
        if not isinstance(record.get("warnings"), list):
            raise ValueError("has no list of warnings")
        return {**record}


def _predictions(objective: Classify, config: RunConfig, val: Corpus, metric: str) -> ClipTable:
    with torch.inference_mode():
        return Validation(val, config, metric).table(Model(config, objective).objective)


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write scores as JSON."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(record, indent=1), encoding="utf-8")


def score_of(record: Mapping[str, Any]) -> str:
    """Return the score of a record in words, with what belongs beside it."""
    metric = record["selected_by"]
    value = record["metrics"].get(metric)
    if value is None:
        return f"{metric_in_words(metric)} on validation is not defined"
    text = f"{metric_in_words(metric)} on validation {value:.3f}"
    if record["step"] is not None:
        text = f"best {text} at step {record['step']}"
    return text + beside_in_words(metric, record["metrics"])
