"""Small networks on frozen features: how they learn, which of their weights are kept, and what they say of clips."""

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from melpatch.errors import DataError
from melpatch.evaluation.features import Tokens
from melpatch.evaluation.metrics import accuracy, check_finite
from melpatch.rng import permutation

Given = Callable[[Int[Tensor, " clip"]], tuple[Tensor, ...]]
"""From numbers of clips to what a head is called with."""


class Material(NamedTuple):
    """Clips that a head learns from, is chosen by, or is asked about."""

    given: Given
    targets: Float[np.ndarray, "clip label"]


class Best(NamedTuple):
    """The weights that were kept."""

    step: int
    score: float
    """Accuracy, or mAP for several labels, of the clips that choose."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """How long a head learns.

    Attributes:
        steps: at most.
        every: steps between validations; the last step is followed by one too.
        batch_size: clips per step, at most.
        patience: validations without a better one after which it is over; None goes to the end.
        gradient_clip: largest norm of the gradient; None for none.
        cosine: whether the learning rates fall to 0 on half a cosine, or stay.
    """

    steps: int
    every: int
    batch_size: int
    patience: int | None = None
    gradient_clip: float | None = None
    cosine: bool = False


def vectors(what: str, values: Float[np.ndarray, "clip ..."]) -> Given:
    """Return clips as heads of vectors are given them: one tensor.

    Raises:
        MelpatchError: a value is not finite; the message calls them ``what``.
    """
    check_finite(what, values.reshape(len(values), math.prod(values.shape[1:])))
    rows = torch.from_numpy(np.asarray(values, np.float32))
    return lambda clips: (rows[clips],)


def tokens(values: Tokens) -> Given:
    """Return clips as heads of tokens are given them: padded tokens, and which of them are real."""
    return lambda clips: values.batch(clips.tolist())


def fit(
    head: nn.Module,
    optimizer: torch.optim.Optimizer,
    course: Course,
    train: Material,
    val: Material,
    *,
    multi_label: bool,
    seed: int,
) -> Best:
    """Train a head, on a GPU if there is one; leave it with the weights of the best validation, the first of equals.

    Single-label heads learn by cross-entropy, multi-label ones by a yes or no to each label. What is random in the head
    itself (dropout) takes torch's generator: call this within :func:`melpatch.rng.seeded`.

    Args:
        head: to logits, (clip, label).
        optimizer: of its parameters.
        course: how long.
        train: clips to learn from.
        val: clips by which the weights are chosen.
        multi_label: whether a clip may have several labels or none.
        seed: of the order of the clips.

    Raises:
        DataError: there are fewer than two clips to learn from, or none to choose by; or no label's ranking of the
            latter can be judged.
        MelpatchError: the head has diverged.
    """
    if len(train.targets) < 2 or not len(val.targets):
        there = (
            f"{len(train.targets)} training clips and {len(val.targets)} to choose by can be read"
        )
        raise DataError(
            f"{there}; a trained head needs at least 2 and 1: give a corpus with more labelled clips"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    head.to(device)
    targets = torch.from_numpy(train.targets)
    loss = F.binary_cross_entropy_with_logits if multi_label else F.cross_entropy
    falling = (
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, course.steps)
        if course.cosine
        else None
    )
    best, kept = Best(0, -math.inf), head.state_dict()
    for step, rows in zip(
        range(1, course.steps + 1), _batches(len(targets), course.batch_size, seed), strict=False
    ):
        optimizer.zero_grad()
        error: Tensor = loss(_logits(head.train(), train, rows), targets[rows].to(device))
        error.backward()  # type: ignore[no-untyped-call]
        if course.gradient_clip is not None:
            nn.utils.clip_grad_norm_(head.parameters(), course.gradient_clip)
        optimizer.step()
        if falling is not None:
            falling.step()
        if step % course.every and step < course.steps:
            continue
        score = _score(
            probabilities(head, val, course.batch_size, multi_label=multi_label),
            val.targets,
            multi_label,
        )
        if score > best.score:
            best, kept = Best(step, score), deepcopy(head.state_dict())
        elif course.patience is not None and step - best.step >= course.patience * course.every:
            break
    head.load_state_dict(kept)
    return best


def by_epochs(
    head: nn.Module,
    train: Material,
    val: Material,
    test: Material,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    multi_label: bool,
    seed: int,
    gradient_clip: float | None = None,
) -> tuple[Float[np.ndarray, "clip label"], dict[str, Any]]:
    """Train a head by AdamW on half a cosine, with a validation after every pass; see :func:`fit`.

    Args:
        head: to logits, (clip, label).
        train: clips to learn from.
        val: clips by which the weights are chosen.
        test: clips to score.
        epochs: passes over the training clips.
        batch_size: clips per step.
        lr: learning rate at the start of the cosine.
        weight_decay: of all weights.
        multi_label: whether a clip may have several labels or none.
        seed: of the order of the clips.
        gradient_clip: largest norm of the gradient; None for none.

    Returns:
        The probability of each label for each test clip; and the epoch that was chosen, with its score.
    """
    every = math.ceil(len(train.targets) / batch_size)
    course = Course(
        steps=epochs * every,
        every=every,
        batch_size=batch_size,
        gradient_clip=gradient_clip,
        cosine=True,
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=weight_decay)
    best = fit(head, optimizer, course, train, val, multi_label=multi_label, seed=seed)
    found = probabilities(head, test, batch_size, multi_label=multi_label)
    return found, {"epoch": best.step // every, "val": best.score}


def probabilities(
    head: nn.Module, asked: Material, batch_size: int, *, multi_label: bool
) -> Float[np.ndarray, "clip label"]:
    """Return the probability of each label for each clip: softmax, or for multi-label tasks one sigmoid per label."""
    head.eval()
    with torch.inference_mode():
        parts = [
            _logits(head, asked, rows)
            for rows in torch.split(torch.arange(len(asked.targets)), batch_size)
        ]
    logits = torch.cat(parts).double().cpu()
    return (logits.sigmoid() if multi_label else logits.softmax(dim=1)).numpy()


def _logits(
    head: nn.Module, material: Material, rows: Int[Tensor, " row"]
) -> Float[Tensor, "row label"]:
    device = next(head.parameters()).device
    found: Tensor = head(*(part.to(device) for part in material.given(rows)))
    return found


def _batches(clips: int, size: int, seed: int) -> Iterator[Int[Tensor, " clip"]]:
    """Yield batches without end: pass after pass, each in a new order and in parts that differ by one clip at most, so
    that no part has a single one, which batch normalisation could not take."""
    for number in count():
        yield from permutation(seed, "head", number, clips).tensor_split(math.ceil(clips / size))


def _score(
    found: Float[np.ndarray, "clip label"],
    targets: Float[np.ndarray, "clip label"],
    multi_label: bool,
) -> float:
    check_finite("the trained head's probabilities", found)
    if not multi_label:
        return accuracy(found, targets)
    ranked = targets.any(axis=0) & ~targets.all(axis=0)
    if not ranked.any():
        raise DataError(
            f"no label is on some, but not all of the {len(targets)} clips to choose by; give more of them"
        )
    return float(average_precision_score(targets[:, ranked], found[:, ranked]))
