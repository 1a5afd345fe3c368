import math

import pytest
import torch
from objectives.tiny_asit import batch
from objectives.tiny_views import ENCODER, FRAMES, PLAN, begun

from melpatch.audio.view_augment import ViewAugment
from melpatch.encoders.byol_a import BYOLA
from melpatch.errors import ConfigError
from melpatch.objectives.simclr import SimCLR

CANDIDATES = 2 * PLAN.batch_size - 1


def objective(encoder=ENCODER, **settings):
    small = {"hidden_dims": (12,), "projection": 6}
    return begun(SimCLR.Config(**(small | settings)), encoder)


def test_the_loss_is_the_equation():
    made = objective(temperature=0.3)
    data = batch(FRAMES)
    output = made(data, 0)
    first, second = made.projector(made.encode(data, 0).features).unbind(dim=1)
    unit = torch.nn.functional.normalize(torch.cat([first, second]), dim=1).tolist()
    losses = []
    for i, own in enumerate(unit):
        cosines = [sum(a * b for a, b in zip(own, other, strict=True)) for other in unit]
        candidates = [math.exp(cosine / 0.3) for k, cosine in enumerate(cosines) if k != i]
        losses.append(-cosines[(i + 4) % 8] / 0.3 + math.log(sum(candidates)))
    assert output.loss.item() == pytest.approx(sum(losses) / 8, rel=1e-9)


def test_each_view_has_its_own_batch_statistics():
    made = objective()
    features = torch.randn(5, 2, 16, dtype=torch.float64)
    together = made.projector(features)
    torch.testing.assert_close(together[:, :1], made.projector(features[:, :1]))
    torch.testing.assert_close(together[:, 1:], made.projector(features[:, 1:]))


def test_equal_views_are_found_at_once_and_their_clips_are_apart():
    output = objective(augment=ViewAugment.Config(), temperature=0.05)(batch(FRAMES), 0)
    assert output.metrics["accuracy"] == 1
    assert output.metrics["alignment"] < 1e-9
    assert output.metrics["uniformity"] < -0.5
    assert output.loss < math.log(CANDIDATES)


def test_a_convolutional_encoder_is_trained_too():
    output = objective(BYOLA.Config.of_size("nano"))(batch(FRAMES), 0)
    output.loss.backward()
    assert output.loss.isfinite()


def test_a_loss_of_guessing_is_reported_after_ten_steps_and_a_tenth_of_the_run():
    made = objective()
    guessing = {"loss": math.log(CANDIDATES), "accuracy": 1 / CANDIDATES, "output_std": 0.9}
    assert made.warning(guessing, 9) is None
    assert f"ln {CANDIDATES} = {math.log(CANDIDATES):.2f}" in made.warning(guessing, 10)
    assert made.warning(guessing | {"loss": 0.9 * math.log(CANDIDATES)}, 10) is None
    assert made.warning(guessing | {"accuracy": 0.5}, 10) is None
    assert "collapse" in made.warning(guessing | {"output_std": 0.01}, 10)


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.0}, {"hidden_dims": (0,)}, {"projection": 0}]
)
def test_settings_out_of_range_are_refused(settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=name):
        SimCLR.Config(**settings)
