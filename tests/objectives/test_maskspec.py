import math
import statistics

import pytest
import torch
from objectives.tiny_asit import batch
from objectives.tiny_masked import masked, slow_clips

from melpatch.audio.augment import Augment
from melpatch.errors import ConfigError
from melpatch.objectives.base import Features
from melpatch.objectives.maskspec import MaskSpec


def maskspec(**settings):
    return masked(MaskSpec, **settings)


def mean_and_deviation(pixels):
    """By MAE's rule: n - 1 below the squares, and 1e-6 more."""
    values = pixels.tolist()
    return statistics.mean(values), (statistics.variance(values) + 1e-6) ** 0.5


@pytest.mark.parametrize("target", ["normalised", "raw"])
@pytest.mark.parametrize(
    "settings",
    [
        {"encoder": {"cls_tokens": 2}},
        {"decoder": {"attention": "windows", "depth": 3}},
        {"encoder": {"cls_tokens": 0}},
    ],
    ids=str,
)
@torch.inference_mode()
def test_loss_is_that_of_the_slow_loop(settings, target):
    objective, data = maskspec(target=target, **settings), batch()
    total, count = 0.0, 0
    for decoded, pixels in slow_clips(objective, data):
        for place, token in decoded.items():
            mean, deviation = (
                mean_and_deviation(pixels[place]) if target == "normalised" else (0.0, 1.0)
            )
            wanted = [(pixel - mean) / deviation for pixel in pixels[place].tolist()]
            total += statistics.mean(
                (a - b) ** 2 for a, b in zip(objective.head(token).tolist(), wanted, strict=True)
            )
            count += 1
    output = objective(data, 0)
    assert output.loss.item() == pytest.approx(total / count)
    assert torch.equal(output.metrics["mse"], output.loss)
    assert output.weight == count == 18 + 9 + 12 + 3


def test_a_normalised_target_knows_neither_level_nor_contrast():
    objective, patches = (
        maskspec(),
        torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0)).double(),
    )
    target = objective.target(patches)
    torch.testing.assert_close(target.mean(dim=2), torch.zeros(2, 5).double())
    torch.testing.assert_close(target.std(dim=2), torch.ones(2, 5).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(objective.target(7 * patches - 3), target, atol=1e-5, rtol=0)
    assert not objective.target(torch.full_like(patches, 4.0)).any()
    assert maskspec(target="raw").target(patches) is patches


def test_silence_is_harmless():
    objective, data = maskspec(), batch()
    data.wave = torch.zeros_like(data.wave)
    output = objective(data, 0)
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in objective.parameters())


@pytest.mark.parametrize("target", ["normalised", "raw"])
@torch.inference_mode()
def test_the_picture_borrows_level_and_contrast_from_what_is_seen(target):
    objective, data = maskspec(target=target), batch((20, 48))
    picture = objective.picture(data, 0)
    decoded, pixels = next(slow_clips(objective, data))
    seen = [mean_and_deviation(pixels[place]) for place in pixels if place not in decoded]
    level, contrast = (statistics.mean(column) for column in zip(*seen, strict=True))
    for (row, column), token in decoded.items():
        rebuilt = (
            objective.head(token) * contrast + level
            if target == "normalised"
            else objective.head(token)
        )
        expected = objective.front_end.denormalise(rebuilt.view(8, 8))
        shown = picture.reconstruction[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        torch.testing.assert_close(shown, expected[: shown.shape[0], : shown.shape[1]])
    assert picture.masked_is_blank
    torch.testing.assert_close(
        picture.reconstruction[~picture.masked], picture.clean[~picture.masked]
    )


@torch.inference_mode()
def test_the_picture_of_what_is_hidden_does_not_depend_on_it():
    objective, data = maskspec(), batch((20, 48))
    picture, (spectrogram, valid) = objective.picture(data, 0), objective.features(data)
    for changed, same in ((picture.masked, True), (~picture.masked, False)):
        other = spectrogram.clone()
        other[0][changed] += 10 * other[0][changed].square()
        objective.features = lambda _, other=other: Features(other, valid)
        again = objective.picture(data, 0)
        assert torch.equal(again.masked, picture.masked)
        assert (
            torch.equal(
                again.reconstruction[picture.masked], picture.reconstruction[picture.masked]
            )
            == same
        )


def test_waves_are_augmented_before_anything_is_masked():
    louder = maskspec(augment=Augment.Config(gain_beta=10))
    data = batch()
    plain = louder.features(data)
    augmented = louder.augmented(data, 3)
    # A factor of the wave is a constant in log-mel, another one in each clip and step.
    config = louder.front_end.config
    added = (augmented.spectrogram - plain.spectrogram) * config.std / config.scale
    for clip, frames in enumerate(louder.front_end.frames(data.lengths).tolist()):
        constant = added[clip, :, :frames].median()
        assert 2 * math.log(0.5) < constant < 2 * math.log(1.5)
        torch.testing.assert_close(
            added[clip, :, :frames], constant.expand(added.shape[1], frames), rtol=0, atol=1e-2
        )
    assert not torch.equal(augmented.spectrogram, louder.augmented(data, 4).spectrogram)
    assert louder(data, 3).loss != maskspec()(data, 3).loss


@pytest.mark.parametrize(
    "wrong",
    [{"freq_mask": 8}, {"pixel_noise": 0.1}, {"mixup_rate": 0.5, "mixup_on": "spectrogram"}],
)
def test_changes_of_spectrograms_would_be_reconstructed(wrong):
    with pytest.raises(ConfigError, match=r"augment = .*; allowed: changes of the wave"):
        MaskSpec.Config(augment=Augment.Config(**wrong))
