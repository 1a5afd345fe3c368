import math
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import nn

from melpatch.errors import ConfigError
from melpatch.nn import distillation
from melpatch.nn.ema import default_momentum
from melpatch.nn.self_distillation import SelfDistillation

DIM = 6
BOTH = ("global", "local")
SMALL = {"hidden_dim": 10, "bottleneck_dim": 4}


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(names=BOTH, *, global_prototypes=9, local_prototypes=7, **settings):
    """Return heads in float64 with a teacher that differs from the student and non-zero centres."""
    config = SelfDistillation.Config(
        global_prototypes=global_prototypes,
        local_prototypes=local_prototypes,
        **(SMALL | {"momentum": 0.9} | settings),
    )
    torch.manual_seed(0)
    module = SelfDistillation(config, DIM, config.prototypes(names), config.shared).double()
    # Tiny layers with the published initialisation give nearly equal outputs.
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.5)
    for number, target in enumerate(module.targets.values()):
        target.centre.copy_(0.1 * noise(target.classes, seed=number))
    module.steps = 100
    return module.train()


def material(*shape):
    """Return student and teacher tokens."""
    return noise(*shape, DIM).requires_grad_(), noise(*shape, DIM, seed=1).requires_grad_()


def gradients(module):
    """Return the names of the parameters that have a gradient."""
    return {name for name, parameter in module.named_parameters() if parameter.grad is not None}


# Losses


def slow_pair(module, name, student, teacher, temperature):
    """Return cross-entropy and target entropy of one student token and its teacher token."""
    target = module.targets[name]
    answer = module.teacher.prototypes_for(name) @ module.teacher.project(teacher, name)
    probabilities = ((answer - target.centre) / temperature).softmax(dim=-1).tolist()
    log_probabilities = (
        (module.student.prototypes_for(name) @ module.student.project(student, name) / 0.1)
        .log_softmax(dim=-1)
        .tolist()
    )
    loss = -sum(p * q for p, q in zip(probabilities, log_probabilities, strict=True))
    return loss, -sum(p * math.log(p) for p in probabilities)


@pytest.mark.parametrize("name", BOTH)
def test_token_targets_are_the_teachers_at_the_same_place(name, monkeypatch):
    module = build()
    student_out, teacher_out = material(11)
    weights = noise(11, seed=2).abs()
    slow = [
        slow_pair(module, name, *pair, 0.055) for pair in zip(student_out, teacher_out, strict=True)
    ]  # half-way to 0.07
    monkeypatch.setattr(distillation, "_ELEMENTS", 4 * module.targets[name].classes)
    metrics = module.token_loss(name, student_out, teacher_out, weights, step=5)
    for key, column in ((name, 0), (f"{name}_entropy", 1)):
        expected = sum(
            weight * pair[column] for weight, pair in zip(weights.tolist(), slow, strict=True)
        )
        assert metrics[key].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("crops", [0, 3])
def test_view_targets_are_the_teachers_other_views(name, crops):
    module = build()
    student_out, _ = material(2 + crops, 3)
    _, teacher_out = material(2, 3)
    losses = []
    entropies = []
    for clip in range(3):
        for teacher in range(2):
            pairs = [
                slow_pair(module, name, view, teacher_out[teacher, clip], 0.07)
                for view in student_out[:, clip]
            ]
            losses += [loss for student, (loss, _) in enumerate(pairs) if student != teacher]
            entropies.append(pairs[0][1])
    metrics = module.view_loss(name, student_out, teacher_out, step=50)
    assert metrics[name].item() == pytest.approx(sum(losses) / len(losses), abs=1e-12)
    assert metrics[f"{name}_entropy"].item() == pytest.approx(
        sum(entropies) / len(entropies), abs=1e-12
    )


@pytest.mark.parametrize("name", BOTH)
def test_metrics_are_loss_share_of_ln_k_teacher_entropy_and_gauges(name):
    module = build()
    student_out, teacher_out = material(2, 3)
    for metrics in (
        module.view_loss(name, student_out, teacher_out, step=50),
        module.token_loss(name, student_out[0], teacher_out[0], torch.ones(3).double(), step=50),
    ):
        assert metrics.keys() == {
            name,
            *(f"{name}_{part}" for part in ("over_ln_k", "entropy", "kl_uniform", "used")),
        }
        share = metrics[name].item() / math.log(module.targets[name].classes)
        assert metrics[f"{name}_over_ln_k"].item() == pytest.approx(share)
        for gauge, value in module.targets[name].gauges().items():
            assert metrics[f"{name}_{gauge}"] == value


