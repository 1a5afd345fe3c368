"""Training of small heads against a loop written out, and what they say against the formulas."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from melpatch.errors import DataError, MelpatchError
from melpatch.evaluation.features import ClipTokens
from melpatch.evaluation.heads import (
    HeadInputs,
    HeadTraining,
    _batches,
    predict_probabilities,
    train_head,
)


def clouds(clips=40, labels=3, seed=0, noise=1.5):
    """Features that overlap, so that validation has its ups and downs."""
    generator = np.random.default_rng(seed)
    targets = np.eye(labels, dtype=np.float32)[np.arange(clips) % labels]
    return HeadInputs.from_vectors(
        "features", targets + noise * generator.normal(size=targets.shape), targets
    )


def linear(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(3, 3)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_weights_kept_are_those_of_a_loop_that_keeps_the_first_best(multi_label):
    train, val, head = clouds(), clouds(seed=1), linear()
    slow = deepcopy(head)
    course = HeadTraining(steps=23, validate_every=5, batch_size=16, gradient_clip=0.5, cosine=True)
    best = train_head(
        head,
        torch.optim.SGD(head.parameters(), lr=2.0),
        course,
        train,
        val,
        multi_label=multi_label,
        seed=3,
    )

    kept = None
    order = [rows for rows, _ in zip(_batches(40, 16, 3), range(23), strict=False)]
    for step, rows in enumerate(order, start=1):
        (x,), y = train.arguments(rows), torch.from_numpy(train.targets)[rows]
        said = slow(x)
        loss = -(y * said.log_softmax(1)).sum(1).mean()
        if multi_label:
            loss = -(y * said.sigmoid().log() + (1 - y) * (1 - said.sigmoid()).log()).mean()
        slow.zero_grad()
        loss.backward()
        norm = sum(p.grad.square().sum() for p in slow.parameters()).sqrt()
        rate = 2.0 * 0.5 * (1 + np.cos(np.pi * (step - 1) / 23))
        with torch.no_grad():
            for p in slow.parameters():
                p -= rate * p.grad * min(1, 0.5 / norm)
        if step % 5 == 0 or step == 23:
            found = slow(*val.arguments(torch.arange(40))).detach().numpy()
            score = (
                mean_ap(found, val.targets)
                if multi_label
                else (found.argmax(1) == val.targets.argmax(1)).mean()
            )
            if kept is None or score > kept[1]:
                kept = step, score, slow.weight.detach().clone()
    assert best == pytest.approx(kept[:2])
    torch.testing.assert_close(head.weight.detach(), kept[2])


def mean_ap(scores, targets):
    """Mean over labels of the mean precision at each positive."""
    found = []
    for score, target in zip(scores.T, targets.T, strict=True):
        hits = target[np.argsort(-score)]
        found.append(np.mean([hits[: n + 1].mean() for n in np.flatnonzero(hits)]))
    return np.mean(found)


@pytest.mark.parametrize(("patience", "batches"), [(1, 6), (2, 9), (None, 30)])
def test_training_ends_when_patience_does(patience, batches):
    """A rate of 0 never gets better than at the first validation, after three steps."""
    seen = []
    train = clouds()
    counted = HeadInputs(
        lambda rows: (seen.append(len(rows)), train.arguments(rows))[1], train.targets
    )
    head = linear()
    course = HeadTraining(steps=30, validate_every=3, batch_size=20, patience=patience)
    best = train_head(
        head,
        torch.optim.SGD(head.parameters(), lr=0.0),
        course,
        counted,
        clouds(),
        multi_label=False,
        seed=0,
    )
    assert (best.step, len(seen)) == (3, batches)


@given(clips=st.integers(2, 60), size=st.integers(2, 70), seed=st.integers(0, 99))
def test_every_pass_has_every_clip_once_in_parts_of_equal_size(clips, size, seed):
    batches = _batches(clips, size, seed)
    passes = []
    for _ in range(2):
        rows = []
        while len(rows) < clips:
            part = next(batches).tolist()
            assert 1 <= len(part) <= size
            assert len(part) > 1 or size == 2
            rows += part
        assert sorted(rows) == list(range(clips))
        passes.append(rows)
    assert clips < 9 or passes[0] != passes[1]


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_probabilities_are_softmax_or_sigmoid_of_the_logits_in_order(batch_size):
    asked, head = clouds(), linear()
    logits = head(*asked.arguments(torch.arange(40))).detach().numpy().astype(np.float64)
    powers = np.exp(logits)
    single, several = (
        predict_probabilities(head, asked, batch_size, multi_label=many) for many in (False, True)
    )
    assert single == pytest.approx(powers / powers.sum(axis=1, keepdims=True), abs=1e-6)
    assert several == pytest.approx(1 / (1 + 1 / powers), abs=1e-6)


def test_dropout_is_for_training_only():
    head = nn.Sequential(nn.Dropout(0.5), linear())
    train_head(
        head,
        torch.optim.SGD(head.parameters()),
        HeadTraining(steps=2, validate_every=1, batch_size=9),
        clouds(),
        clouds(),
        multi_label=False,
        seed=0,
    )
    first, second = (predict_probabilities(head, clouds(), 9, multi_label=False) for _ in range(2))
    assert np.array_equal(first, second)


def test_clips_of_tokens_are_padded_to_the_longest_of_a_batch():
    values = np.arange(12, dtype=np.float16).reshape(6, 2)
    tokens = ClipTokens((), values, [[(0, 1)], [(1, 4)], [(4, 6)]])
    padded, valid = HeadInputs.from_tokens(tokens, np.eye(3)).arguments(torch.tensor([2, 0]))
    assert padded.tolist() == [[[8, 9], [10, 11]], [[0, 1], [0, 0]]]
    assert valid.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (
            1,
            4,
            "1 training clip and 4 validation clips can be read; a trained head needs at least 2 and 1",
        ),
        (4, 0, "4 training clips and 0 validation clips"),
        (4, 1, "no label is on some, but not all of 1 validation clip"),
    ],
)
def test_too_few_clips_are_refused(train, val, message):
    head, course = linear(), HeadTraining(steps=1, validate_every=1, batch_size=2)
    optimizer = torch.optim.SGD(head.parameters())
    with pytest.raises(DataError, match=message):
        train_head(head, optimizer, course, clouds(train), clouds(val), multi_label=True, seed=0)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_head_that_diverged_says_so(multi_label):
    head, course = linear(), HeadTraining(steps=3, validate_every=3, batch_size=40)
    optimizer = torch.optim.SGD(head.parameters(), lr=np.inf)
    with pytest.raises(
        MelpatchError, match=r"head's probabilities of 40 of 40 clips .* lower learning rate"
    ) as caught:
        train_head(
            head, optimizer, course, clouds(), clouds(seed=1), multi_label=multi_label, seed=0
        )
    assert "\n" not in str(caught.value)


def test_features_that_are_not_finite_are_refused():
    bad = np.ones((3, 2, 2), np.float32)
    bad[1, 1, 0] = np.nan
    with pytest.raises(MelpatchError, match="test features of 1 of 3 clips"):
        HeadInputs.from_vectors("test features", bad, np.eye(3))
