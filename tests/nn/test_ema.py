import math

import pytest
import torch
from torch import nn

from melpatch.errors import ConfigError
from melpatch.nn.ema import Momentum, default_momentum, ema_update, frozen_copy


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(3, 4), nn.Dropout(0.5), nn.LayerNorm(4), nn.Linear(4, 2)
    ).double()


def test_a_frozen_copy_is_equal_and_independent():
    student = network(0)
    teacher = frozen_copy(student)
    x = torch.randn(5, 3, dtype=torch.float64)
    assert torch.equal(teacher(x), student.eval()(x))
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    before = teacher(x)
    with torch.no_grad():
        student[0].weight.add_(1.0)
    assert torch.equal(teacher(x), before)


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.996, 1.0])
def test_the_teacher_is_a_running_mean_of_the_student(momentum):
    teacher = frozen_copy(network(0))
    students = [network(seed) for seed in (1, 2, 3)]
    expected = [p.tolist() for p in teacher.parameters()]

    def blend(old, new):
        if isinstance(old, list):
            return [blend(*pair) for pair in zip(old, new, strict=True)]
        return momentum * old + (1 - momentum) * new

    for student in students:
        copy = [p.tolist() for p in student.parameters()]
        ema_update(teacher, student, momentum)
        expected = blend(expected, copy)
        assert [p.tolist() for p in student.parameters()] == copy
    for parameter, values in zip(teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(
            parameter.data, torch.tensor(values, dtype=torch.float64), rtol=0, atol=1e-14
        )
        assert not parameter.requires_grad


def test_the_teacher_has_the_statistics_of_the_student():
    student = nn.BatchNorm1d(3)
    teacher = frozen_copy(student)
    student(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)) + 5)
    ema_update(teacher, student, 0.9)
    for name, value in student.named_buffers():
        assert torch.equal(teacher.get_buffer(name), value), name
    assert teacher.running_mean.data_ptr() != student.running_mean.data_ptr()


@pytest.mark.parametrize(
    ("batch_size", "steps", "remembered"),
    [
        (1024, 1_000_000, 250),  # DINO's 0.996
        (256, 1_000_000, 1000),
        (48, 1_000_000, 256_000 / 48),
        (48, 2000, 100),  # a twentieth of a short run
        (1024, 4000, 200),
        (1024, 100, 5),
        (48, 10, 2),  # at least two steps
    ],
)
def test_the_default_teacher_averages_a_number_of_clips_or_a_twentieth_of_the_run(
    batch_size, steps, remembered
):
    momentum = default_momentum(batch_size, steps)
    assert 0.5 <= momentum < 1
    assert math.isclose(1 / (1 - momentum), remembered, rel_tol=1e-9)


def test_the_default_momentum_is_the_published_one_at_the_published_batch():
    assert default_momentum(1024, 100_000) == pytest.approx(0.996, abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"start": 0.9}, [0.9, 0.9, 0.9]),
        ({"start": 0.9, "end": 1.0}, [0.9, 0.95, 1.0]),
        ({"start": 0.9, "end": 1.0, "share": 0.5}, [0.9, 1.0, 1.0]),
        ({"start": 0.9, "end": 1.0, "curve": "cosine"}, [0.9, 0.95, 1.0]),
        ({}, [default_momentum(8, 40)] * 3),
    ],
)
def test_momentum_over_a_run(settings, expected):
    momentum = Momentum(**settings).over(batch_size=8, steps=40)
    assert [momentum(step) for step in (0, 20, 40)] == pytest.approx(expected)


def test_a_cosine_starts_flat():
    line, wave = (
        Momentum(start=0.9, end=1.0, curve=curve).over(8, 40) for curve in ("linear", "cosine")
    )
    assert wave(4) < line(4)
    assert wave(36) > line(36)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": 1.5}, r"start = 1\.5; allowed: from 0 to 1"),
        ({"end": 0.9}, r"end = 0\.9; allowed: none without start"),
        ({"start": 0.9, "share": 0.0}, r"share = 0\.0; allowed: above 0"),
    ],
)
def test_momentum_out_of_range_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Momentum(**settings)