def test_logits_are_the_teachers_centred_logits():
    module = build()
    _, teacher_out = material(2, 3)
    logits = module.logits("local", teacher_out)
    slow = module.teacher.prototypes_for("local") @ module.teacher.project(
        teacher_out[1, 2], "local"
    )
    slow = slow - module.targets["local"].centre
    assert logits.shape == (2, 3, 7)
    torch.testing.assert_close(logits[1, 2], slow)


# Gradients


def backward(module, step):
    """Backpropagate both losses, and return student and teacher tokens."""
    student_out, teacher_out = material(5)
    cls, teacher_cls = material(2, 3)
    weights = torch.full((5,), 0.2, dtype=torch.float64)
    loss = module.token_loss("local", student_out, teacher_out, weights, step)["local"]
    (loss + module.view_loss("global", cls, teacher_cls, step)["global"]).backward()
    return (student_out, cls), (teacher_out, teacher_cls)


def test_no_gradient_reaches_the_teacher_or_its_tokens():
    module = build(freeze_prototypes=0.0)
    student_out, teacher_out = backward(module, 50)
    assert gradients(module) == {f"student.{name}" for name, _ in module.student.named_parameters()}
    assert not any(parameter.requires_grad for parameter in module.teacher.parameters())
    assert all(tokens.grad is None for tokens in teacher_out)
    assert all(tokens.grad.any() for tokens in student_out)


@pytest.mark.parametrize("train_gain", [True, False])
@pytest.mark.parametrize("shared", ["trunk", "none", "all"])
def test_only_prototypes_are_frozen_in_the_first_share_of_the_run(shared, train_gain):
    module = build(local_prototypes=9, shared=shared, train_gain=train_gain, freeze_prototypes=0.25)
    everything = {f"student.{name}" for name, _ in module.student.named_parameters()}
    trunks = {name for name in everything if "trunks" in name}
    assert trunks < everything
    for step, expected in ((0, trunks), (24, trunks), (25, everything), (99, everything)):
        module.zero_grad(set_to_none=True)
        backward(module, step)
        assert gradients(module) == expected


def test_freezing_does_not_change_the_loss():
    values = []
    for freeze in (0.0, 1.0):
        module = build(freeze_prototypes=freeze)
        student_out, teacher_out = material(5)
        values.append(
            module.token_loss("local", student_out, teacher_out, torch.ones(5).double(), step=9)[
                "local"
            ].item()
        )
    assert values[0] == values[1]


def test_there_may_be_no_tokens():
    module = build()
    student_out, teacher_out = material(0)
    metrics = module.token_loss("local", student_out, teacher_out, noise(0), step=50)
    metrics["local"].backward()
    assert metrics["local"] == metrics["local_entropy"] == 0.0
    before = module.targets["local"].centre.clone()
    module.after_step(50)
    assert torch.equal(module.targets["local"].centre, before)


def in_float32(module, autocast):
    """Return metrics and gradients of tokens and parameters, with or without bf16 autocast."""
    module.zero_grad()
    student_out, cls = (noise(*shape, DIM).float().requires_grad_() for shape in ((5,), (2, 3)))
    teacher_out, teacher_cls = (noise(*shape, DIM, seed=1).float() for shape in ((5,), (2, 3)))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        metrics = module.token_loss("local", student_out, teacher_out, torch.full((5,), 0.2), 50)
        metrics |= module.view_loss("global", cls, teacher_cls, 50)
    (metrics["local"] + metrics["global"]).backward()
    return metrics, [
        value.grad.clone() for value in (student_out, cls, *module.student.parameters())
    ]


def assert_near(value, expected, share):
    assert (value - expected).norm() < share * expected.norm()


def test_bf16_autocast_is_close():
    module = build().float()
    (exact, expected), (near, gradients) = (
        in_float32(module, autocast) for autocast in (False, True)
    )
    gradient = torch.cat([part.flatten() for part in gradients])
    expected_gradient = torch.cat([part.flatten() for part in expected])
    assert not torch.equal(gradient, expected_gradient)  # it really is bf16
    assert_near(gradient, expected_gradient, 0.05)
    for name in BOTH:
        torch.testing.assert_close(near[name], exact[name], rtol=0.02, atol=0)


