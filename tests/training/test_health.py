import pytest
import torch

from melpatch.training.health import collapse_warning, health
from melpatch.training.rank import effective_rank


def cross(scales):
    """Return a point on either side of the origin along each axis: centred, with these singular values (times √2)."""
    axes = torch.diag(torch.tensor(scales, dtype=torch.float32))
    return torch.cat([axes, -axes])


@pytest.mark.parametrize("directions", [1, 2, 7])
def test_equal_directions_count_as_many(directions):
    assert effective_rank(cross([3.0] * directions + [0.0] * 5)) == pytest.approx(
        directions, rel=1e-6
    )


def test_unequal_directions_count_by_their_entropy():
    share = torch.tensor([0.6, 0.3, 0.1])
    assert effective_rank(cross([6.0, 3.0, 1.0])) == pytest.approx(
        torch.exp(-(share * share.log()).sum()).item()
    )


def test_rank_ignores_place_size_and_rotation():
    points = cross([4.0, 2.0, 1.0])
    turn = torch.linalg.qr(torch.arange(9.0).view(3, 3) + torch.eye(3)).Q
    assert effective_rank(100 * points @ turn + 50) == pytest.approx(
        effective_rank(points), rel=1e-4
    )


def test_clips_that_are_all_alike_have_no_rank_and_no_spread():
    assert health(torch.ones(8, 3)) == {"embedding_std": 0.0, "effective_rank": 0.0}


def test_spread_is_the_mean_of_the_dimensions_stds():
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 6.0]])
    assert health(points)["embedding_std"] == pytest.approx((2.0 + 12**0.5) / 2)


START = {"embedding_std": 1.0, "effective_rank": 20.0}


@pytest.mark.parametrize(
    ("now", "word"),
    [
        ({"embedding_std": 0.009, "effective_rank": 20.0}, "std fell from 1 to 0.009"),
        ({"embedding_std": 1.0, "effective_rank": 1.4}, "effective rank fell from 20.0 to 1.4"),
    ],
)
def test_a_collapse_is_told_with_its_numbers(now, word):
    assert word in collapse_warning(now, START)


@pytest.mark.parametrize(("std", "rank"), [(1.0, 20.0), (0.011, 1.6), (50.0, 100.0)])
def test_what_still_differs_is_no_collapse(std, rank):
    assert collapse_warning({"embedding_std": std, "effective_rank": rank}, START) is None


def test_a_rank_that_was_small_from_the_start_is_no_collapse():
    few = {"embedding_std": 1.0, "effective_rank": 1.2}
    assert collapse_warning(few, few) is None
