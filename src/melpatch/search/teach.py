"""A linear head for each label, taught by people's answers within the blink of an eye."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from melpatch.config import check
from melpatch.data.answers import Labelled
from melpatch.data.clip import Clip, clip_key
from melpatch.data.corpus import Corpus
from melpatch.evaluation.kept_probe import FittedProbe, head_state, keep_probe
from melpatch.evaluation.linear import LinearHead
from melpatch.evaluation.logistic import fit_logistic
from melpatch.inference.calibration import Calibration
from melpatch.inference.fitted import FittedPooling
from melpatch.inference.model import Model
from melpatch.search.index import Index
from melpatch.training.run import Run

_STRENGTH = 0.1
"""Inverse strength of the penalty, as in the linear probe."""


@dataclass(frozen=True)
class Head:
    """What answers to one label have taught: logits are ``weight @ standardised vector + bias``.

    Attributes:
        weight: for standardised numbers.
        bias: the logit of a vector that is the mean.
    """

    weight: Float[np.ndarray, " dim"]
    bias: float

    def logits(self, index: Index) -> Float[np.ndarray, " row"]:
        """Return the logit of every row of an index."""
        mean, deviation = index.scale
        weight = self.weight / deviation
        logits: np.ndarray = index.products(weight[:, None])[:, 0] + (self.bias - mean @ weight)
        return logits

    def logits_of(
        self, index: Index, rows: Int[np.ndarray, " chosen"]
    ) -> Float[np.ndarray, " chosen"]:
        """Return the logits of some rows."""
        mean, deviation = index.scale
        logits: np.ndarray = (index.vectors(rows) - mean) / deviation @ self.weight + self.bias
        return logits


def teach(
    index: Index, rows: Int[np.ndarray, " answered"], yes: Bool[np.ndarray, " answered"]
) -> Head | None:
    """Return the head that answers teach; None unless there are some of both kinds.

    Args:
        index: the index.
        rows: the rows that were answered.
        yes: whether each has the label.
    """
    if yes.all() or not yes.any():
        return None
    mean, deviation = index.scale
    standardised = (index.vectors(rows) - mean) / deviation
    weight, bias = fit_logistic(standardised, yes[:, None], _STRENGTH)
    return Head(weight[:, 0].astype(np.float32), float(bias[0]))


def keep_heads(
    model: Model,
    index: Index,
    heads: Mapping[str, Head],
    stretches: list[Labelled],
    out: Path,
    thresholds: Mapping[str, float],
) -> Run:
    """Write heads as a classifier run, which ``predict`` takes, and return it.

    Args:
        model: the model that made the index.
        index: the index.
        heads: the head of each label.
        stretches: the labelled stretches that taught them.
        out: the run folder to write.
        thresholds: lowest probability at which a label is given; 0.5 for labels without.

    Raises:
        CheckpointError: the folder holds a run already, or cannot be written.
    """
    check(bool(heads), "label", "none", "labels with a yes and a no")
    labels = tuple(sorted(heads))
    mean, deviation = index.scale.astype(np.float64)
    linear = LinearHead(
        mean,
        deviation,
        np.stack([heads[label].weight for label in labels]).astype(np.float64),
        np.array([heads[label].bias for label in labels]),
        multi_label=True,
    )
    pooling = model.network.resolve_pooling(index.identity.spelling, index.identity.layer)
    if isinstance(pooling, FittedPooling):
        linear, pooling = _unfitted(linear, pooling), pooling.pooled
    settings = {"head": "standardised", "pooling": str(pooling)}
    fitted = FittedProbe(
        settings,
        head_state(linear),
        True,
        lambda clips: linear.probabilities(clips.features.vectors),
    )
    chosen = np.array([thresholds.get(label, 0.5) for label in labels], np.float32)
    calibration = Calibration(True, thresholds=chosen, threshold_rule="chosen on the page")
    clips = tuple(_clip(stretch, labels) for stretch in stretches if stretch.split != "test")
    corpus = Corpus(index.folder.name, clips, labels, True)
    # A longer window is pooled over pieces of what the model takes, and so is what it predicts.
    seconds = min(index.identity.window, model.seconds)
    config = replace(model.config, loader=replace(model.config.loader, seconds=seconds))
    encoder = model.objective.export_encoder()
    return keep_probe(config, encoder, fitted, corpus, out, calibration=calibration)


def _unfitted(head: LinearHead, pooling: FittedPooling) -> LinearHead:
    """Return the head on pooled vectors that does what a head on fitted ones does.

    With a fitted vector f = (x - m) A, w ((f - mean) / scale) + b is u (x - m) + c, where
    u = A (w / scale) and c = b - mean (w / scale).
    """
    scaled = head.weight / head.scale
    axes = pooling.axes.double().numpy()
    mean = pooling.mean.double().numpy()
    bias = head.bias - scaled @ head.mean
    return LinearHead(mean, np.ones(len(mean)), scaled @ axes.T, bias, head.multi_label)


def _clip(stretch: Labelled, labels: tuple[str, ...]) -> Clip:
    key = clip_key("", stretch.path, stretch.start)
    own = tuple(label for label in stretch.labels if label in labels)
    return Clip(Path(stretch.path), key, stretch.start, stretch.end - stretch.start, own)
