import math

import pytest
import torch
from objectives.tiny_asit import PATCH, RATE, batch, samples, seconds
from objectives.tiny_views import ENCODER, begun, plan_of

from melpatch.encoders.byol_a import BYOLA
from melpatch.errors import ConfigError
from melpatch.objectives.audio2vec import Audio2Vec, distances

FRAMES = (60, 24, 40, 20)
"""Of the clips: with room to spare, for slices of a patch, for longer ones, and too few."""
OWN = [16, 8, 12, 8]
GAPS = [2, 0, 2, 0]
PLAN = plan_of(FRAMES)


def objective(encoder=ENCODER, **settings):
    small = {"hidden_dim": 12, "embedding": 6, "slice_seconds": seconds(16)}
    return begun(Audio2Vec.Config(**(small | settings)), encoder, PLAN)


def test_slices_lie_side_by_side_with_gaps():
    made = objective()
    slices = made.cut(batch(FRAMES), 0)
    assert slices.frames.tolist() == OWN
    assert slices.usable.tolist() == [True, True, True, False]
    spectrogram = made.spectrograms(batch(FRAMES)).spectrogram
    for clip in range(3):
        starts = slices.start[clip].tolist()
        assert starts[1] - starts[0] == starts[2] - starts[1] == OWN[clip] + GAPS[clip]
        assert starts[0] >= 0
        assert starts[2] + OWN[clip] <= FRAMES[clip]
        for place, start in enumerate(starts):
            cut = slices.spectrogram[clip, place]
            assert torch.equal(cut[:, : OWN[clip]], spectrogram[clip, :, start : start + OWN[clip]])
            assert not cut[:, OWN[clip] :].any()


def test_places_are_drawn_anew_in_each_step_and_reach_both_ends():
    made = objective()
    starts = {int(made.cut(batch(FRAMES), step).start[0, 0]) for step in range(100)}
    assert starts == set(range(60 - 3 * 16 - 2 * 2 + 1))


@pytest.mark.parametrize(
    ("pretext", "sources", "targets"), [("cbow", [0, 2], [1]), ("skip_gram", [1], [0, 2])]
)
def test_the_loss_is_the_mean_squared_error_of_what_is_hidden(pretext, sources, targets):
    made = objective(pretext=pretext)
    slices = made.cut(batch(FRAMES), 0)
    vectors = made.embed(slices)
    losses = []
    constants = []
    for clip in range(3):
        decoded = made.decoder(torch.cat([vectors[clip, place] for place in sources]))
        decoded = decoded.view(len(targets), 32, 16)[..., : OWN[clip]]
        wanted = slices.spectrogram[clip, targets, :, : OWN[clip]]
        losses.append((decoded - wanted).square().mean())
        constants.append(wanted.var(dim=(1, 2), correction=0).mean())
    output = made(batch(FRAMES), 0)
    assert output.weight == 3
    torch.testing.assert_close(output.loss, sum(losses) / 3)
    torch.testing.assert_close(output.metrics["constant"], sum(constants) / 3)


def test_a_vector_is_that_of_the_slice_alone():
    made = objective()
    slices = made.cut(batch(FRAMES), 0)
    alone = made.encoder(slices.spectrogram[1, 2:, :, :8]).patches.mean(dim=1)
    torch.testing.assert_close(made.embed(slices)[1, 2], made.embedding(alone)[0])


def test_distances_are_shares_of_the_clip():
    made = objective(pretext="temporal_gap")
    shares = []
    for step in range(200):
        slices = made.cut(batch(FRAMES), step)
        first, second = slices.start[0].tolist()
        distance = distances(slices)[0].item()
        assert distance == pytest.approx(abs(first - second) / (60 - 16))
        shares.append(distance)
    # Of two uniform numbers the mean distance is a third.
    assert sum(shares) / 200 == pytest.approx(1 / 3, abs=0.06)
    assert max(shares) <= 1


def test_the_loss_of_a_distance_is_its_cross_entropy():
    made = objective(pretext="temporal_gap")
    slices = made.cut(batch(FRAMES), 0)
    estimate = torch.sigmoid(made.decoder(made.embed(slices).flatten(1)))[:, 0]
    wanted = distances(slices).double()
    losses = -wanted * estimate.log() - (1 - wanted) * (1 - estimate).log()
    output = made(batch(FRAMES), 0)
    assert output.weight == 4  # 20 frames have room for two slices of a patch
    torch.testing.assert_close(output.loss, losses.mean())
    torch.testing.assert_close(output.metrics["error"], (estimate - wanted).abs().mean())
    assert output.metrics["constant"].item() == pytest.approx(math.log(2))


def test_a_convolutional_encoder_is_trained_too():
    output = objective(BYOLA.Config.of_size("nano"), pooling="cls")(batch(FRAMES), 0)
    output.loss.backward()
    assert output.loss.isfinite()


def test_the_shortest_clip_that_teaches_has_room_for_its_slices():
    made = objective()
    frames = made.front_end.frames(round(made.least_seconds(PLAN) * RATE))
    assert frames == 3 * PATCH
    assert made.front_end.frames(samples(24)) == 24


def test_segments_too_short_for_the_slices_are_refused():
    plan = PLAN._replace(longest_segment=seconds(20))
    with pytest.raises(ConfigError, match=r"seconds = .* for 3 slices of a patch"):
        objective().check_plan(plan)


def test_slices_shorter_than_a_patch_are_refused():
    with pytest.raises(ConfigError, match="slice_seconds"):
        objective(slice_seconds=seconds(PATCH - 1))


def test_predictions_no_better_than_a_constant_are_reported():
    made = objective()
    assert made.warning({"loss": 1.0, "constant": 0.5}, 9) is None
    assert "no better than constants" in made.warning({"loss": 1.0, "constant": 0.5}, 10)
    assert made.warning({"loss": 0.4, "constant": 0.5}, 10) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"slice_seconds": 0.0},
        {"neighbours": 0},
        {"gap_frames": -1},
        {"embedding": 0},
        {"hidden_dim": 0},
        {"pooling": "layers+mean"},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=name):
        Audio2Vec.Config(**settings)
