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


def slow_cross_entropy(told, logits, temperature):
    powers = [math.exp(logit / temperature) for logit in logits]
    return -sum(p * math.log(power / sum(powers)) for p, power in zip(told, powers, strict=True))


# ------------------------------------------------------------------------------------------------------- across views


def slow_across_views(told, said, temperature):
    """One clip: the mean over all pairs of a teacher's view and another of the student's."""
    pairs = [(t, s) for t in range(len(told)) for s in range(len(said)) if s != t]
    return sum(slow_cross_entropy(told[t], said[s], temperature) for t, s in pairs) / len(pairs)


@pytest.mark.parametrize(("views", "crops"), [(2, 0), (3, 0), (2, 4), (1, 2)])
def test_the_global_loss_is_that_of_the_loop_over_pairs(views, crops):
    told, said = (
        noise(views, 3, CLASSES).softmax(dim=-1),
        noise(views + crops, 3, CLASSES, seed=1).requires_grad_(),
    )
    losses = cross_view_loss(told, said, 0.1)
    expected = [
        slow_across_views(told[:, clip].tolist(), said[:, clip].tolist(), 0.1) for clip in range(3)
    ]
    assert losses.tolist() == pytest.approx(expected, abs=1e-12)
    losses.sum().backward()
    pairs = views * (views + crops - 1)
    for view in range(
        views + crops
    ):  # of a cross-entropy: probabilities minus targets, over the temperature
        others = [told[t] for t in range(views) if t != view]
        expected = (len(others) * (said[view] / 0.1).softmax(dim=-1) - sum(others)) / (0.1 * pairs)
        torch.testing.assert_close(said.grad[view], expected.detach())


def test_a_view_is_not_told_of_itself():
    told = noise(2, 1, CLASSES).softmax(dim=-1)
    said = noise(2, 1, CLASSES, seed=1).requires_grad_()
    cross_view_loss(told, said, 0.1).sum().backward()
    first = said.grad[0].clone()
    said.grad, told[0] = None, torch.eye(CLASSES)[0]  # what the teacher says of the first view
    cross_view_loss(told, said, 0.1).sum().backward()
    torch.testing.assert_close(said.grad[0], first, rtol=0, atol=1e-12)


def test_the_teachers_distributions_are_left_as_they_are_and_logits_are_taken_in_their_precision():
    told, said = noise(2, 3, CLASSES).softmax(dim=-1), noise(3, 3, CLASSES, seed=1).bfloat16()
    before = told.clone()
    losses = cross_view_loss(told, said, 0.1)
    assert torch.equal(told, before)
    torch.testing.assert_close(losses, cross_view_loss(told, said.double(), 0.1))


# ----------------------------------------------------------------------------------------------- chunked cross-entropy

TOKENS, DIM = 11, 3


def material(tokens=TOKENS, classes=CLASSES, dim=DIM):
    """Return vectors, prototypes, weights (some of them 0) and the teacher's distributions."""
    weights = noise(tokens, seed=2).clamp(min=0)
    return (
        noise(tokens, dim).requires_grad_(),
        noise(classes, dim, seed=1).requires_grad_(),
        weights,
        noise(tokens, classes, seed=3).softmax(dim=-1),
    )


def plain_cross_entropy(vectors, prototypes, weights, told, temperature):
    said = (vectors @ prototypes.T / temperature).log_softmax(dim=-1)
    return -(weights[:, None] * told * said).sum()


