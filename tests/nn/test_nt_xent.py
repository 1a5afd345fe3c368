import math

import pytest
import torch

from melpatch.nn.nt_xent import nt_xent


def made(rows, dim=16):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 2, dim, generator=generator, dtype=torch.float64)


def slow(views, keys, temperature):
    """The equation, one view after the other."""
    items = [(row, view) for row in range(len(views)) for view in range(2)]
    unit = {item: views[item] / views[item].norm() for item in items}
    losses = [0.0] * len(views)
    hit_share = [0.0] * len(views)
    for row, view in items:
        positive = (row, 1 - view)
        others = [item for item in items if item == positive or keys[item[0]] != keys[row]]
        scores = {item: float(unit[row, view] @ unit[item]) / temperature for item in others}
        total = math.log(sum(map(math.exp, scores.values())))
        losses[row] += (total - scores[positive]) / 2
        hit_share[row] += (max(scores, key=scores.get) == positive) / 2
    return losses, hit_share


@pytest.mark.parametrize("keys", [[1, 2, 3, 4, 5], [1, 2, 1, 4, 2]])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_it_is_the_equation(keys, temperature):
    views = made(5)
    losses, hits = nt_xent(views, torch.tensor(keys), temperature)
    expected, shares = slow(views, keys, temperature)
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))
    assert hits.tolist() == shares


def test_random_vectors_cost_guessing():
    losses, hits = nt_xent(made(64, 4096), torch.arange(64), 1.0)
    assert losses.mean() == pytest.approx(math.log(127), abs=0.01)
    assert hits.mean() < 0.1


def test_equal_views_are_found_and_their_length_does_not_matter():
    views = made(8)
    views[:, 1] = 3 * views[:, 0]
    losses, hits = nt_xent(views, torch.arange(8), 0.05)
    assert losses.max() < 0.01
    assert hits.tolist() == [1.0] * 8


def test_a_collapse_finds_nothing():
    _, hits = nt_xent(torch.ones(4, 2, 8), torch.arange(4), 0.1)
    assert hits.tolist() == [0.0] * 4


@pytest.mark.parametrize("rows", [0, 1])
def test_one_clip_or_none_has_no_negatives(rows):
    losses, _ = nt_xent(made(rows).requires_grad_(), torch.arange(rows), 0.1)
    assert losses.tolist() == pytest.approx([0.0] * rows)
