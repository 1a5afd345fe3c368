import pytest
import torch
from objectives.tiny_asit import batch
from objectives.tiny_views import ENCODER, FRAMES, PLAN, begun

from melpatch.audio.view_augment import ViewAugment
from melpatch.encoders.byol_a import BYOLA
from melpatch.errors import ConfigError
from melpatch.nn.ema import Momentum
from melpatch.objectives.bootstrap import crossed_loss
from melpatch.objectives.byol import BYOL


def objective(encoder=ENCODER, **settings):
    small = {"hidden_dim": 12, "projection": 6}
    return begun(BYOL.Config(**(small | settings)), encoder)


def head(module, x, apart):
    """A head written out: batch statistics of the rows of one view, or of both."""
    first, norm, _, last = module.layers
    hidden = torch.nn.functional.linear(x, first.weight, first.bias)
    axes = 0 if apart else (0, 1)
    mean = hidden.mean(axes, keepdim=True)
    std = (hidden.var(axes, keepdim=True, correction=0) + 1e-5).sqrt()
    hidden = ((hidden - mean) / std * norm.weight + norm.bias).relu()
    return torch.nn.functional.linear(hidden, last.weight, last.bias)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("directions", ["mean", "sum"])
def test_the_loss_is_the_equation(apart, directions):
    made = objective(apart=apart, directions=directions, head_bias=apart)
    with torch.no_grad():
        for parameter in made.teacher.parameters():
            parameter.mul_(1.1)
    rows = made.encode(batch(FRAMES), 0)
    features = rows.features
    predicted = head(made.predictor, head(made.projector, features[:, :2], apart), apart)
    targets = head(made.teacher_projector, features[:, 2:], apart)
    expected = 0.0
    for clip in range(len(FRAMES)):
        for view in (0, 1):
            pair = (predicted[clip, view], targets[clip, 1 - view])
            expected = expected + 2 - 2 * torch.nn.functional.cosine_similarity(*pair, dim=0)
    expected = expected / len(FRAMES) / (2 if directions == "mean" else 1)
    output = made(batch(FRAMES), 0)
    torch.testing.assert_close(output.loss, expected)
    assert output.weight == len(FRAMES)


def test_student_and_teacher_see_the_same_two_views():
    """Which agree at the start, when the teacher is a copy."""
    features = objective().encode(batch(FRAMES), 0).features
    assert torch.equal(features[:, :2], features[:, 2:])
    assert not torch.equal(features[:, 0], features[:, 1])


@pytest.mark.parametrize(("directions", "start"), [("mean", 2.0), ("sum", 4.0)])
def test_it_starts_where_random_directions_do(directions, start):
    wide = objective(projection=256, hidden_dim=64, directions=directions)
    assert wide(batch(FRAMES), 0).loss.item() == pytest.approx(start, rel=0.25)


def test_a_prediction_of_the_other_views_target_costs_nothing():
    views = torch.randn(5, 2, 7, generator=torch.Generator().manual_seed(0))
    loss = crossed_loss(views, 3 * views.flip(1))
    torch.testing.assert_close(loss, torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(crossed_loss(views, -views.flip(1)), torch.full((5,), 8.0))


def test_the_teacher_gets_no_gradient_and_follows():
    made = objective(momentum=Momentum(start=0.9))
    made(batch(FRAMES), 0).loss.backward()
    followers = [*made.teacher.parameters(), *made.teacher_projector.parameters()]
    followed = [*made.encoder.parameters(), *made.projector.parameters()]
    assert all(parameter.grad is None for parameter in followers)
    assert all(parameter.grad is not None for parameter in made.projector.parameters())
    before = [parameter.clone() for parameter in followers]
    with torch.no_grad():
        for parameter in followed:
            parameter.add_(1.0)
    made.after_step(0)
    for parameter, old in zip(followers, before, strict=True):
        torch.testing.assert_close(parameter, old + 0.1)


def test_momentum_follows_a_cosine_over_the_run():
    made = objective(momentum=Momentum(start=0.99, end=1.0, curve="cosine"))
    assert made.momentum(0) == 0.99
    assert made.momentum(PLAN.steps // 2) == pytest.approx(0.995)
    assert made.momentum(PLAN.steps) == 1.0


@pytest.mark.parametrize("keep", ["student", "teacher"])
def test_the_encoder_that_is_kept_is_chosen(keep):
    made = objective(keep=keep)
    assert made.export_encoder() is (made.encoder if keep == "student" else made.teacher)


def test_the_teacher_of_a_convolutional_encoder_normalises_with_the_batch():
    """And so says of a view what the student says, as long as their weights agree."""
    made = objective(BYOLA.Config.of_size("nano"), augment=ViewAugment.Config()).train()
    features = made.encode(batch(FRAMES), 0).features
    torch.testing.assert_close(features[:, :2], features[:, 2:])
    made(batch(FRAMES), 0).loss.backward()
    made.after_step(0)
    for ours, theirs in zip(made.teacher.buffers(), made.encoder.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_collapse_is_gauged_in_predictions_and_targets():
    made = objective()
    with torch.no_grad():
        made.predictor.layers[0].weight.zero_()
        made.predictor.layers[1].bias.fill_(1.0)  # so that every row is the same
    output = made(batch(FRAMES), 0)
    metrics = {name: value.item() for name, value in output.metrics.items()}
    assert metrics["output_std"] < 1e-6
    assert metrics["target_std"] > 0.1
    assert "collapse" in made.warning(metrics, PLAN.steps)


@pytest.mark.parametrize("settings", [{"hidden_dim": 0}, {"projection": 0}])
def test_settings_out_of_range_are_refused(settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=name):
        BYOL.Config(**settings)
