"""Batches of a step bring the loss and the gradient of one large batch."""

import torch

from melpatch.nn.projector import Projector
from melpatch.nn.whole_step import Rows, WholeStep, own_part, run_shared

COUNTS = (3, 0, 4, 1)


def loss_of_rows(views):
    """A loss of each row that depends on all rows."""
    return (views[:, 0] - views.mean(dim=(0, 1))).square().sum(dim=1)


def made(count, generator):
    return torch.randn(count, 2, 5, generator=generator, dtype=torch.float64)


def head():
    return Projector(5, hidden=(7,), out=3, last_norm="scale").double()


def test_batches_bring_the_loss_and_the_gradient_of_one_large_batch():
    generator = torch.Generator().manual_seed(0)
    inputs = [made(count, generator).requires_grad_() for count in COUNTS]
    keys = [torch.arange(count) for count in COUNTS]
    projector = head()

    whole = torch.cat([values.detach() for values in inputs]).requires_grad_()
    expected = loss_of_rows(projector(whole)).sum()
    expected.backward()
    weights = {name: weight.grad.clone() for name, weight in projector.named_parameters()}
    projector.zero_grad()

    step = WholeStep()
    own_rows = [Rows(*both) for both in zip(inputs, keys, strict=True)]
    step.prepare(own_rows)
    total = 0.0
    for own, count in zip(own_rows, COUNTS, strict=True):
        rows = step.join(own)
        assert len(rows.keys) == sum(COUNTS)
        outputs = run_shared(projector, rows.features, count / sum(COUNTS))
        part = own_part(loss_of_rows(outputs), count)
        if count:  # the loop gives a batch without clips no weight
            part.backward()
            total += part.item()

    torch.testing.assert_close(total, expected.item())
    gradient = torch.cat([values.grad for values in inputs if len(values)])
    torch.testing.assert_close(gradient, whole.grad)
    for name, weight in projector.named_parameters():
        torch.testing.assert_close(weight.grad, weights[name])


def test_a_single_batch_of_one_process_has_no_others():
    own = Rows(torch.ones(2, 2, 3), torch.arange(2))
    rows = WholeStep().join(own)
    assert torch.equal(rows.features, own.features)
    assert torch.equal(rows.keys, own.keys)


def test_rows_of_others_have_no_gradient_and_come_last():
    first = Rows(torch.ones(1, 2, 3, requires_grad=True), torch.tensor([4]))
    second = Rows(torch.zeros(2, 2, 3, requires_grad=True), torch.tensor([8, 9]))
    step = WholeStep()
    step.prepare([first, second])
    assert step.join(first).keys.tolist() == [4, 8, 9]
    rows = step.join(second)
    assert rows.keys.tolist() == [8, 9, 4]
    rows.features.sum().backward()
    assert first.features.grad is None
    assert second.features.grad is not None


def test_what_is_shared_has_the_value_of_the_head_itself():
    projector = head()
    values = made(6, torch.Generator().manual_seed(1))
    torch.testing.assert_close(run_shared(projector, values, 0.3), projector(values))
