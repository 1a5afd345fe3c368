"""MATPAC and MATPAC++, which are settings of M2D: their losses against a loop over tokens."""

import math

import pytest
import torch
from objectives.tiny_asit import LONGEST, batch
from objectives.tiny_masked import masked

from melpatch.errors import ConfigError
from melpatch.nn.distillation_settings import Classification
from melpatch.nn.hypotheses import Hypotheses
from melpatch.objectives.base import Plan
from melpatch.objectives.m2d import M2D

PLAN = Plan(steps=100, batch_size=4, seconds=LONGEST, longest_segment=LONGEST)
HEADS = {"weight": 0.25, "prototypes": 6, "hidden_dim": 16, "bottleneck_dim": 8, "momentum": 0.9}


def matpac(count=1, share=0.5, **heads):
    settings = {
        "standardise": False,
        "classification": Classification(**HEADS | heads),
        "hypotheses": Hypotheses(count=count, share=share),
    }
    objective = masked(M2D, **settings)
    objective.steps = PLAN.steps
    if objective.distillation is not None:
        objective.distillation.steps = PLAN.steps
        objective.distillation.targets["class"].centre.copy_(torch.linspace(-0.1, 0.1, 6))
    return objective


def tokens_of(objective, data):
    """The hypotheses and the target of each masked token, one after the other."""
    features = objective.features(data)
    split = objective.mask_patches(data, features, 0)
    tokens = objective.encoder.tokens(features.spectrogram)
    valid = split.masked.valid
    predictions = objective.predictions(features, split, tokens)[valid]
    return predictions, objective.targets(features, tokens, split)[valid]


def slow_token(objective, predictions, target, step):
    """Return both losses of a token from its hypotheses and its target."""
    losses = [2 - 2 * torch.cosine_similarity(p, target, dim=0).item() for p in predictions]
    best = losses.index(min(losses))
    progress = step / PLAN.steps
    weights = [float(number == best) for number in range(len(losses))]
    if progress < 0.5:
        temperature = 0.1 * (1e-4 / 0.1) ** (progress / 0.5)
        powers = [math.exp(-(loss - min(losses)) / temperature) for loss in losses]
        weights = [power / sum(powers) for power in powers]
    prediction = sum(w * loss for w, loss in zip(weights, losses, strict=True))
    heads = objective.distillation
    teacher = heads.teacher.prototypes_for("class") @ heads.teacher.project(target, "class")
    student = heads.student.prototypes_for("class") @ heads.student.project(
        predictions[best], "class"
    )
    sharp = (teacher - heads.targets["class"].centre) / heads.temperature(step)
    return prediction, -(sharp.softmax(0) * (student / 0.1).log_softmax(0)).sum().item()


@pytest.mark.parametrize(("count", "step"), [(1, 0), (3, 0), (3, 60)])
@torch.inference_mode()
def test_losses_are_those_of_the_slow_loop(count, step, monkeypatch):
    objective, data = matpac(count), batch()
    # The mask of step 0 at every step, so that only the schedules differ.
    mask = objective.mask_patches
    monkeypatch.setattr(
        objective, "mask_patches", lambda batch, features, _: mask(batch, features, 0)
    )
    pairs = [
        slow_token(objective, *token, step)
        for token in zip(*tokens_of(objective, data), strict=True)
    ]
    prediction, classes = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    output = objective(data, step)
    assert output.metrics["prediction"].item() == pytest.approx(prediction)
    assert output.metrics["class"].item() == pytest.approx(classes)
    assert output.loss.item() == pytest.approx(0.75 * prediction + 0.25 * classes)


@torch.inference_mode()
def test_without_weight_and_with_one_hypothesis_it_is_m2d_bit_for_bit():
    plain = masked(M2D, standardise=False)
    same = matpac(weight=0.0)
    assert same.distillation is None
    assert torch.equal(same(batch(), 0).loss, plain(batch(), 0).loss)
    both = matpac(share=0.0)(batch(), 5)
    assert torch.equal(both.metrics["prediction"], plain(batch(), 5).loss)


def test_the_best_hypothesis_alone_is_trained_in_the_end():
    objective = matpac(count=3, share=0.0)
    predictions = []
    heads = objective.predictions

    def noted(*arguments):
        predictions.append(heads(*arguments))
        predictions[0].retain_grad()
        return predictions[0]

    objective.predictions = noted
    objective(batch(), 0).loss.backward()
    trained = predictions[0].grad.any(dim=3).sum(dim=2)
    assert set(trained.flatten().tolist()) <= {0, 1}  # 0 at padding
    assert trained.any()


def test_a_hypothesis_that_is_always_the_best_is_told():
    objective = matpac(count=3)
    metrics = objective(batch(), 0).metrics
    shares = [metrics[f"best_{number}"].item() for number in (1, 2, 3)]
    assert sum(shares) == pytest.approx(1)
    healthy = {"clip_mean_cosine": 0.5, "best_1": 0.9, "best_2": 0.1, "best_3": 0.0}
    assert objective.warning(healthy, 50) is None
    told = objective.warning(healthy | {"best_1": 0.995, "best_2": 0.005}, 50)
    assert "one of 3 hypotheses is the best at 99.5% of the patches" in told
    assert "--objective.hypotheses.temperature" in told


def test_untrained_classes_are_a_guess():
    objective = masked(M2D, classification=Classification(weight=0.5, hidden_dim=16))
    torch.nn.init.normal_(objective.head.weight, std=0.02)
    for parameter in objective.distillation.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    assert objective(batch(), 0).metrics["class"].item() == pytest.approx(math.log(2048), abs=0.2)


@pytest.mark.parametrize("centre", ["logits", "probabilities"])
def test_a_step_moves_heads_and_centre(centre):
    objective = matpac(centre=centre)
    objective.begin(PLAN)
    objective.train()
    targets = objective.distillation.targets["class"]
    targets.centre.zero_()
    objective(batch(), 50)
    with torch.no_grad():
        for parameter in objective.distillation.student.parameters():
            parameter.add_(1.0)
    before = [parameter.clone() for parameter in objective.distillation.teacher.parameters()]
    objective.after_step(50)  # half-way from 0.9 to 1, on a line
    for parameter, old in zip(objective.distillation.teacher.parameters(), before, strict=True):
        torch.testing.assert_close(parameter - old, torch.full_like(old, 0.05))
    assert (targets.centre.sum().item() == pytest.approx(0.1)) == (centre == "probabilities")


def test_collapsed_classes_are_told_with_their_flag():
    told = matpac().warning({"clip_mean_cosine": 0.5, "class_kl_uniform": math.log(6)}, 50)
    assert "the class teacher assigns nearly everything to one prototype" in told
    assert "--objective.classification.*" in told


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 1.5}, "weight = 1.5; allowed: 0 to 1"),
        ({"prototypes": 1}, "prototypes = 1; allowed: 2 or more"),
        ({"momentum": 1.0}, "momentum = 1.0; allowed: 0 to below 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Classification(**settings)
