import pytest
import torch

from melpatch.nn.cross_correlation import cross_correlation, cross_correlation_loss


def made(rows, dim):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 2, dim, generator=generator, dtype=torch.float64)


def test_it_is_the_correlation_of_each_pair_of_outputs():
    views = made(40, 3)
    both = torch.corrcoef(torch.cat([views[:, 0], views[:, 1]], dim=1).T)
    torch.testing.assert_close(cross_correlation(views), both[:3, 3:], atol=1e-4, rtol=0)


def test_the_terms_are_those_of_the_equation():
    views = made(9, 4)
    correlation = cross_correlation(views)
    invariance = sum(float(1 - correlation[i, i]) ** 2 for i in range(4))
    redundancy = sum(float(correlation[i, j]) ** 2 for i in range(4) for j in range(4) if i != j)
    terms = cross_correlation_loss(views)
    assert [float(term) for term in terms] == pytest.approx([invariance, redundancy])


def test_random_and_equal_views_cost_what_they_must():
    """256 outputs of 128 clips: diagonal near 260 and rest near 515; of equal views 0 and 510."""
    views = made(128, 256)
    invariance, redundancy = cross_correlation_loss(views)
    assert float(invariance) == pytest.approx(260, rel=0.05)
    assert float(redundancy) == pytest.approx(515, rel=0.05)
    views[:, 1] = views[:, 0]
    invariance, redundancy = cross_correlation_loss(views)
    assert float(invariance) == pytest.approx(0, abs=1e-5)
    assert float(redundancy) == pytest.approx(510, rel=0.05)


def test_no_clips_are_no_error():
    views = made(0, 4).requires_grad_()
    sum(cross_correlation_loss(views)).backward()
    assert views.grad.isfinite().all()