@pytest.mark.parametrize("chunk", [1, 3, TOKENS, 100])
def test_value_and_gradients_are_the_plain_ones_whatever_the_chunk(chunk, monkeypatch):
    monkeypatch.setattr(distillation, "_ELEMENTS", chunk * CLASSES)
    vectors, prototypes, weights, told = material()
    plain = plain_cross_entropy(vectors, prototypes, weights, told, 0.1)
    expected = torch.autograd.grad(7 * plain, (vectors, prototypes))
    stretches = []

    def distribution(part):
        stretches.extend(range(TOKENS)[part])
        return told[part]

    loss = chunked_cross_entropy(vectors, prototypes, weights, distribution, 0.1)
    torch.testing.assert_close(loss, plain, rtol=0, atol=1e-12)
    rows = zip(weights.tolist(), told.tolist(), (vectors @ prototypes.T).tolist(), strict=True)
    slow = sum(weight * slow_cross_entropy(one, logits, 0.1) for weight, one, logits in rows)
    assert loss.item() == pytest.approx(slow, abs=1e-12)
    for found, wanted in zip(
        torch.autograd.grad(7 * loss, (vectors, prototypes)), expected, strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert stretches == list(range(TOKENS))  # each token once and in order, the way back included


def test_gradients_are_those_of_finite_differences(monkeypatch):
    monkeypatch.setattr(distillation, "_ELEMENTS", 2 * CLASSES)
    vectors, prototypes, weights, told = material(tokens=5)
    torch.autograd.gradcheck(
        lambda *leaves: chunked_cross_entropy(*leaves, weights, lambda part: told[part], 0.5),
        (vectors, prototypes),
    )


def test_frozen_prototypes_or_vectors_get_no_gradient():
    for frozen in (0, 1):
        vectors, prototypes, weights, told = material()
        leaves = [vectors, prototypes]
        leaves[frozen] = leaves[frozen].detach()
        chunked_cross_entropy(*leaves, weights, lambda part, told=told: told[part], 0.1).backward()
        plain = torch.autograd.grad(
            plain_cross_entropy(*leaves, weights, told, 0.1), leaves[1 - frozen]
        )[0]
        assert leaves[frozen].grad is None
        torch.testing.assert_close(leaves[1 - frozen].grad, plain)


def test_no_tokens_are_a_loss_of_zero_with_gradients_of_zero_and_are_told_of_once():
    vectors, prototypes, weights, told = material(tokens=0)
    calls = []
    loss = chunked_cross_entropy(
        vectors, prototypes, weights, lambda part: calls.append(part) or told[part], 0.1
    )
    loss.backward()
    assert loss.item() == 0.0
    assert vectors.grad.shape == (0, DIM)
    assert not prototypes.grad.any()
    assert (
        len(calls) == 1
    )  # so that a target hears of every step, as it must where processes wait for each other


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that anything computed."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


def memory(loss_of, tokens=300, classes=200, dim=4):
    """Return the elements of the largest tensor on the way there and back, and of all that is kept for the way back."""
    vectors, prototypes, weights, _ = material(tokens, classes, dim)
    answers, kept = noise(tokens, dim, seed=4), []

    def distribution(part):
        return (answers[part] @ prototypes.detach().T).softmax(dim=-1)

    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.numel()) or x, lambda x: x
    )
    with Largest() as largest, hooks:
        loss_of(vectors, prototypes, weights, distribution).backward()
    return largest.elements, sum(kept)


def test_memory_holds_no_logits_of_all_tokens(monkeypatch):
    monkeypatch.setattr(distillation, "_ELEMENTS", 10 * 200)
    largest, kept = memory(lambda *given: chunked_cross_entropy(*given, 0.1))
    assert largest == 10 * 200
    assert kept == 300 * 4 + 200 * 4  # the gradients

    def plain(vectors, prototypes, weights, distribution):
        return plain_cross_entropy(vectors, prototypes, weights, distribution(slice(None)), 0.1)

    largest, kept = memory(plain)
    assert largest == 300 * 200
    assert kept > 300 * 200


def test_bf16_autocast_is_near():
    results = []
    for autocast in (False, True):
        vectors, prototypes, weights, told = (one.detach().float() for one in material(64, 32, 16))
        vectors = F.normalize(vectors, dim=1).requires_grad_()
        prototypes = F.normalize(prototypes, dim=1).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = chunked_cross_entropy(
                vectors, prototypes, weights, lambda part, told=told: told[part], 0.1
            )
        loss.backward()
        assert loss.dtype == vectors.grad.dtype == prototypes.grad.dtype == torch.float32
        results.append((loss.detach(), vectors.grad, prototypes.grad))
    assert not torch.equal(results[0][1], results[1][1])  # it is bf16
    for exact, near in zip(*results, strict=True):
        assert (near - exact).norm() < 0.01 * exact.norm()
