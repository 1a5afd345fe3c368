import math

import pytest
import torch
import torch.distributed
from two_processes import in_both

from melpatch.nn.distillation import CentredTargets

CLASSES = 8  # 1 / 8 is exact in float32


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_softmax(logits):
    powers = [math.exp(logit) for logit in logits]
    return [power / sum(powers) for power in powers]


# Target


def target(classes=CLASSES, centre=None, **how):
    """Return centred targets in float64."""
    targets = CentredTargets(classes, **how).double()
    if centre is not None:
        targets.centre.copy_(centre)
    return targets


class SlowTarget:
    """Centred targets on plain lists, row by row."""

    def __init__(self, classes=CLASSES):
        self.buffers = [[0.0] * classes, [1 / classes] * classes, [1 / classes] * classes]
        self.updates = 0

    def distribution(self, row, temperature):
        return slow_softmax(
            [(x - c) / temperature for x, c in zip(row, self.buffers[0], strict=True)]
        )

    def update(self, rows, temperature):
        probabilities = [self.distribution(row, temperature) for row in rows]
        votes = [[float(share == max(row)) for share in row] for row in probabilities]
        self.updates += 1
        gauge = 1 / self.updates if self.updates < 10 else 0.1
        for buffer, values, rate in zip(
            self.buffers, (rows, probabilities, votes), (0.1, gauge, gauge), strict=True
        ):
            for number, column in enumerate(zip(*values, strict=True)):
                buffer[number] = (1 - rate) * buffer[number] + rate * sum(column) / len(column)


def assert_same(targets, slow):
    for buffer, values in zip(
        (targets.centre, targets.mean, targets.votes), slow.buffers, strict=True
    ):
        torch.testing.assert_close(
            buffer, torch.tensor(values, dtype=buffer.dtype), rtol=0, atol=1e-12
        )


def test_targets_are_centred_and_sharpened_with_their_entropy():
    logits = noise(2, 3, CLASSES)
    centre = noise(CLASSES, seed=1)
    probabilities, entropy = target(centre=centre).distribution(logits, 0.07, 0)
    for place in ((0, 0), (0, 2), (1, 1)):
        expected = slow_softmax(((logits[place] - centre) / 0.07).tolist())
        assert probabilities[place].tolist() == pytest.approx(expected, abs=1e-12)
        assert entropy[place].item() == pytest.approx(
            -sum(p * math.log(p) for p in expected if p), abs=1e-12
        )


def test_a_one_hot_target_has_an_entropy_of_zero():
    probabilities, entropy = target().distribution(torch.eye(CLASSES) * 1e4, 0.04, 0)
    assert torch.equal(probabilities, torch.eye(CLASSES))
    assert not entropy.any()


def test_targets_are_at_least_float32_and_carry_no_gradient():
    logits = noise(4, CLASSES).requires_grad_()
    assert target().distribution(logits, 0.1, 0)[0].dtype == torch.float64
    half = logits.bfloat16()
    for answer, exact in zip(
        CentredTargets(CLASSES).distribution(half, 0.1, 0),
        target().distribution(half.double(), 0.1, 0),
        strict=True,
    ):
        assert answer.dtype == torch.float32
        assert not answer.requires_grad
        torch.testing.assert_close(answer, exact.float())


def test_buffers_are_updated_once_per_step_with_the_mean_of_all_rows():
    targets = target()
    slow = SlowTarget()
    temperatures = [0.04, 0.05] + 11 * [0.07]
    for step, temperature in enumerate(temperatures):
        batches = [
            noise(rows, CLASSES, seed=10 * step + rows) + torch.arange(CLASSES)
            for rows in (1, 2, 6)
        ]
        # The targets of a step do not depend on the rows of that step.
        for batch in batches:
            probabilities, _ = targets.distribution(batch.view(-1, 1, CLASSES), temperature, step)
            expected = [slow.distribution(row, temperature) for row in batch.tolist()]
            torch.testing.assert_close(
                probabilities[:, 0], torch.tensor(expected, dtype=torch.float64)
            )
        targets.update(step)
        slow.update(torch.cat(batches).tolist(), temperature)
        assert_same(targets, slow)
    assert targets.centre.abs().max() > 0.5


def test_a_skipped_step_leaves_no_trace():
    targets = target()
    plain = target()
    targets.distribution(
        torch.full((3, CLASSES), math.nan, dtype=torch.float64), 0.04, 6
    )  # no update follows
    for module in (targets, plain):
        module.distribution(noise(4, CLASSES), 0.04, 7)
        module.update(7)
    assert targets.centre.any()
    for name, buffer in targets.named_buffers():
        assert torch.equal(buffer, plain.get_buffer(name))


def test_without_rows_the_buffers_stay():
    targets = target(centre=noise(CLASSES))
    before = {name: value.clone() for name, value in targets.state_dict().items()}
    targets.update(0)  # a step without any batch
    targets.distribution(noise(0, CLASSES), 0.04, 1)
    targets.update(1)
    targets.distribution(noise(4, CLASSES), 0.04, 2)  # a skipped step
    targets.update(3)
    targets.update(2)  # not used later either
    targets.eval().distribution(noise(4, CLASSES), 0.04, 4)
    assert targets.step_sums is None
    targets.update(4)
    assert all(torch.equal(value, before[name]) for name, value in targets.state_dict().items())


