"""Keep a probe: a frozen encoder and its probe as a classifier run like any other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from melpatch.config import check
from melpatch.data.corpus import Corpus
from melpatch.data.splits import split_corpus, take_per_class
from melpatch.distributed import on_rank_zero
from melpatch.encoders.base import Encoder
from melpatch.evaluation.calibrate import Answers, fit_calibration, labels_of, of_known_classes
from melpatch.evaluation.features import ClipVectors
from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.linear import LinearHead
from melpatch.evaluation.probe import KeptProbe, LinearProbe, ProbeInputs, probe_inputs
from melpatch.evaluation.protocol import Protocol
from melpatch.inference.calibration import Calibration
from melpatch.inference.fitted import FITTED
from melpatch.nn.pooling import TOKEN_POOLING
from melpatch.objectives.classify import Classify
from melpatch.training.config import RunConfig, build
from melpatch.training.run import Run


@dataclass(frozen=True)
class FittedProbe:
    """A probe that has learnt, as the head of a classifier.

    Attributes:
        settings: those of :class:`melpatch.objectives.classify.Classify` that give it such a head.
        state: the weights of the head.
        multi_label: whether a clip may have several labels.
        probabilities: returns what it predicts for clips.
    """

    settings: Mapping[str, Any]
    state: Mapping[str, Tensor]
    multi_label: bool
    probabilities: Callable[[ProbeInputs], Float[np.ndarray, "clip label"]]

    @property
    def pooling(self) -> str:
        """How tokens become one vector; of a head that takes tokens, for embeddings alone."""
        return str(self.settings["pooling"])

    def describe(self) -> str:
        """Return what it is, in words."""
        if self.settings["head"] == "standardised":
            weighted = ", with weights of classes" if self.settings["class_weights"] else ""
            return f"a linear probe on {self.pooling}{weighted}"
        return f"the {self.settings['head']} probe on all tokens"


def fit_probe(
    probe: KeptProbe,
    train: ProbeInputs,
    val: ProbeInputs | None,
    *,
    multi_label: bool,
    seed: int,
    class_weights: tuple[float, ...] = (),
) -> FittedProbe:
    """Return what a probe learns from training clips.

    Args:
        probe: the probe.
        train: the training clips.
        val: clips that select weights, which a probe of tokens must have, see
            :func:`melpatch.evaluation.splits.hold_out_validation`.
        multi_label: whether a clip may have several labels.
        seed: of a probe of tokens.
        class_weights: of a linear probe, see :meth:`melpatch.evaluation.probe.LinearProbe.fit`.
    """
    if isinstance(probe, LinearProbe):
        linear = probe.fit(train, multi_label=multi_label, class_weights=class_weights)
        settings = {
            "head": "standardised",
            "pooling": probe.pooling,
            "class_weights": class_weights,
        }
        predict = partial(_predict_vectors, linear)
        return FittedProbe(settings, head_state(linear), multi_label, predict)
    assert val is not None
    head, _ = probe.fit(train, val, multi_label=multi_label, seed=seed)
    state = {name: value.cpu() for name, value in head.state_dict().items()}
    settings = {**probe.classifier_settings(), "pooling": TOKEN_POOLING}
    # A partial, since rank 0 sends what it has fitted to the others.
    predict = partial(probe.probabilities, head, multi_label=multi_label)
    return FittedProbe(settings, state, multi_label, predict)


def check_kept(protocols: Sequence[Protocol], jobs: Sequence[EvaluationJob], out: Path) -> None:
    """Raise ConfigError unless what is scored is one probe that can be kept, and its run can be written.

    Args:
        protocols: what is scored.
        jobs: on what.
        out: run folder to write.
    """
    fits = len(protocols) == 1 and isinstance(protocols[0], KeptProbe)
    allowed = "a folder for the probe of --protocol linear, few_shot, attentive or prototype alone"
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
    assert isinstance(probe, KeptProbe)
    features = probe.features(job)
    labels = job.corpus.labels
    (split,) = probe.splits(job)
    train = split.train
    few = probe.labels_per_class(job)
    if few is not None:
        train = take_per_class(train, few, job.seeds[0])
    inputs = probe_inputs(features, train, labels)
    val = split.val
    if val is None:
        # A linear probe selects nothing on validation clips, but they say how far to trust it.
        val = split_corpus(job.labelled_corpus, split.name).val
    held_out = None if val is None else probe_inputs(features, val, labels)
    fitted = on_rank_zero(
        lambda: fit_probe(
            probe, inputs, held_out, multi_label=job.corpus.multi_label, seed=job.seeds[0]
        )
    )
    train = replace(train, clips=inputs.features.clips, labels=labels)
    encoder = job.model.objective.export_encoder()
    calibration = None
    if held_out is not None:
        calibration = calibrate_probe(fitted, inputs, held_out, labels)
    return keep_probe(job.model.config, encoder, fitted, train, out, calibration=calibration)


def calibrate_probe(
    fitted: FittedProbe,
    train: ProbeInputs,
    val: ProbeInputs,
    labels: Sequence[str],
    thresholds: str = "auto",
) -> Calibration | None:
    """Return what validation clips say about a probe; None if they are all of classes it lacks.

    Args:
        fitted: the probe.
        train: the clips that it learnt from.
        val: the validation clips.
        labels: its classes.
        thresholds: how thresholds are chosen, see
            :meth:`melpatch.evaluation.thresholds.ThresholdRule.parse`.
    """
    known = of_known_classes(val.features.clips, labels_of(train.features.clips))
    if not known:
        return None
    keys = {clip.key for clip in known}
    kept = np.array([clip.key in keys for clip in val.features.clips])
    val = ProbeInputs(val.features.select(known), val.targets[kept])
    train_vectors = None
    val_vectors = None
    if isinstance(val.features, ClipVectors):
        train_vectors = train.features.vectors
        val_vectors = val.features.vectors
    answers = Answers(known, fitted.probabilities(val), val_vectors)
    return fit_calibration(
        answers, train_vectors, labels, thresholds, multi_label=fitted.multi_label
    )


def keep_probe(
    config: RunConfig,
    encoder: Encoder,
    fitted: FittedProbe,
    train: Corpus,
    out: Path,
    command: Any = None,
    calibration: Calibration | None = None,
) -> Run:
    """Write a classifier that predicts what a probe predicts, and return its run.

    Args:
        config: settings of the encoder's run.
        encoder: the frozen encoder.
        fitted: the probe.
        train: the clips that the probe learnt from; their labels are its classes.
        out: run folder to write.
        command: the settings of the command that keeps it.
        calibration: what validation clips say about it, if there are any.

    Raises:
        CheckpointError: the folder holds a run already, or cannot be written.
        ConfigError: the encoder has no such vectors.
    """
    objective_config = Classify.Config(
        **fitted.settings, recordings="whole", frozen=True, multi_label=fitted.multi_label
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
    objective.head.load_state_dict(fitted.state)
    run = Run.create(out, kept, command)
    with run.locked(), run.checkpoints:
        run.remember(train)
        run.publish(objective.state_dict())
        if calibration is not None:
            on_rank_zero(lambda: calibration.save(run.folder))
    return run


def _predict_vectors(head: LinearHead, clips: ProbeInputs) -> Float[np.ndarray, "clip label"]:
    return head.probabilities(clips.features.vectors)


def head_state(head: LinearHead) -> dict[str, Tensor]:
    """Return a linear probe as the weights of :func:`melpatch.nn.heads.standardised_head`."""
    fitted = {
        "0.mean": head.mean,
        "0.scale": head.scale,
        "1.weight": head.weight,
        "1.bias": head.bias,
    }
    return {name: torch.from_numpy(values) for name, values in fitted.items()}
