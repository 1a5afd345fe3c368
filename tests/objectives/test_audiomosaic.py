import pytest
import torch
from objectives.tiny_asit import PATCH, batch
from objectives.tiny_views import FRAMES, PLAN, begun, config

from melpatch.audio.view_augment import ViewAugment
from melpatch.encoders.cnn14 import CNN14
from melpatch.errors import ConfigError
from melpatch.nn.masking import Masking
from melpatch.objectives.audiomosaic import AudioMosaic
from melpatch.training.config import build

PLAIN = ViewAugment.Config()


def settings_of(**settings):
    small = {"hidden_dims": (12,), "projection": 6, "augment": PLAIN}
    return AudioMosaic.Config(**(small | settings))


def objective(**settings):
    return begun(settings_of(**settings))


def test_a_views_vector_is_the_mean_of_its_visible_tokens_and_the_class_token():
    made = objective()
    data = batch(FRAMES)
    vectors = made.encode(data, 3).features
    features = made.features(data)
    tokens = made.encoder.tokens(features.spectrogram)
    for number in range(2):
        split = made.mask_view(data, features, 3, number)
        for clip in range(len(FRAMES)):
            own = split.visible.indices[clip][split.visible.valid[clip]]
            encoded = made.encoder.encode_tokens(tokens[clip, own][None])
            together = torch.cat([encoded.cls[0], encoded.patches[0]])
            torch.testing.assert_close(vectors[clip, number], together.mean(dim=0))


def test_what_a_view_loses_cannot_leak_into_its_vector():
    made = objective()
    data = batch((48, 48))
    features = made.features(data)
    split = made.mask_view(data, features, 0, 0)
    clean = made.pooled_rest(features, split)
    patches = made.encoder.grid.split(features.spectrogram)
    for subset, same in ((split.masked, True), (split.visible, False)):
        changed = subset.scatter(subset.gather(patches) + 1, patches)
        spectrogram = made.encoder.grid.join(changed, features.spectrogram.shape[2])
        again = made.pooled_rest(features._replace(spectrogram=spectrogram), split)
        assert torch.equal(again, clean) == same


def test_the_first_view_loses_columns_and_the_second_one_rows():
    made = objective()
    data = batch((48,))
    features = made.features(data)
    rows, columns = 32 // PATCH, 48 // PATCH
    for number, (axis, ratio) in enumerate([(0, 0.6), (1, 0.4)]):
        masked = made.mask_view(data, features, 0, number).masked.as_mask(rows * columns)
        share = masked.view(rows, columns).double().mean(dim=axis)
        assert ((share > 0) & (share < 1)).sum() <= 1
        assert masked.sum() == int(ratio * rows * columns)


def test_masks_depend_on_the_step_and_augmentations_on_the_view():
    made = objective(augment=ViewAugment.Config(roll=0.5))
    data = batch(FRAMES)
    assert not torch.equal(made.encode(data, 0).features, made.encode(data, 1).features)
    views = [made.view(data, 0, number).spectrogram for number in range(2)]
    assert not torch.equal(*views)


def test_pictures_show_what_each_view_loses():
    made = objective()
    data = batch((48,))
    assert made.picture(data, 0).masked.double().mean() == pytest.approx(0.6, abs=0.03)
    clip, first, second = made.view_pictures(data, 0).values()
    for view, ratio in ((first, 0.6), (second, 0.4)):
        assert view.isnan().double().mean() == pytest.approx(ratio, abs=0.03)
        # Nothing is augmented here.
        torch.testing.assert_close(view[~view.isnan()], clip[~view.isnan()])


def test_an_encoder_without_patch_tokens_is_refused():
    with pytest.raises(ConfigError, match="works on patch tokens"):
        AudioMosaic.check_encoder(CNN14)


def test_a_mask_that_leaves_nothing_is_refused_by_its_flag():
    made = build(config(settings_of(second_mask=Masking.Config(kind="frequency", num_masked=1000))))
    with pytest.raises(ConfigError, match=r"objective.second_mask.num_masked = 1000"):
        made.check_plan(PLAN)


@pytest.mark.parametrize("pooling", ["rows+mean", "delta", "segments=2", "layers=1+mean"])
def test_poolings_of_whole_grids_are_refused(pooling):
    with pytest.raises(ConfigError, match="pooling"):
        AudioMosaic.Config(pooling=pooling)


@pytest.mark.parametrize("pooling", ["cls", "mean+std", "max"])
def test_other_poolings_are_taken(pooling):
    output = objective(pooling=pooling)(batch(FRAMES), 0)
    assert output.loss.isfinite()
