"""Soft labels: against torch's divergences, and no loss where both agree."""

import pytest
import torch
import torch.nn.functional as F

from melpatch.nn.soft_labels import agreement, soft_label_losses


def logits(seed, clips=4, labels=5):
    return 3 * torch.randn(clips, labels, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_one_label_is_the_divergence_of_the_softened_distributions(temperature):
    student, teacher = logits(0), logits(1)
    losses = soft_label_losses(student, teacher, temperature, several=False)
    for clip in range(4):
        expected = F.kl_div(
            (student[clip] / temperature).log_softmax(0),
            (teacher[clip] / temperature).softmax(0),
            reduction="sum",
        )
        torch.testing.assert_close(losses[clip], temperature**2 * expected)


def test_several_labels_are_divergences_of_a_coin_each():
    student, teacher = logits(0), logits(1)
    losses = soft_label_losses(student, teacher, 2.0, several=True)
    yes, guess = (teacher / 2).sigmoid(), (student / 2).sigmoid()
    entropy = F.binary_cross_entropy(yes, yes, reduction="none")
    expected = F.binary_cross_entropy(guess, yes, reduction="none") - entropy
    torch.testing.assert_close(losses, 4 * expected.mean(dim=1))


@pytest.mark.parametrize("several", [False, True])
def test_equal_logits_cost_nothing_and_huge_ones_are_no_nan(several):
    same = logits(0)
    torch.testing.assert_close(soft_label_losses(same, same, 2.0, several), torch.zeros(4).double())
    huge = soft_label_losses(1e4 * same.float(), -1e4 * same.float(), 1.0, several)
    assert huge.isfinite().all()


def test_agreement_is_of_the_best_label_or_of_each():
    student = torch.tensor([[2.0, 1.0], [-1.0, 3.0]])
    teacher = torch.tensor([[1.0, -2.0], [2.0, -3.0]])
    assert agreement(student, teacher, several=False).tolist() == [1.0, 0.0]
    assert agreement(student, teacher, several=True).tolist() == [0.5, 0.0]
