"""Small networks on frozen features: how they are trained, which weights are kept, and what they predict."""

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from melpatch.counted import counted
from melpatch.errors import DataError
from melpatch.evaluation.features import ClipTokens
from melpatch.evaluation.metrics import check_finite, primary_metric, validation_scores
from melpatch.rng import permutation

HeadMetric = Literal["standard", "accuracy", "balanced_accuracy", "macro_f1", "mAP"]


class HeadInputs(NamedTuple):
    """Clips that a head is trained, validated or tested on."""

    arguments: Callable[[Int[Tensor, " clip"]], tuple[Tensor, ...]]
    """From numbers of clips to the arguments of the head."""
    targets: Float[np.ndarray, "clip label"]
    """1 where the clip has the label, else 0."""

    @classmethod
    def from_vectors(
        cls,
        name: str,
        values: Float[np.ndarray, "clip ..."],
        targets: Float[np.ndarray, "clip label"],
    ) -> "HeadInputs":
        """Return the inputs of a head that takes one tensor, (clip, ...).

        Raises:
            MelpatchError: a value is not finite; the message calls the values ``name``.
        """
        check_finite(name, values.reshape(len(values), math.prod(values.shape[1:])))
        rows = torch.from_numpy(np.asarray(values, np.float32))
        return cls(lambda clips: (rows[clips],), targets)

    @classmethod
    def from_tokens(
        cls, tokens: ClipTokens, targets: Float[np.ndarray, "clip label"]
    ) -> "HeadInputs":
        """Return the inputs of a head that takes padded tokens, and which of them are valid."""
        return cls(lambda clips: tokens.batch(clips.tolist()), targets)


class BestWeights(NamedTuple):
    """When the weights were reached that are kept."""

    step: int
    score: float
    """What they were chosen by, on the validation clips."""


@dataclass(frozen=True, kw_only=True)
class HeadTraining:
    """How long a head is trained, and how.

    Attributes:
        steps: at most.
        validate_every: steps between validations; the last step is followed by one too.
        batch_size: clips per step, at most.
        patience: validations without a better one after which training stops; None never stops
            early.
        gradient_clip: largest norm of the gradient; None for none.
        cosine: whether the learning rates fall to 0 on half a cosine, or stay constant.
        select_by: the metric on validation clips that chooses the weights; standard is accuracy, or
            mAP for several labels.
    """

    steps: int
    validate_every: int
    batch_size: int
    patience: int | None = None
    gradient_clip: float | None = None
    cosine: bool = False
    select_by: HeadMetric = "standard"


