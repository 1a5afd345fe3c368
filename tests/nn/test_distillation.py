import math

import pytest
import torch
import torch.distributed
from two_processes import in_both

from melpatch.nn.distillation import CentredTargets

CLASSES = 8  # float32 has an eighth exactly


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_softmax(logits):
    powers = [math.exp(logit) for logit in logits]
    return [power / sum(powers) for power in powers]


# ---------------------------------------------------------------------------------------------------------- the target


def target(classes=CLASSES, centre=None, **how):
    """Return a target in float64."""
    made = CentredTargets(classes, **how).double()
    if centre is not None:
        made.centre.copy_(centre)
    return made


class SlowTarget:
    """The running means of plain lists, a row at a time."""

    def __init__(self, classes=CLASSES):
        self.buffers, self.updates = (
            [[0.0] * classes, [1 / classes] * classes, [1 / classes] * classes],
            0,
        )

    def distribution(self, row, temperature):
        return slow_softmax(
            [(x - c) / temperature for x, c in zip(row, self.buffers[0], strict=True)]
        )

    def update(self, rows, temperature):
        told = [self.distribution(row, temperature) for row in rows]
        votes = [[float(share == max(one)) for share in one] for one in told]
        self.updates += 1
        gauge = 1 / self.updates if self.updates < 10 else 0.1
        for buffer, values, rate in zip(
            self.buffers, (rows, told, votes), (0.1, gauge, gauge), strict=True
        ):
            for number, column in enumerate(zip(*values, strict=True)):
                buffer[number] = (1 - rate) * buffer[number] + rate * sum(column) / len(column)


def assert_same(made, slow):
    for buffer, values in zip((made.centre, made.mean, made.votes), slow.buffers, strict=True):
        torch.testing.assert_close(
            buffer, torch.tensor(values, dtype=buffer.dtype), rtol=0, atol=1e-12
        )


def test_the_distribution_is_centred_and_sharpened_and_has_that_entropy():
    logits, centre = noise(2, 3, CLASSES), noise(CLASSES, seed=1)
    probabilities, entropy = target(centre=centre).distribution(logits, 0.07, 0)
    for place in ((0, 0), (0, 2), (1, 1)):
        expected = slow_softmax(((logits[place] - centre) / 0.07).tolist())
        assert probabilities[place].tolist() == pytest.approx(expected, abs=1e-12)
        assert entropy[place].item() == pytest.approx(
            -sum(p * math.log(p) for p in expected if p), abs=1e-12
        )


def test_a_distribution_without_doubt_has_an_entropy_of_zero():
    probabilities, entropy = target().distribution(torch.eye(CLASSES) * 1e4, 0.04, 0)
    assert torch.equal(probabilities, torch.eye(CLASSES))
    assert not entropy.any()


def test_the_distribution_is_float32_at_least_and_out_of_the_gradients_reach():
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


def test_the_buffers_move_once_per_step_by_the_mean_of_all_accumulated_rows():
    made, slow = target(), SlowTarget()
    temperatures = [0.04, 0.05] + 11 * [0.07]
    for step, temperature in enumerate(temperatures):
        batches = [
            noise(rows, CLASSES, seed=10 * step + rows) + torch.arange(CLASSES)
            for rows in (1, 2, 6)
        ]
        for batch in batches:  # after use: what is said within a step does not depend on it
            probabilities, _ = made.distribution(batch.view(-1, 1, CLASSES), temperature, step)
            expected = [slow.distribution(row, temperature) for row in batch.tolist()]
            torch.testing.assert_close(
                probabilities[:, 0], torch.tensor(expected, dtype=torch.float64)
            )
        made.update(step)
        slow.update(torch.cat(batches).tolist(), temperature)
        assert_same(made, slow)
    assert made.centre.abs().max() > 0.5


def test_a_skipped_step_leaves_nothing():
    made, plain = target(), target()
    made.distribution(
        torch.full((3, CLASSES), math.nan, dtype=torch.float64), 0.04, 6
    )  # and no update
    for one in (made, plain):
        one.distribution(noise(4, CLASSES), 0.04, 7)
        one.update(7)
    assert made.centre.any()
    for name, buffer in made.named_buffers():
        assert torch.equal(buffer, plain.get_buffer(name))


def test_without_rows_nothing_moves():
    made = target(centre=noise(CLASSES))
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made.update(0)  # a step without any batch
    made.distribution(noise(0, CLASSES), 0.04, 1)
    made.update(1)
    made.distribution(noise(4, CLASSES), 0.04, 2)  # a step that was skipped
    made.update(3)
    made.update(2)  # and is not taken up later
    made.eval().distribution(noise(4, CLASSES), 0.04, 4)
    assert made.step_sums is None
    made.update(4)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_rows_are_used_once():
    made = target()
    made.distribution(noise(4, CLASSES), 0.04, 0)
    made.update(0)
    centre = made.centre.clone()
    made.update(0)
    assert torch.equal(made.centre, centre)


