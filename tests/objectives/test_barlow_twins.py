from dataclasses import replace

import pytest
import torch
from objectives.tiny_asit import batch, seconds
from objectives.tiny_views import ENCODER, FRAMES, PLAN, begun

from melpatch.audio.view_augment import ViewAugment
from melpatch.encoders.byol_a import BYOLA
from melpatch.errors import ConfigError
from melpatch.nn.pooling import pool
from melpatch.objectives.barlow_twins import BarlowTwins


def objective(encoder=ENCODER, **settings):
    small = {"hidden_dim": 12, "projection": 6}
    return begun(BarlowTwins.Config(**(small | settings)), encoder)


def test_the_loss_is_the_equation():
    plain = objective(augment=ViewAugment.Config(), redundancy=0.5)
    output = plain(batch(FRAMES), 0)
    features = plain.features(batch(FRAMES))
    encoded = plain.encoder(features.spectrogram, features.valid)
    rows = plain.encoder.grid.rows
    pooled = pool(encoded.patches, encoded.cls, features.valid, rows, "mean")
    outputs = plain.projector(pooled[:, None].repeat(1, 2, 1))[:, 0]
    # Without augmentations both views are the clip itself, which correlates with itself.
    correlation = torch.corrcoef(outputs.T)
    off_diagonal = correlation.square().sum() - correlation.diagonal().square().sum()
    torch.testing.assert_close(output.metrics["redundancy"], off_diagonal, rtol=1e-2, atol=0)
    assert output.metrics["invariance"] < 1e-3
    assert output.metrics["alignment"] < 1e-9
    expected = output.metrics["invariance"] + 0.5 * output.metrics["redundancy"]
    torch.testing.assert_close(output.loss, expected)


def test_views_differ_from_each_other_and_over_steps():
    made = objective()
    data = batch(FRAMES)
    first, second = (made.view(data, 0, number).spectrogram for number in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, made.view(data, 0, 0).spectrogram)
    assert not torch.equal(first, made.view(data, 1, 0).spectrogram)


@pytest.mark.parametrize("crop", [None, seconds(24)])
def test_views_are_crops_where_asked_for(crop):
    made = objective(crop_seconds=crop, max_crop_ratio=0.6)
    view = made.view(batch(FRAMES), 0, 0)
    frames = made.front_end.frames(batch(FRAMES).lengths)
    if crop is not None:
        frames = (frames * 0.6).ceil().long().clamp(max=24)
    assert view.frames.tolist() == frames.tolist()
    assert view.shortest == frames.min()
    assert view.spectrogram.shape[2] == frames.max()


def test_clips_stay_together_only_where_they_are_mixed():
    assert BarlowTwins.clips_together(BarlowTwins.Config()) == 4
    assert (
        BarlowTwins.clips_together(BarlowTwins.Config(augment=ViewAugment.Config(fader=1.0))) == 1
    )


def test_the_two_views_of_a_clip_are_mixed_with_different_clips():
    """A clip that was mixed into both would be a thing that they have in common."""
    made = objective(augment=ViewAugment.Config(mix=0.4))
    data = batch(FRAMES)
    assert len(data) == 4
    changed = data.wave.clone()
    changed[3] = data.wave[3].flip(
        0
    )  # the other of clip 2's pair, in the place of clip 1 in the next
    other = replace(data, wave=changed)
    reached = [
        [not torch.equal(a, b) for a, b in zip(*views, strict=True)]
        for number in range(2)
        for views in [[made.view(d, 0, number).spectrogram for d in (data, other)]]
    ]
    assert reached == [[False, False, True, True], [False, True, False, True]]


def test_a_convolutional_encoder_is_trained_too():
    output = objective(BYOLA.Config.of_size("nano"))(batch(FRAMES), 0)
    output.loss.backward()
    assert output.loss.isfinite()


@pytest.mark.parametrize("crop", [9.0, 0.001])
def test_crops_longer_than_all_clips_or_shorter_than_a_patch_are_refused(crop):
    with pytest.raises(ConfigError, match=f"objective.crop_seconds = {crop}"):
        objective(crop_seconds=crop)


def test_a_step_of_one_clip_is_refused():
    with pytest.raises(ConfigError, match="batch_size = 1; allowed: 2 or more"):
        objective().check_plan(PLAN._replace(batch_size=1))


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_dim": 0},
        {"projection": 0},
        {"redundancy": -1.0},
        {"crop_seconds": 0.0},
        {"max_crop_ratio": 0.0},
        {"pooling": "layers+mean"},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=name):
        BarlowTwins.Config(**settings)


def test_a_collapse_is_reported_after_ten_steps_and_a_tenth_of_the_run():
    made = objective()
    assert made.warning({"output_std": 0.01}, 9) is None
    assert "collapse" in made.warning({"output_std": 0.01}, 10)
    assert made.warning({"output_std": 0.5}, 10) is None