def train_head(
    head: nn.Module,
    optimizer: torch.optim.Optimizer,
    training: HeadTraining,
    train: HeadInputs,
    val: HeadInputs,
    *,
    multi_label: bool,
    seed: int,
) -> BestWeights:
    """Train a head, on a GPU if there is one, and load the weights of the best validation, the first of equals.

    Single-label heads learn by cross-entropy, multi-label ones by binary cross-entropy per label.
    Dropout and the like use torch's generator: call this within :func:`melpatch.rng.seeded`.

    Args:
        head: returns logits, (clip, label).
        optimizer: of its parameters.
        training: how long, and how.
        train: training clips.
        val: validation clips.
        multi_label: whether a clip may have several labels or none.
        seed: of the order of the clips.

    Raises:
        DataError: there are fewer than two training clips, or no validation clip; or no label of
            these can be ranked.
        MelpatchError: the head has diverged.
    """
    _check_sizes(train, val)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    head.to(device)
    targets = torch.from_numpy(train.targets)
    loss_function = F.binary_cross_entropy_with_logits if multi_label else F.cross_entropy
    schedule = None
    if training.cosine:
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
    best = BestWeights(0, -math.inf)
    best_state = head.state_dict()
    batches = _batches(len(targets), training.batch_size, seed)
    for step, clips in zip(range(1, training.steps + 1), batches, strict=False):
        optimizer.zero_grad()
        loss: Tensor = loss_function(_logits(head.train(), train, clips), targets[clips].to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        if training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(head.parameters(), training.gradient_clip)
        optimizer.step()
        if schedule is not None:
            schedule.step()
        if step % training.validate_every and step < training.steps:
            continue
        score = _validate(head, val, training, multi_label)
        if score > best.score:
            best = BestWeights(step, score)
            best_state = deepcopy(head.state_dict())
        elif _is_out_of_patience(step - best.step, training):
            break
    head.load_state_dict(best_state)
    return best


def train_by_epochs(
    head: nn.Module,
    train: HeadInputs,
    val: HeadInputs,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    multi_label: bool,
    seed: int,
    gradient_clip: float | None = None,
    select_by: HeadMetric = "standard",
) -> dict[str, Any]:
    """Train a head by AdamW on half a cosine, with a validation after every epoch; see :func:`train_head`.

    Args:
        head: returns logits, (clip, label).
        train: training clips.
        val: validation clips.
        epochs: passes over the training clips.
        batch_size: clips per step.
        lr: learning rate at the start of the cosine.
        weight_decay: of all weights.
        multi_label: whether a clip may have several labels or none.
        seed: of the order of the clips.
        gradient_clip: largest norm of the gradient; None for none.
        select_by: see :class:`HeadTraining`.

    Returns:
        The best epoch, whose weights the head has then, and its validation score.
    """
    steps_per_epoch = math.ceil(len(train.targets) / batch_size)
    training = HeadTraining(
        steps=epochs * steps_per_epoch,
        validate_every=steps_per_epoch,
        batch_size=batch_size,
        gradient_clip=gradient_clip,
        cosine=True,
        select_by=select_by,
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=weight_decay)
    best = train_head(head, optimizer, training, train, val, multi_label=multi_label, seed=seed)
    return {"best_epoch": best.step // steps_per_epoch, "val_score": best.score}


def predict_probabilities(
    head: nn.Module, inputs: HeadInputs, batch_size: int, *, multi_label: bool
) -> Float[np.ndarray, "clip label"]:
    """Return the probability of each label for each clip: softmax, or for multi-label tasks one sigmoid per label."""
    head.eval()
    batches = torch.split(torch.arange(len(inputs.targets)), batch_size)
    with torch.inference_mode():
        logits = torch.cat([_logits(head, inputs, clips) for clips in batches]).cpu().double()
    probabilities = logits.sigmoid() if multi_label else logits.softmax(dim=1)
    return probabilities.numpy()


def _check_sizes(train: HeadInputs, val: HeadInputs) -> None:
    num_train = len(train.targets)
    num_val = len(val.targets)
    if num_train < 2 or not num_val:
        raise DataError(
            f"{counted(num_train, 'training clip')} and {counted(num_val, 'validation clip')} can be "
            "read; a trained head needs at least 2 and 1: give a corpus with more labelled clips"
        )


def _is_out_of_patience(steps_without_gain: int, training: HeadTraining) -> bool:
    if training.patience is None:
        return False
    return steps_without_gain >= training.patience * training.validate_every


def _logits(
    head: nn.Module, inputs: HeadInputs, clips: Int[Tensor, " clip"]
) -> Float[Tensor, "clip label"]:
    device = next(head.parameters()).device
    logits: Tensor = head(*(argument.to(device) for argument in inputs.arguments(clips)))
    return logits


def _batches(num_clips: int, batch_size: int, seed: int) -> Iterator[Int[Tensor, " clip"]]:
    """Yield the numbers of clips in batches without end, every epoch in a new order.

    Batches of an epoch differ by one clip at most, so that none has a single clip, which batch
    normalisation cannot take.
    """
    num_batches = math.ceil(num_clips / batch_size)
    for epoch in count():
        yield from permutation(seed, "head", epoch, num_clips).tensor_split(num_batches)


def _validate(head: nn.Module, val: HeadInputs, training: HeadTraining, multi_label: bool) -> float:
    """Return the metric that chooses the weights, on the validation clips.

    Raises:
        DataError: no label can be ranked.
        MelpatchError: a probability is not finite.
    """
    probabilities = predict_probabilities(head, val, training.batch_size, multi_label=multi_label)
    targets = val.targets
    check_finite("the trained head's probabilities", probabilities)
    metric: str = training.select_by
    if metric == "standard":
        metric = primary_metric(multi_label)
    labels = [str(number) for number in range(targets.shape[1])]
    score = validation_scores(probabilities, targets, labels, multi_label, metric)[metric]
    if score is None:
        raise DataError(
            f"no label is on some, but not all of {counted(len(targets), 'validation clip')}; "
            "give more of them"
        )
    return score
