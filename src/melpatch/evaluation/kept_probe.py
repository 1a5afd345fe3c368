"""Keep a linear probe: a frozen encoder and its probe as a classifier run like any other."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from melpatch.config import check
from melpatch.data.corpus import Corpus
from melpatch.data.splits import split_corpus, take_per_class
from melpatch.distributed import on_rank_zero
from melpatch.encoders.base import Encoder
from melpatch.evaluation.calibrate import Answers, fit_calibration, of_known_classes
from melpatch.evaluation.features import ClipVectors
from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.linear import LinearHead
from melpatch.evaluation.probe import LinearProbe, probe_inputs
from melpatch.evaluation.protocol import Protocol
from melpatch.inference.calibration import Calibration
from melpatch.inference.fitted import FITTED
from melpatch.objectives.classify import Classify
from melpatch.training.config import RunConfig, build
from melpatch.training.run import Run


def check_kept(protocols: Sequence[Protocol], jobs: Sequence[EvaluationJob], out: Path) -> None:
    """Raise ConfigError unless what is scored is one linear probe, and its run can be written.

    Args:
        protocols: what is scored.
        jobs: on what.
        out: run folder to write.
    """
    fits = len(protocols) == 1 and isinstance(protocols[0], LinearProbe)
    allowed = "a folder for the probe of --protocol linear or few_shot alone"
    check(fits, "keep", str(out), allowed)
    allowed = "a folder for a probe of another pooling than fitted, which a classifier cannot have"
    check(getattr(protocols[0], "pooling", "") != FITTED, "keep", str(out), allowed)
    number = len(jobs[0].seeds) * len(protocols[0].splits(jobs[0]))
    allowed = (
        f"a folder for one probe, not {number}; name one split with --split and one of --seeds"
    )
    check(number == 1, "keep", str(out), allowed)
    Run.require_writable(out)
    Run.refuse(out)


def keep_from_job(probe: Protocol, job: EvaluationJob, out: Path) -> Run:
    """Write the classifier that the probe of a job is, and return its run; see :func:`check_kept`.

    All processes must call it.
    """
    assert isinstance(probe, LinearProbe)
    features = probe.features(job)
    (split,) = probe.splits(job)
    train = split.train
    few = probe.labels_per_class(job)
    if few is not None:
        train = take_per_class(train, few, job.seeds[0])
    inputs = probe_inputs(features, train, job.corpus.labels)
    head = probe.fit(inputs, multi_label=job.corpus.multi_label)
    train = replace(train, clips=inputs.features.clips, labels=job.corpus.labels)
    encoder = job.model.objective.export_encoder()
    calibration = None
    # A probe selects nothing on validation clips, but they say how far to trust it.
    val = split_corpus(job.labelled_corpus, split.name).val
    if val is not None:
        held_out = features.select(val.clips)
        calibration = calibrate_probe(head, inputs.features, held_out, train.labels)
    return keep_probe(
        job.model.config, encoder, head, probe.pooling, train, out, calibration=calibration
    )


def calibrate_probe(
    head: LinearHead,
    train: ClipVectors,
    val: ClipVectors,
    labels: Sequence[str],
    thresholds: str = "auto",
) -> Calibration | None:
    """Return what validation clips say about a probe; None if they are all of classes it lacks.

    Args:
        head: the probe.
        train: the vectors that it was fitted on.
        val: the vectors of validation clips.
        labels: its classes.
        thresholds: how thresholds are chosen, see
            :meth:`melpatch.evaluation.thresholds.ThresholdRule.parse`.
    """

    def answers(part: ClipVectors) -> Answers:
        return Answers(part.clips, head.probabilities(part.vectors), part.vectors)

    val = val.select(of_known_classes(val.clips, train.clips))
    if not val.clips:
        return None
    return fit_calibration(
        answers(train), answers(val), labels, thresholds, multi_label=head.multi_label
    )


def keep_probe(
    config: RunConfig,
    encoder: Encoder,
    head: LinearHead,
    pooling: str,
    train: Corpus,
    out: Path,
    command: Any = None,
    calibration: Calibration | None = None,
) -> Run:
    """Write a classifier that predicts what a linear probe predicts, and return its run.

    Args:
        config: settings of the encoder's run.
        encoder: the frozen encoder.
        head: the probe.
        pooling: how tokens become one vector.
        train: the clips that the probe learnt from; their labels are its classes.
        out: run folder to write.
        command: the settings of the command that keeps it.
        calibration: what validation clips say about it, if there are any.

    Raises:
        CheckpointError: the folder holds a run already, or cannot be written.
        ConfigError: the encoder has no such vectors.
    """
    objective_config = Classify.Config(
        pooling=pooling,
        head="standardised",
        recordings="whole",
        frozen=True,
        multi_label=head.multi_label,
    )
    kept = replace(
        config,
        labels=train.labels,
        objective=objective_config,
        train=replace(config.train, steps=0),
    )
    objective = build(kept)
    assert isinstance(objective, Classify)
    objective.encoder.load_state_dict(encoder.state_dict())
    load_head(objective, head)
    run = Run.create(out, kept, command)
    with run.locked(), run.checkpoints:
        run.remember(train)
        run.publish(objective.state_dict())
    if calibration is not None:
        on_rank_zero(lambda: calibration.save(run.folder))
    return run


def load_head(objective: Classify, head: LinearHead) -> None:
    """Give a classifier with a standardised head of the probe's pooling the weights of the probe."""
    fitted = {
        "0.mean": head.mean,
        "0.scale": head.scale,
        "1.weight": head.weight,
        "1.bias": head.bias,
    }
    objective.head.load_state_dict(
        {name: torch.from_numpy(values) for name, values in fitted.items()}
    )