def test_a_resumed_target_goes_on_the_same():
    def steps(one, numbers):
        for step in numbers:
            one.distribution(noise(6, CLASSES, seed=step), 0.04, step)
            one.update(step)

    whole, first, second = target(), target(), target()
    steps(whole, range(6))
    steps(first, range(3))
    assert first.state_dict().keys() == {"centre", "mean", "votes", "updates"}
    second.load_state_dict(first.state_dict())
    steps(second, range(3, 6))
    for name, buffer in whole.named_buffers():
        assert torch.equal(buffer, second.get_buffer(name))


# ---------------------------------------------------------------------------------------------------------- the gauges


def gauges(logits):
    """Return those of a single step."""
    made = target(logits.shape[-1])
    made.distribution(logits, 0.04, 0)
    made.update(0)
    return {name: value.item() for name, value in made.gauges().items()}


def test_one_class_for_everything_is_a_divergence_of_ln_k():
    logits = torch.zeros(20, 8, dtype=torch.float64)
    logits[:, 3] = 100.0
    assert gauges(logits) == pytest.approx({"kl_uniform": math.log(8), "used": 1 / 8}, abs=1e-12)


def test_all_classes_alike_are_a_divergence_of_zero():
    assert gauges(100 * torch.eye(8).double()) == pytest.approx({"kl_uniform": 0.0, "used": 1.0})
    assert {
        name: value.item() for name, value in CentredTargets(8192).gauges().items()
    } == pytest.approx({"kl_uniform": 0.0, "used": 1.0}, abs=1e-5)


def test_the_divergence_is_that_of_the_mean_distribution():
    logits = 0.1 * noise(30, 8)
    told = [slow_softmax((row / 0.04).tolist()) for row in logits]
    mean = [sum(column) / len(column) for column in zip(*told, strict=True)]
    expected = sum(share * math.log(share * 8) for share in mean)
    assert gauges(logits)["kl_uniform"] == pytest.approx(expected, abs=1e-12)


def test_a_dead_class_is_seen_in_the_first_step():
    found = gauges(100 * torch.eye(4, dtype=torch.float64)[[0, 1, 2]])
    assert found == pytest.approx({"kl_uniform": math.log(4 / 3), "used": 3 / 4})


def test_the_gauges_are_of_all_steps_alike_at_first_whatever_their_rows():
    made, told = target(), []
    for step in range(10):
        probabilities, _ = made.distribution(noise(1 + step % 3, CLASSES, seed=step), 0.5, step)
        told.append(probabilities.mean(dim=0))
        made.update(step)
        torch.testing.assert_close(made.mean, torch.stack(told).mean(dim=0), rtol=0, atol=1e-12)


def test_a_class_counts_as_used_until_its_votes_have_faded_to_a_hundredth_of_an_even_share():
    made, logits = target(4), 100 * torch.eye(4, dtype=torch.float64)
    used = []
    for step in range(40):
        rows = logits if step == 0 else logits[:3]
        made.distribution(
            rows + made.centre, 0.04, step
        )  # the centre follows; the first choices stay
        made.update(step)
        used.append(made.gauges()["used"].item())
    assert used == [1.0] * 31 + [0.75] * 9  # a tenth after ten steps, and 0.1 * 0.9 ** 22 < 0.01


# --------------------------------------------------------------------------------------------------------- processes


ROWS = [((3, 5), (1, 1)), ((4, 2), (0, 0)), ((0, 2), (7, 0)), ((4,), ()), ((2, 3), ()), ((), ())]
"""Rows of the accumulated batches of each step, on either process: some batches have none, some steps no batch."""
STALE = 4
"""Step before which the second process sees rows of a step that is skipped."""


def logits_of(rank, step):
    """Return what a process sees in the batches of a step."""
    return [
        noise(count, CLASSES, seed=100 * step + 10 * rank + part)
        for part, count in enumerate(ROWS[step][rank])
    ]


def process(rank, folder):
    """Be one of two: leave the buffers after each step."""
    made, states = target(), []
    for step in range(len(ROWS)):
        if (rank, step) == (1, STALE):
            made.distribution(
                torch.full((3, CLASSES), math.nan, dtype=torch.float64), 0.05, step - 1
            )
        for logits in logits_of(rank, step):
            made.distribution(logits, 0.05, step)
        made.update(step)
        states.append({name: value.clone() for name, value in made.state_dict().items()})
    return states


def test_two_processes_move_as_one_that_sees_all_rows(tmp_path, monkeypatch):
    states, alone = in_both(process, tmp_path, monkeypatch), target()
    for step in range(len(ROWS)):
        for logits in logits_of(0, step) + logits_of(1, step):
            alone.distribution(logits, 0.05, step)
        alone.update(step)
        for name, value in alone.state_dict().items():
            assert torch.equal(states[0][step][name], states[1][step][name])
            torch.testing.assert_close(states[0][step][name], value, rtol=0, atol=1e-14)
