"""Warnings of a collapse of self-distillation."""

import math

import pytest
import torch
from torch import nn

from melpatch.nn.self_distillation import SelfDistillation

DIM = 6
BOTH = ("global", "local")
LOG_GLOBAL = math.log(8192)
LOG_LOCAL = math.log(1024)


def of_size(names=BOTH, **settings):
    """Return heads with the published number of classes in a run of 100 steps."""
    config = SelfDistillation.Config(hidden_dim=4, bottleneck_dim=2, momentum=0.996, **settings)
    module = SelfDistillation(config, DIM, config.prototypes(names), config.shared)
    module.steps = 100
    return module


HEALTHY = {
    "global": 8.5,
    "global_entropy": 6.0,
    "global_kl_uniform": 2.0,
    "local": 6.2,
    "local_entropy": 4.0,
    "local_kl_uniform": 1.0,
}


@pytest.mark.parametrize(
    "metrics",
    [
        HEALTHY,
        {"loss": 3.0},
        HEALTHY | {"global": LOG_GLOBAL - 0.1, "local": LOG_LOCAL - 0.08},
        HEALTHY | {"global": 0.2, "local": 0.1},
        HEALTHY | {"global_kl_uniform": 0.89 * LOG_GLOBAL, "local_entropy": 0.021 * LOG_LOCAL},
        HEALTHY | {"global_used": 1 / 8192},
    ],
)
def test_a_healthy_run_gives_no_warning(metrics):
    assert of_size().warning(metrics, 10) is None


COLLAPSES = pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"global": 9.0}, ["global loss sits at ln K = 9.01", "lower teacher-temperature"]),
        (
            {"local": 0.991 * LOG_LOCAL},
            ["local loss sits at ln K = 6.93", "lower teacher-temperature"],
        ),
        (
            {"local": 1.5 * LOG_LOCAL},
            ["local loss sits at ln K = 6.93", "lower teacher-temperature"],
        ),
        (
            {"global_kl_uniform": 8.2},
            ["global teacher assigns nearly everything to one prototype", "--lr-warmup", "--lr"],
        ),
        (
            {"local_kl_uniform": 6.3},
            ["local teacher assigns nearly everything to one prototype", "--lr-warmup", "--lr"],
        ),
        (
            {"global_entropy": 0.019 * LOG_GLOBAL},
            ["global teacher is certain of everything", "temperature-warmup"],
        ),
        ({"local_entropy": 0.0}, ["local teacher is certain of everything", "temperature-warmup"]),
    ],
)


@COLLAPSES
def test_a_collapse_is_reported_with_a_remedy(change, words):
    warned = of_size().warning(HEALTHY | change, 10)
    for word in ["collapse: the ", *words, "momentum (now 0.9960)", "--objective.distillation"]:
        assert word in warned
    assert "\n" not in warned


@COLLAPSES
def test_there_is_no_warning_while_the_temperature_rises(change, words):
    module = of_size(temperature_warmup=0.5)
    assert module.warning(HEALTHY | change, 0) is None
    assert module.warning(HEALTHY | change, 49) is None
    assert words[0] in module.warning(HEALTHY | change, 50)


@COLLAPSES
def test_there_is_no_warning_before_the_centres_are_known(change, words):
    """Random heads without a centre are above ln K at the first step, and well below at the next."""
    module = of_size(temperature_warmup=0.0)
    assert [module.warning(HEALTHY | change, step) for step in range(10)] == [None] * 10
    assert words[0] in module.warning(HEALTHY | change, 10)


def test_an_unused_head_gives_no_warning():
    assert of_size(("local",)).warning(HEALTHY | {"global": 9.0}, 10) is None


@torch.no_grad()
def one_class(module):
    """Make teacher and student predict one class for everything, as if centring had failed."""
    module.targets["local"].centre.copy_(-100.0 * torch.eye(64)[3])
    last = module.student.trunks["shared"][-1]
    last.weight.zero_()
    last.bias.copy_(module.student.prototypes_for("local")[3])


@torch.no_grad()
def one_prototype(module):
    """Make all classes equally likely."""
    for heads in (module.student, module.teacher):
        heads.prototypes["local"].direction.fill_(1.0)


@pytest.mark.parametrize(
    ("collapse", "words"),
    [
        (lambda module: None, None),
        (one_class, "nearly everything to one prototype"),
        (one_prototype, "ln K = 4.16"),
    ],
)
def test_a_fresh_model_gives_no_warning_and_a_collapsed_one_does(collapse, words):
    torch.manual_seed(0)
    config = SelfDistillation.Config(
        local_prototypes=64, hidden_dim=10, bottleneck_dim=4, momentum=0.9
    )
    module = SelfDistillation(config, DIM, config.prototypes(("local",)), config.shared).train()
    tokens = torch.randn(40, DIM)
    for layer in (
        module.student.trunks.modules()
    ):  # with the published initialisation, layers this narrow map all tokens to one
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight)
    module.begin(steps=100, batch_size=4)
    for step in (10, 11):  # after the warm-up; the second step reads the gauges of the first
        collapse(module)
        metrics = module.token_loss("local", tokens, tokens, torch.full((40,), 1 / 40), step)
        module.targets["local"].update(step)
    warned = module.warning({name: value.item() for name, value in metrics.items()}, step)
    assert warned is None if words is None else words in warned
