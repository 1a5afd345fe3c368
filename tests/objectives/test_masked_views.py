"""Masked views: both terms against slow obvious versions, what may not leak, and what is refused."""

import math

import pytest
import torch
import torch.nn.functional as F
from objectives.tiny_asit import PATCH, batch
from objectives.tiny_views import FRAMES, PLAN, begun, config

from melpatch.audio.view_augment import ViewAugment
from melpatch.encoders.cnn14 import CNN14
from melpatch.errors import ConfigError
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.nn.masking import Masking
from melpatch.objectives.masked_views import MaskedViews
from melpatch.training.config import build

PLAIN = ViewAugment.Config()
DECODER = MAEDecoder.Config(dim=16, depth=1, num_heads=2)


def settings_of(**settings):
    small = {"hidden_dims": (12,), "projection": 6, "decoder": DECODER, "augment": PLAIN}
    return MaskedViews.Config(**(small | settings))


def objective(**settings):
    return begun(settings_of(**settings))


def test_a_views_vector_pools_its_visible_tokens_row_by_row():
    made = objective(pooling="rows+mean+std")
    data = batch(FRAMES)
    vectors = made.encode(data, 3).features
    views = made.masked_views(data, 3)
    rows = made.encoder.grid.rows
    columns = made.encoder.grid.columns(views.features.spectrogram.shape[2])
    tokens = made.encoder.tokens(views.features.spectrogram)
    for number in range(2):
        for clip in range(len(FRAMES)):
            row_of_views = number * len(FRAMES) + clip
            visible = views.split.visible
            own = visible.indices[row_of_views][visible.valid[row_of_views]]
            encoded = made.encoder.encode_subset(
                tokens[row_of_views][None], type(visible)(own[None], torch.ones_like(own[None]) > 0)
            ).patches[0]
            means = torch.zeros(rows, encoded.shape[1], dtype=torch.float64)
            deviations = torch.zeros_like(means)
            for row in range(rows):
                there = encoded[own // columns == row]
                if len(there):
                    means[row] = there.mean(dim=0)
                    deviations[row] = there.std(dim=0, correction=0)
            expected = torch.cat([means.flatten(), deviations.flatten()])
            torch.testing.assert_close(vectors[clip, number], expected, atol=1e-6, rtol=1e-6)


def test_the_loss_is_the_error_of_masked_patches_and_nt_xent():
    made = objective(contrast=0.3)
    data = batch(FRAMES)
    output = made(data, 2)
    views = made.masked_views(data, 2)
    predictions = made.reconstructed(views)
    patches = made.encoder.grid.split(views.features.spectrogram)
    errors = []
    for view in range(2 * len(FRAMES)):
        masked = views.split.masked
        own = masked.valid[view]
        target = patches[view, masked.indices[view][own]]
        errors.append((predictions[view, own] - target).square().mean())
    mse = torch.stack(errors).mean()
    torch.testing.assert_close(output.metrics["mse"], mse)

    vectors = made.projector(made.encode(data, 2).features)
    unit = F.normalize(vectors, dim=2).transpose(0, 1).flatten(0, 1)
    similar = (unit @ unit.T / 0.1).fill_diagonal_(-torch.inf)
    positive = torch.arange(len(unit)).roll(len(FRAMES))
    nt_xent = F.cross_entropy(similar, positive)
    torch.testing.assert_close(output.metrics["nt_xent"], nt_xent)
    torch.testing.assert_close(output.loss, mse + 0.3 * nt_xent)
    assert output.weight == len(FRAMES)


def test_without_the_comparison_only_the_reconstruction_teaches():
    made = objective(contrast=0.0)
    made(batch(FRAMES), 0).loss.backward()
    assert not any(weight.grad.any() for weight in made.projector.parameters())
    assert made.head.weight.grad.any()


def test_what_a_view_loses_cannot_leak_into_its_vector_or_its_reconstruction(monkeypatch):
    made = objective()
    data = batch((48, 48))
    clean = made.masked_views(data, 0)
    patches = made.encoder.grid.split(clean.features.spectrogram)
    for subset, same in ((clean.split.masked, True), (clean.split.visible, False)):
        changed = subset.scatter(subset.gather(patches) + 1, patches)
        spectrogram = made.encoder.grid.join(changed, clean.features.spectrogram.shape[2])
        features = clean.features._replace(spectrogram=spectrogram)
        monkeypatch.setattr(made, "both_views", lambda *_, features=features: features)
        again = made.masked_views(data, 0)
        vectors = [made.rows_of(views, data).features for views in (clean, again)]
        assert torch.equal(*vectors) == same
        pixels = [made.reconstructed(views) for views in (clean, again)]
        assert torch.equal(*pixels) == same


def test_each_view_and_each_step_has_a_mask_of_its_own():
    made = objective()
    data = batch((48,))
    places = (32 // PATCH) * (48 // PATCH)
    features = made.both_views(data, 0)
    masks = made.mask_views(data, features, 0).masked.as_mask(places)
    later = made.mask_views(data, features, 1).masked.as_mask(places)
    assert masks.double().mean(dim=1).tolist() == [0.75, 0.75]
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks, later)


def test_pictures_show_what_each_view_loses_and_how_it_is_reconstructed():
    made = objective()
    data = batch((48,))
    picture = made.picture(data, 0)
    assert picture.masked_is_blank
    assert picture.masked.double().mean() == pytest.approx(0.75, abs=0.03)
    assert torch.equal(picture.reconstruction[~picture.masked], picture.clean[~picture.masked])
    assert not torch.equal(picture.reconstruction, picture.clean)
    clip, *views = made.view_pictures(data, 0).values()
    assert torch.equal(views[0].isnan(), picture.masked)
    for view in views:
        assert view.isnan().double().mean() == pytest.approx(0.75, abs=0.03)
        # Nothing is augmented here.
        torch.testing.assert_close(view[~view.isnan()], clip[~view.isnan()])


@pytest.mark.parametrize("pooling", ["rows+mean+std+delta", "mean", "max", "cls", "segments=2"])
def test_poolings_are_finite_where_a_row_has_nothing_visible(pooling):
    made = objective(pooling=pooling, mask=Masking.Config(ratio=0.9))
    output = made(batch(FRAMES), 0)
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(weight.grad.isfinite().all() for weight in made.encoder.parameters())


def test_a_comparison_that_only_guesses_is_told_whatever_the_whole_loss_is():
    made = objective()
    late = PLAN.steps - 1
    guessing = {"loss": 0.8, "nt_xent": math.log(2 * PLAN.batch_size - 1), "accuracy": 0.1}
    assert "what guessing costs" in made.warning(guessing, late)
    assert made.warning(guessing | {"nt_xent": 0.5}, late) is None
    assert "collapse" in made.warning(guessing | {"output_std": 0.01}, late)


def test_an_encoder_without_patch_tokens_is_refused():
    with pytest.raises(ConfigError, match="works on patch tokens"):
        MaskedViews.check_encoder(CNN14)


def test_a_mask_that_leaves_nothing_is_refused_by_its_flag():
    made = build(config(settings_of(mask=Masking.Config(num_masked=1000))))
    with pytest.raises(ConfigError, match=r"mask.num_masked = 1000"):
        made.check_plan(PLAN)


def test_a_weight_below_nothing_is_refused():
    with pytest.raises(ConfigError, match="contrast"):
        settings_of(contrast=-0.1)
