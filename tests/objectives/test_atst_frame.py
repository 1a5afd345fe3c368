import pytest
import torch
from objectives.tiny_asit import batch, seconds
from objectives.tiny_views import FRAMES, PLAN, begun

from melpatch.audio.view_augment import ViewAugment
from melpatch.encoders.cnn14 import CNN14
from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.objectives.atst_frame import ATSTFrame

COLUMNS = [12, 5, 8, 9]
HIDDEN = [int(0.65 * columns) for columns in COLUMNS]
ENCODER = ViT.Config(embed_dim=16, depth=2, num_heads=2, patch=(32, 4), cls_tokens=0)


def objective(encoder=ENCODER, **settings):
    small = {"hidden_dim": 12, "projection": 6}
    return begun(ATSTFrame.Config(**(small | settings)), encoder)


def test_a_row_is_a_hidden_frame():
    made = objective()
    data = batch(FRAMES)
    rows = made.encode(data, 0)
    assert rows.features.shape == (sum(HIDDEN), 4, 16)
    counts = [int((rows.keys == key).sum()) for key in data.keys]
    assert counts == HIDDEN
    assert made(data, 0).weight == sum(HIDDEN)


def test_the_first_view_is_clean_and_the_second_has_the_same_frames():
    made = objective()
    data = batch(FRAMES)
    clean = made.spectrograms(data)
    first, second = made.view(data, 0, 0), made.view(data, 0, 1)
    assert torch.equal(first.spectrogram, clean.spectrogram)
    assert not torch.equal(second.spectrogram, clean.spectrogram)
    assert torch.equal(second.frames, clean.frames)
    assert not torch.equal(
        objective(augment_both=True).view(data, 0, 0).spectrogram, clean.spectrogram
    )


def test_what_is_hidden_does_not_reach_the_student():
    """The teacher sees it."""
    made = objective(augment=ViewAugment.Config())
    data = batch(FRAMES)
    both = made.both_views(data, 0)
    before = made.encode(data, 0).features
    hidden = made.hidden(data, both, 0).as_mask(12).repeat(2, 1)
    changed = both.spectrogram + 5.0 * hidden.repeat_interleave(4, dim=1)[:, None]
    made.both_views = lambda batch, step: both._replace(spectrogram=changed)
    after = made.encode(data, 0).features
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert (after[:, 2:] - before[:, 2:]).abs().amin(dim=(0, 2)).gt(0).all()


def test_the_student_without_a_mask_is_the_encoder():
    made = objective()
    both = made.both_views(batch(FRAMES), 0)
    hidden = made.hidden(batch(FRAMES), both, 0)
    nothing = hidden._replace(valid=torch.zeros_like(hidden.valid))
    expected = made.encoder(both.spectrogram, both.valid).patches
    torch.testing.assert_close(made.student_tokens(both, nothing), expected)


def test_a_step_of_one_clip_is_refused():
    with pytest.raises(ConfigError, match="batch_size = 1; allowed: 2 or more"):
        objective().check_plan(PLAN._replace(batch_size=1))


def test_segments_of_one_frame_are_refused():
    with pytest.raises(ConfigError, match="no patch of a segment can be masked"):
        objective().check_plan(PLAN._replace(seconds=seconds(4)))


def test_encoders_without_tokens_are_refused():
    with pytest.raises(ConfigError, match="works on patch tokens"):
        ATSTFrame.check_encoder(CNN14)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("crop_seconds", {"crop_seconds": 0.1}),
        ("augment.roll", {"augment": ViewAugment.Config(roll=0.5)}),
        ("augment.stretch", {"augment": ViewAugment.Config(stretch=0.5)}),
        ("augment.crop_frames", {"augment": ViewAugment.Config(crop_frames=(0.6, 1.5))}),
        ("pooling", {"pooling": "cls"}),
    ],
)
def test_what_would_move_frames_is_refused(name, settings):
    with pytest.raises(ConfigError, match=name):
        objective(**settings)