def test_after_the_trunk_everything_is_float32_under_autocast():
    module = build(bottleneck_dim=DIM).float()
    for heads in (module.student, module.teacher):
        heads.trunks["shared"] = nn.Identity()  # the same vectors in both precisions
    (exact, expected), (near, gradients) = (
        in_float32(module, autocast) for autocast in (False, True)
    )
    for name, value in near.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[name], rtol=1e-5, atol=1e-6)
    for gradient, expected_gradient in zip(gradients, expected, strict=True):
        assert_near(gradient, expected_gradient, 1e-3)


# In the course of a run


def test_the_temperature_rises_to_its_final_value_and_stays():
    module = build(teacher_temperature=(0.02, 0.06), temperature_warmup=0.2)
    temperatures = [module.temperature(step) for step in (0, 5, 10, 20, 60, 99)]
    assert temperatures == pytest.approx([0.02, 0.03, 0.04, 0.06, 0.06, 0.06])
    assert build(teacher_temperature=(0.02, 0.06), temperature_warmup=0.0).temperature(0) == 0.06


def test_the_momentum_rises_to_one_along_half_a_cosine():
    module = build(momentum=0.6)
    module.begin(steps=100, batch_size=4)
    momenta = [module.momentum_at(step) for step in (0, 25, 50, 75, 100)]
    half = math.cos(math.pi / 4)
    assert momenta == pytest.approx([0.6, 1 - 0.2 * (1 + half), 0.8, 1 - 0.2 * (1 - half), 1.0])


def test_a_momentum_of_zero_is_not_the_default():
    module = build(momentum=0.0)
    module.begin(steps=100, batch_size=4)
    assert module.momentum_at(0) == 0.0


def test_the_teacher_starts_as_a_copy_of_the_student():
    module = build()
    with torch.no_grad():
        for parameter in module.student.parameters():
            parameter.add_(1.0)
    module.begin(steps=10, batch_size=4)
    teacher = module.teacher.state_dict()
    student = module.student.state_dict()
    assert all(torch.equal(teacher[name], value) for name, value in student.items())
    assert not {id(p) for p in module.teacher.parameters()} & {
        id(p) for p in module.student.parameters()
    }
    assert module.steps == 10


def test_the_default_momentum_is_reported_once(capsys):
    module = build(momentum=None)
    module.begin(steps=2000, batch_size=48)
    notices = capsys.readouterr().err
    assert notices.count("\n") == 1
    assert "momentum starts at 0.99000, for 2000 steps of 48 clips" in notices
    assert module.momentum_at(0) == pytest.approx(default_momentum(48, 2000))
    build(momentum=0.9).begin(steps=2000, batch_size=48)
    assert capsys.readouterr().err == ""


def test_after_a_step_teacher_and_centres_are_updated():
    module = build()
    module.begin(steps=100, batch_size=4)
    before = [p.clone() for p in module.teacher.parameters()]
    with torch.no_grad():
        for parameter in module.student.parameters():
            parameter.add_(torch.ones_like(parameter))
    centres = {name: target.centre.clone() for name, target in module.targets.items()}
    (_, (teacher_out, teacher_cls)) = backward(module, 30)
    answers = {"local": (teacher_out, 5), "global": (teacher_cls, 6)}
    expected = {}
    for name, (tokens, rows) in answers.items():
        logits = F.linear(
            module.teacher.project(tokens, name), module.teacher.prototypes_for(name)
        ).reshape(rows, -1)
        expected[name] = 0.9 * centres[name] + 0.1 * logits.mean(dim=0)
    module.after_step(30)
    momentum = module.momentum_at(30)
    assert 0.9 < momentum < 1.0
    followed = zip(module.teacher.parameters(), before, module.student.parameters(), strict=True)
    for teacher, old, student in followed:
        torch.testing.assert_close(
            teacher.data, momentum * old + (1 - momentum) * student.detach(), rtol=0, atol=1e-12
        )
    for name, target in module.targets.items():
        torch.testing.assert_close(target.centre, expected[name].detach(), rtol=0, atol=1e-12)


def train(module, steps):
    """Take this many steps of gradient descent."""
    for step in steps:
        module.zero_grad()
        backward(module, step)
        with torch.no_grad():
            for parameter in module.student.parameters():
                parameter -= 0 if parameter.grad is None else 0.1 * parameter.grad
        module.after_step(step)