def test_rows_are_used_only_once():
    targets = target()
    targets.distribution(noise(4, CLASSES), 0.04, 0)
    targets.update(0)
    centre = targets.centre.clone()
    targets.update(0)
    assert torch.equal(targets.centre, centre)


def test_resumed_targets_continue_the_same():
    def steps(module, numbers):
        for step in numbers:
            module.distribution(noise(6, CLASSES, seed=step), 0.04, step)
            module.update(step)

    whole = target()
    first = target()
    second = target()
    steps(whole, range(6))
    steps(first, range(3))
    assert first.state_dict().keys() == {"centre", "mean", "votes", "updates"}
    second.load_state_dict(first.state_dict())
    steps(second, range(3, 6))
    for name, buffer in whole.named_buffers():
        assert torch.equal(buffer, second.get_buffer(name))


# Gauges


def gauges(logits):
    """Return the gauges after a single step."""
    targets = target(logits.shape[-1])
    targets.distribution(logits, 0.04, 0)
    targets.update(0)
    return {name: value.item() for name, value in targets.gauges().items()}


def test_collapse_to_one_class_has_a_divergence_of_ln_k():
    logits = torch.zeros(20, 8, dtype=torch.float64)
    logits[:, 3] = 100.0
    assert gauges(logits) == pytest.approx({"kl_uniform": math.log(8), "used": 1 / 8}, abs=1e-12)


def test_uniform_targets_have_a_divergence_of_zero():
    assert gauges(100 * torch.eye(8).double()) == pytest.approx({"kl_uniform": 0.0, "used": 1.0})
    assert {
        name: value.item() for name, value in CentredTargets(8192).gauges().items()
    } == pytest.approx({"kl_uniform": 0.0, "used": 1.0}, abs=1e-5)


def test_the_divergence_is_computed_on_the_mean_target():
    logits = 0.1 * noise(30, 8)
    probabilities = [slow_softmax((row / 0.04).tolist()) for row in logits]
    mean = [sum(column) / len(column) for column in zip(*probabilities, strict=True)]
    expected = sum(share * math.log(share * 8) for share in mean)
    assert gauges(logits)["kl_uniform"] == pytest.approx(expected, abs=1e-12)


def test_an_unused_class_shows_in_the_first_step():
    values = gauges(100 * torch.eye(4, dtype=torch.float64)[[0, 1, 2]])
    assert values == pytest.approx({"kl_uniform": math.log(4 / 3), "used": 3 / 4})


def test_early_gauges_weight_all_steps_equally():
    targets = target()
    means = []
    for step in range(10):
        probabilities, _ = targets.distribution(noise(1 + step % 3, CLASSES, seed=step), 0.5, step)
        means.append(probabilities.mean(dim=0))
        targets.update(step)
        torch.testing.assert_close(targets.mean, torch.stack(means).mean(dim=0), rtol=0, atol=1e-12)


def test_a_class_counts_as_used_until_its_votes_fade_below_a_hundredth_of_uniform():
    targets = target(4)
    logits = 100 * torch.eye(4, dtype=torch.float64)
    used = []
    for step in range(40):
        rows = logits if step == 0 else logits[:3]
        targets.distribution(
            rows + targets.centre, 0.04, step
        )  # the centre follows, the argmax stays
        targets.update(step)
        used.append(targets.gauges()["used"].item())
    assert used == [1.0] * 31 + [0.75] * 9  # a tenth after ten steps, and 0.1 * 0.9 ** 22 < 0.01


# Processes


ROWS = [((3, 5), (1, 1)), ((4, 2), (0, 0)), ((0, 2), (7, 0)), ((4,), ()), ((2, 3), ()), ((), ())]
"""Rows of the accumulated batches of each step on each process; some batches or steps are empty."""
STALE = 4
"""Step before which the second process sees rows of a step that is skipped."""


def logits_of(rank, step):
    """Return the batches of a process in a step."""
    return [
        noise(count, CLASSES, seed=100 * step + 10 * rank + part)
        for part, count in enumerate(ROWS[step][rank])
    ]


def process(rank, folder):
    """Return the buffers of a process after each step."""
    targets = target()
    states = []
    for step in range(len(ROWS)):
        if (rank, step) == (1, STALE):
            targets.distribution(
                torch.full((3, CLASSES), math.nan, dtype=torch.float64), 0.05, step - 1
            )
        for logits in logits_of(rank, step):
            targets.distribution(logits, 0.05, step)
        targets.update(step)
        states.append({name: value.clone() for name, value in targets.state_dict().items()})
    return states


def test_two_processes_equal_one_with_all_rows(tmp_path, monkeypatch):
    states = in_both(process, tmp_path, monkeypatch)
    alone = target()
    for step in range(len(ROWS)):
        for logits in logits_of(0, step) + logits_of(1, step):
            alone.distribution(logits, 0.05, step)
        alone.update(step)
        for name, value in alone.state_dict().items():
            assert torch.equal(states[0][step][name], states[1][step][name])
            torch.testing.assert_close(states[0][step][name], value, rtol=0, atol=1e-14)
