"""What a classifier learns after training, on validation clips: how far to trust its answers.

A run keeps it in ``calibration.safetensors`` beside its weights. A run without that file answers as
it was trained.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open

from melpatch.checkpoint import load_weights, save_weights
from melpatch.inference.novelty import Novelty
from melpatch.objectives.classify import Classify
from melpatch.opening import reading

CALIBRATION = "calibration.safetensors"
"""The file of a calibration in a run folder."""
_FIX = "restore it from a backup, or delete it: the run then answers without it"
_RULE = "threshold_rule"


@dataclass(frozen=True)
class Calibration:
    """What is done to the answers of a classifier.

    Attributes:
        multi_label: whether a clip may have several labels.
        temperature: by which logits are divided.
        clips: number of validation clips that it was learnt from.
        thresholds: the lowest probability at which each label is given; None: a single-label
            classifier gives the most probable label, whatever its probability.
        threshold_rule: how these were chosen.
        novelty: how unlike the training clips a clip is; None if that is not known.
    """

    multi_label: bool
    temperature: float = 1.0
    clips: int = 0
    thresholds: Float[np.ndarray, " label"] | None = None
    threshold_rule: str = ""
    novelty: Novelty | None = None

    def probabilities(
        self, raw: Float[np.ndarray, "*clip label"]
    ) -> Float[np.ndarray, "*clip label"]:
        """Return calibrated probabilities; the order of a clip's labels stays the same."""
        return rescaled(raw, self.temperature, self.multi_label)

    def answers(
        self, values: Float[np.ndarray, " label_and_dim"]
    ) -> Float[np.ndarray, " label_and_novelty"]:
        """Return a recording's calibrated probabilities and, if that is known, its novelty.

        Args:
            values: the raw probabilities and, if the novelty is known, the vector behind them.
        """
        if self.novelty is None:
            return self.probabilities(values)
        ranked = self.novelty.rank_vector(values)
        return np.concatenate([self.probabilities(ranked[:-1]), ranked[-1:]])

    def save(self, folder: Path) -> None:
        """Write the calibration of the run in a folder."""
        state = {
            "temperature": torch.tensor(self.temperature, dtype=torch.float64),
            "clips": torch.tensor(self.clips),
        }
        if self.thresholds is not None:
            state["thresholds"] = torch.from_numpy(self.thresholds.astype(np.float32))
        if self.novelty is not None:
            state |= self.novelty.state()
        save_weights(folder / CALIBRATION, state, {_RULE: json.dumps(self.threshold_rule)})


def load_calibration(folder: Path, classifier: Classify) -> Calibration | None:
    """Return the calibration of a run; None if it has none.

    Args:
        folder: the run folder.
        classifier: its network.

    Raises:
        CheckpointError: the file is damaged, or of another classifier.
    """
    path = folder / CALIBRATION
    if not path.exists():
        return None
    state = load_weights(path)
    with reading(path, _FIX, None):
        with safe_open(path, "pt") as file:
            rule = str(json.loads((file.metadata() or {})[_RULE]))
        temperature = state["temperature"].numpy().item()
        if not temperature > 0:
            raise ValueError(f"a temperature of {temperature}")
        thresholds = None
        if "thresholds" in state:
            thresholds = state["thresholds"].numpy()
            labels = len(classifier.labels)
            if thresholds.shape != (labels,):
                raise ValueError(f"{thresholds.size} thresholds for {labels} classes")
        novelty = Novelty.from_state(state, classifier.vector_dim)
        clips = int(state["clips"].numpy().item())
    multi_label = classifier.config.multi_label
    return Calibration(multi_label, temperature, clips, thresholds, rule, novelty)


def rescaled(
    probabilities: Float[np.ndarray, "*clip label"], temperature: float, multi_label: bool
) -> Float[np.ndarray, "*clip label"]:
    """Return what probabilities become when the logits behind them are divided by a temperature.

    Args:
        probabilities: softmax of logits, or with several labels to a clip sigmoids. Of a recording
            in windows they are means, and the logits behind these are taken.
        temperature: above 1 makes answers less certain, below 1 more.
        multi_label: whether they are sigmoids.
    """
    if temperature == 1:
        return probabilities
    scaled = logits_of(probabilities, multi_label) / temperature
    if multi_label:
        answers = np.exp(-np.logaddexp(0.0, -scaled))  # the sigmoid, which never overflows so
    else:
        odds = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        answers = odds / odds.sum(axis=-1, keepdims=True)
    rounded: np.ndarray = answers.astype(probabilities.dtype)
    return rounded


def logits_of(
    probabilities: Float[np.ndarray, "*clip label"], multi_label: bool
) -> Float[np.ndarray, "*clip label"]:
    """Return logits that have these probabilities, in float64.

    A probability that was rounded to 0 or 1 counts as the nearest float32 beside it.
    """
    limits = np.finfo(np.float32)
    exact = np.maximum(probabilities.astype(np.float64), float(limits.tiny))
    if multi_label:
        exact = np.minimum(exact, 1 - float(limits.epsneg))
        return np.log(exact) - np.log1p(-exact)
    return np.log(exact)
