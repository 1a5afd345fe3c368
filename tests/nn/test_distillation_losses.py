import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from melpatch.nn import distillation
from melpatch.nn.distillation import chunked_cross_entropy, cross_view_loss

CLASSES = 5


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_cross_entropy(targets, logits, temperature):
    powers = [math.exp(logit / temperature) for logit in logits]
    return -sum(p * math.log(power / sum(powers)) for p, power in zip(targets, powers, strict=True))


# Across views


def slow_across_views(targets, student, temperature):
    """Return the loss of one clip: the mean over pairs of a teacher view and another view."""
    pairs = [(t, s) for t in range(len(targets)) for s in range(len(student)) if s != t]
    return sum(slow_cross_entropy(targets[t], student[s], temperature) for t, s in pairs) / len(
        pairs
    )


@pytest.mark.parametrize(("views", "crops"), [(2, 0), (3, 0), (2, 4), (1, 2)])
def test_the_global_loss_equals_the_loop_over_pairs(views, crops):
    targets = noise(views, 3, CLASSES).softmax(dim=-1)
    student = noise(views + crops, 3, CLASSES, seed=1).requires_grad_()
    losses = cross_view_loss(targets, student, 0.1)
    expected = [
        slow_across_views(targets[:, clip].tolist(), student[:, clip].tolist(), 0.1)
        for clip in range(3)
    ]
    assert losses.tolist() == pytest.approx(expected, abs=1e-12)
    losses.sum().backward()
    pairs = views * (views + crops - 1)
    for view in range(
        views + crops
    ):  # d cross-entropy / d logits = (softmax(student) - teacher) / temperature
        others = [targets[t] for t in range(views) if t != view]
        expected = (len(others) * (student[view] / 0.1).softmax(dim=-1) - sum(others)) / (
            0.1 * pairs
        )
        torch.testing.assert_close(student.grad[view], expected.detach())


def test_a_view_is_not_its_own_target():
    targets = noise(2, 1, CLASSES).softmax(dim=-1)
    student = noise(2, 1, CLASSES, seed=1).requires_grad_()
    cross_view_loss(targets, student, 0.1).sum().backward()
    first = student.grad[0].clone()
    student.grad = None
    targets[0] = torch.eye(CLASSES)[0]
    cross_view_loss(targets, student, 0.1).sum().backward()
    torch.testing.assert_close(student.grad[0], first, rtol=0, atol=1e-12)


def test_targets_are_not_modified_and_logits_are_upcast_to_their_precision():
    targets = noise(2, 3, CLASSES).softmax(dim=-1)
    student = noise(3, 3, CLASSES, seed=1).bfloat16()
    before = targets.clone()
    losses = cross_view_loss(targets, student, 0.1)
    assert torch.equal(targets, before)
    torch.testing.assert_close(losses, cross_view_loss(targets, student.double(), 0.1))


# Chunked cross-entropy

TOKENS = 11
DIM = 3


def material(tokens=TOKENS, classes=CLASSES, dim=DIM):
    """Return vectors, prototypes, weights (some of them 0) and targets."""
    weights = noise(tokens, seed=2).clamp(min=0)
    return (
        noise(tokens, dim).requires_grad_(),
        noise(classes, dim, seed=1).requires_grad_(),
        weights,
        noise(tokens, classes, seed=3).softmax(dim=-1),
    )


def plain_cross_entropy(vectors, prototypes, weights, targets, temperature):
    log_probabilities = (vectors @ prototypes.T / temperature).log_softmax(dim=-1)
    return -(weights[:, None] * targets * log_probabilities).sum()


@pytest.mark.parametrize("chunk", [1, 3, TOKENS, 100])
def test_value_and_gradients_do_not_depend_on_the_chunk(chunk, monkeypatch):
    monkeypatch.setattr(distillation, "_ELEMENTS", chunk * CLASSES)
    vectors, prototypes, weights, targets = material()
    plain = plain_cross_entropy(vectors, prototypes, weights, targets, 0.1)
    expected = torch.autograd.grad(7 * plain, (vectors, prototypes))
    stretches = []

    def distribution(part):
        stretches.extend(range(TOKENS)[part])
        return targets[part]

    loss = chunked_cross_entropy(vectors, prototypes, weights, distribution, 0.1)
    torch.testing.assert_close(loss, plain, rtol=0, atol=1e-12)
    rows = zip(weights.tolist(), targets.tolist(), (vectors @ prototypes.T).tolist(), strict=True)
    slow = sum(weight * slow_cross_entropy(row, logits, 0.1) for weight, row, logits in rows)
    assert loss.item() == pytest.approx(slow, abs=1e-12)
    gradients = torch.autograd.grad(7 * loss, (vectors, prototypes))
    for gradient, expected_gradient in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-12)
    assert stretches == list(
        range(TOKENS)
    )  # each token once and in order, in the backward pass too