def test_a_resumed_run_continues_the_same():
    whole = build()
    first = build()
    second = build()
    for module in (whole, first):
        module.begin(steps=6, batch_size=4)
    train(whole, range(6))
    train(first, range(3))
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.zero_()
    second.begin(steps=6, batch_size=4)
    second.load_state_dict(load(save(first.state_dict())))
    train(second, range(3, 6))
    resumed = second.state_dict()
    assert all(torch.equal(resumed[name], value) for name, value in whole.state_dict().items())


def test_evaluation_updates_nothing_and_the_teacher_is_always_in_evaluation_mode():
    module = build()
    assert not any(layer.training for layer in module.teacher.modules())
    assert all(
        layer.training for layer in chain(module.student.modules(), module.targets.modules())
    )
    module.eval()
    before = {name: value.clone() for name, value in module.targets.state_dict().items()}
    backward(module, 0)
    for target in module.targets.values():
        target.update(0)
    assert all(
        torch.equal(value, before[name]) for name, value in module.targets.state_dict().items()
    )


# Sharing


@pytest.mark.parametrize("train_gain", [True, False])
@pytest.mark.parametrize("shared", ["trunk", "none", "all"])
@pytest.mark.parametrize("names", [BOTH, ("global",), ("local",)])
def test_every_way_of_sharing_can_be_saved_and_trains_all_parameters(names, shared, train_gain):
    module = build(
        names, local_prototypes=9, shared=shared, train_gain=train_gain, freeze_prototypes=0.0
    )
    state = module.state_dict()
    restored = load(save(state))  # safetensors refuses tensors that share memory
    assert restored.keys() == state.keys()
    assert {name.split(".")[1] for name in state if name.startswith("targets")} == set(names)
    student_out, teacher_out = material(2, 3)
    loss = sum(module.view_loss(name, student_out, teacher_out, 50)[name] for name in names)
    loss.backward()
    assert gradients(module) == {f"student.{name}" for name, _ in module.student.named_parameters()}


def test_each_head_has_its_own_number_of_classes_and_its_own_centre():
    module = build()
    assert {name: target.centre.shape for name, target in module.targets.items()} == {
        "global": (9,),
        "local": (7,),
    }
    shared = build(local_prototypes=9, shared="all")
    assert shared.targets["global"] is not shared.targets["local"]


# Wrong settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"global_prototypes": 1}, "global_prototypes = 1; allowed: 2 or more"),
        ({"local_prototypes": 0}, "local_prototypes = 0; allowed: 2 or more"),
        ({"shared": "all"}, "local_prototypes = 1024; allowed: 8192 as global_prototypes"),
        ({"hidden_dim": 0}, "hidden_dim = 0; allowed: 1 or more"),
        ({"bottleneck_dim": -1}, "bottleneck_dim = -1; allowed: 1 or more"),
        ({"freeze_prototypes": 1.01}, "freeze_prototypes = 1.01; allowed: 0 to 1"),
        ({"temperature_warmup": -0.1}, "temperature_warmup = -0.1; allowed: 0 to 1"),
        ({"temperature_warmup": math.nan}, "temperature_warmup = nan; allowed: 0 to 1"),
        ({"teacher_temperature": (0.0, 0.07)}, "0 < start <= end < student_temperature = 0.1"),
        ({"teacher_temperature": (0.07, 0.04)}, "0 < start <= end < student_temperature = 0.1"),
        (
            {"teacher_temperature": (0.04, 0.1)},
            "teacher_temperature = (0.04, 0.1); allowed: 0 < start",
        ),
        ({"student_temperature": 0.05}, "0 < start <= end < student_temperature = 0.05"),
        ({"student_temperature": math.nan}, "student_temperature = nan"),
        ({"momentum": 1.0}, "momentum = 1.0; allowed: 0 to below 1, or none"),
        ({"momentum": -0.1}, "momentum = -0.1; allowed: 0 to below 1, or none"),
    ],
)
def test_the_error_for_a_wrong_setting_lists_what_is_allowed(settings, message):
    with pytest.raises(ConfigError) as refused:
        SelfDistillation.Config(**settings)
    assert message in str(refused.value)


def test_settings_at_their_limits_are_allowed():
    SelfDistillation.Config(
        **{
            "global_prototypes": 2,
            "local_prototypes": 2,
            "shared": "all",
            "hidden_dim": 1,
            "bottleneck_dim": 1,
            "freeze_prototypes": 1.0,
        },
        **{"temperature_warmup": 1.0, "teacher_temperature": (0.099, 0.099), "momentum": 0.0},
    )