def test_gradients_match_finite_differences(monkeypatch):
    monkeypatch.setattr(distillation, "_ELEMENTS", 2 * CLASSES)
    vectors, prototypes, weights, targets = material(tokens=5)
    torch.autograd.gradcheck(
        lambda *leaves: chunked_cross_entropy(*leaves, weights, lambda part: targets[part], 0.5),
        (vectors, prototypes),
    )


def test_frozen_prototypes_or_vectors_get_no_gradient():
    for frozen in (0, 1):
        vectors, prototypes, weights, targets = material()
        leaves = [vectors, prototypes]
        leaves[frozen] = leaves[frozen].detach()
        chunked_cross_entropy(
            *leaves, weights, lambda part, targets=targets: targets[part], 0.1
        ).backward()
        plain = torch.autograd.grad(
            plain_cross_entropy(*leaves, weights, targets, 0.1), leaves[1 - frozen]
        )[0]
        assert leaves[frozen].grad is None
        torch.testing.assert_close(leaves[1 - frozen].grad, plain)


def test_without_tokens_loss_and_gradients_are_zero_and_targets_are_asked_for_once():
    vectors, prototypes, weights, targets = material(tokens=0)
    calls = []
    loss = chunked_cross_entropy(
        vectors, prototypes, weights, lambda part: calls.append(part) or targets[part], 0.1
    )
    loss.backward()
    assert loss.item() == 0.0
    assert vectors.grad.shape == (0, DIM)
    assert not prototypes.grad.any()
    assert len(calls) == 1  # targets take part in every step, since processes wait for each other


class Largest(TorchDispatchMode):
    """Record the number of elements of the largest computed tensor."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


def memory(loss_of, tokens=300, classes=200, dim=4):
    """Return the elements of the largest tensor, and of everything saved for the backward pass."""
    vectors, prototypes, weights, _ = material(tokens, classes, dim)
    answers = noise(tokens, dim, seed=4)
    kept = []

    def distribution(part):
        return (answers[part] @ prototypes.detach().T).softmax(dim=-1)

    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.numel()) or x, lambda x: x
    )
    with Largest() as largest, hooks:
        loss_of(vectors, prototypes, weights, distribution).backward()
    return largest.elements, sum(kept)


def test_the_logits_of_all_tokens_are_never_in_memory(monkeypatch):
    monkeypatch.setattr(distillation, "_ELEMENTS", 10 * 200)
    largest, kept = memory(lambda *given: chunked_cross_entropy(*given, 0.1))
    assert largest == 10 * 200
    assert kept == 300 * 4 + 200 * 4  # the gradients

    def plain(vectors, prototypes, weights, distribution):
        return plain_cross_entropy(vectors, prototypes, weights, distribution(slice(None)), 0.1)

    largest, kept = memory(plain)
    assert largest == 300 * 200
    assert kept > 300 * 200


def test_bf16_autocast_is_close():
    results = []
    for autocast in (False, True):
        vectors, prototypes, weights, targets = (
            part.detach().float() for part in material(64, 32, 16)
        )
        vectors = F.normalize(vectors, dim=1).requires_grad_()
        prototypes = F.normalize(prototypes, dim=1).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = chunked_cross_entropy(
                vectors, prototypes, weights, lambda part, targets=targets: targets[part], 0.1
            )
        loss.backward()
        assert loss.dtype == vectors.grad.dtype == prototypes.grad.dtype == torch.float32
        results.append((loss.detach(), vectors.grad, prototypes.grad))
    assert not torch.equal(results[0][1], results[1][1])  # it really is bf16
    for exact, near in zip(*results, strict=True):
        assert (near - exact).norm() < 0.01 * exact.norm()
