import math

import pytest
import torch
from torch import nn

from melpatch.audio.logmel import LogMel
from melpatch.data.clip import Batch
from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.objectives.base import Features, Plan
from melpatch.objectives.ssast import SSAST
from melpatch.training.config import RunConfig, build

PATCHES = [(16, 16), (128, 2), (8, 8), (16, 8)]
ONE_PATCH = 400 + 15 * 160  # samples in 16 frames
LENGTHS = (16000, 5000, 9000)


def ssast(patch=(16, 16), front_end=None, stride=None, seed=0, **settings):
    """A nano SSAST, in double precision so that differences are not rounding."""
    config = RunConfig(
        seed=seed,
        front_end=LogMel.Config(**(front_end or {})),
        encoder=ViT.Config.of_size("nano", patch=patch, stride=stride),
        objective=SSAST.Config(**settings),
    )
    return build(config).double()


def batch(lengths=LENGTHS, silent=False):
    """Coloured noise of several lengths, zeros after their ends."""
    noise = torch.randn(
        len(lengths), max(lengths), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    inside = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    wave = 0.1 * noise.cumsum(dim=1).diff(dim=1, prepend=torch.zeros(len(lengths), 1)) * inside
    return Batch(wave * (not silent), torch.tensor(lengths), torch.arange(7, 7 + len(lengths)))


def plan(seconds):
    return Plan(steps=1, batch_size=1, seconds=seconds, longest_segment=seconds)


def hidden_patches(objective, data, purpose="mask"):
    return objective.mask_patches(data, objective.features(data), 0, purpose).masked


# A slow version of one pass: clip by clip, hidden patch by hidden patch.


def slow_clip(objective, spectrogram, patches):
    """Sums over the hidden patches of one clip: loss of the discriminative, and of the generative pretext."""
    (height, width), columns = (
        objective.encoder.grid.patch,
        objective.encoder.grid.columns(spectrogram.shape[-1]),
    )
    tokens = objective.encoder.embed(spectrogram[None])[0].clone()
    for patch in patches:
        tokens[patch] = objective.mask_embed[0, 0]
    encoded = objective.encoder.encode_tokens(
        (tokens + objective.encoder.positions(columns))[None]
    ).patches[0]

    pixels = {}
    for patch in patches:
        mel, frame = height * (patch // columns), width * (patch % columns)
        cut = spectrogram[mel : mel + height, frame : frame + width]
        whole = spectrogram.new_zeros(height, width)
        whole[: cut.shape[0], : cut.shape[1]] = cut
        pixels[patch] = whole.flatten()

    nce, mse = 0.0, 0.0
    for patch in patches:
        prediction = objective.discriminative_head(encoded[patch])
        if objective.config.softmax_axis == "patches":
            scores = [prediction @ pixels[other] for other in patches]
        else:
            scores = [
                objective.discriminative_head(encoded[other]) @ pixels[patch] for other in patches
            ]
        nce += torch.logsumexp(torch.stack(scores), dim=0) - prediction @ pixels[patch]
        mse += (objective.generative_head(encoded[patch]) - pixels[patch]).square().mean()
    return nce, mse


def slow_losses(objective, data, purpose="mask"):
    features, hidden = objective.features(data), hidden_patches(objective, data, purpose)
    columns = objective.encoder.grid.columns(features.spectrogram.shape[-1])
    total, sums = 0, torch.zeros(2, dtype=torch.float64)
    for clip, length in enumerate(data.lengths.tolist()):
        frames = objective.front_end.frames(length)
        own = objective.encoder.grid.columns(frames)
        there = hidden.indices[clip, hidden.valid[clip]].tolist()
        alone = [token // columns * own + token % columns for token in there]
        sums += torch.stack(slow_clip(objective, features.spectrogram[clip, :, :frames], alone))
        total += len(alone)
    return sums / total, total


@pytest.mark.parametrize("axis", ["patches", "predictions"])
@pytest.mark.parametrize(("patch", "mask"), [((16, 16), "cluster"), ((32, 8), "random")])
@torch.inference_mode()
def test_loss_is_that_of_the_slow_loop(patch, mask, axis):
    objective, data = ssast(patch, mask=mask, softmax_axis=axis, generative_weight=3.0), batch()
    output = objective(data, 0)
    (nce, mse), total = slow_losses(objective, data)
    torch.testing.assert_close(output.metrics["nce"], nce)
    torch.testing.assert_close(output.metrics["mse"], mse)
    torch.testing.assert_close(output.loss, nce + 3 * mse)
    assert output.weight == total


@torch.inference_mode()
def test_two_passes_have_a_mask_each():
    objective, data = ssast(two_pass=True), batch()
    output = objective(data, 0)
    (first, _), (_, second) = (
        slow_losses(objective, data)[0],
        slow_losses(objective, data, "second mask")[0],
    )
    torch.testing.assert_close(output.loss, first + 10 * second)
    masks = [
        hidden_patches(objective, data, purpose).as_mask(56) for purpose in ("mask", "second mask")
    ]
    assert (masks[0] != masks[1]).any(dim=1).all()
    assert torch.equal(masks[0].sum(dim=1), masks[1].sum(dim=1))


@pytest.mark.parametrize("pretext", ["discriminative", "generative"])
def test_one_pretext_alone_has_its_head_its_loss_and_no_other(pretext):
    objective, data, joint = ssast(pretext=pretext), batch(), ssast()
    name, other = ("nce", "mse") if pretext == "discriminative" else ("mse", "nce")
    heads = {key.split("_head")[0] for key in objective.state_dict() if "_head" in key}
    assert heads == {pretext}
    joint.load_state_dict(joint.state_dict() | objective.state_dict())
    output = objective(data, 0)
    assert torch.equal(output.loss, output.metrics[name])
    assert other not in output.metrics
    torch.testing.assert_close(output.loss, joint(data, 0).metrics[name])
    output.loss.backward()
    assert all(
        p.grad is not None for key, p in objective.named_parameters() if key != "encoder.cls_token"
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"mask": "random"},
        {"two_pass": True},
        {"softmax_axis": "predictions"},
        {"num_masked": 40},
        {"mask_ratio": 0.02},
    ],
    ids=str,
)
@torch.inference_mode()
def test_neighbours_cannot_change_a_clips_loss(settings):
    objective, data = ssast(**settings), batch()
    objective.begin(plan(1.0))
    together, sums, weights = objective(data, 3), 0.0, 0.0
    for clip, length in enumerate(LENGTHS):
        one = slice(clip, clip + 1)
        output = objective(Batch(data.wave[one, :length], data.lengths[one], data.keys[one]), 3)
        sums, weights = sums + output.loss * output.weight, weights + output.weight
    assert weights == together.weight
    torch.testing.assert_close(sums / weights, together.loss, rtol=1e-9, atol=0)


@torch.inference_mode()
def test_the_paper_hides_400_of_512_and_as_large_a_share_of_shorter_clips():
    objective, data = ssast(num_masked=400), batch((164080, 82000))
    objective.begin(plan(10.255))
    assert objective.masking.window == 512
    assert hidden_patches(objective, data).valid.sum(dim=1).tolist() == [400, 200]


def test_the_window_is_what_the_front_end_pads_to():
    objective = ssast(num_masked=400, front_end={"padding": "legacy", "target_frames": 1024})
    objective.begin(plan(10.0))
    assert objective.masking.window == 512
    assert hidden_patches(objective, batch((160000, 16000))).valid.sum(dim=1).tolist() == [400, 400]


@torch.inference_mode()
def test_what_is_hidden_does_not_reach_the_tokens():
    objective, data = ssast(), batch()
    features, grid = objective.features(data), objective.encoder.grid
    hidden = objective.mask_patches(data, features, 0).masked
    shown = ~hidden.as_mask(features.valid.shape[1]) & features.valid
    seen = objective.encode(features, hidden)
    for changed, same in ((~shown, True), (shown, False)):
        patches = grid.split(features.spectrogram)
        patches = torch.where(changed[..., None], patches + 100.0, patches)
        other = Features(grid.join(patches, features.spectrogram.shape[-1]), features.valid)
        again = objective.encode(other, hidden)
        assert torch.equal(again[hidden.valid], seen[hidden.valid]) == same


@torch.inference_mode()
def test_bfloat16_is_finite_and_near():
    data = batch()
    data.wave = data.wave.float()
    objective = ssast().float()
    exact = objective(data, 0)
    with torch.autocast("cpu", torch.bfloat16):
        rough = objective(data, 0)
    assert rough.loss.dtype == torch.float32
    torch.testing.assert_close(rough.loss, exact.loss, rtol=5e-3, atol=0)


@torch.inference_mode()
def test_scores_of_raw_patches_are_float32_under_autocast():
    objective, data = ssast().float(), batch()
    data.wave = data.wave.float()
    features, hidden = objective.features(data), hidden_patches(objective, data)
    objective.discriminative_head = nn.Identity()
    predictions = torch.randn(
        *hidden.indices.shape, 256, generator=torch.Generator().manual_seed(0)
    )
    exact = objective.discriminative_loss(features, hidden, predictions)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(
            objective.discriminative_loss(features, hidden, predictions)["nce"], exact["nce"]
        )


@pytest.mark.parametrize("patch", PATCHES)
def test_any_patch_and_any_length_from_one_patch_up(patch):
    objective = ssast(patch).float()
    frames = patch[1]
    for count in (1, 2, 3, 40):
        samples = 400 + 160 * (count * frames - 1)
        data = batch((samples, samples + 160, 401))  # whole patches; one frame more; one frame
        data.wave = data.wave.float()
        output = objective(data, count)
        output.loss.backward()
        assert output.loss.isfinite()
        features = objective.features(data)
        hidden = objective.mask_patches(data, features, count).masked
        patches = features.valid.sum(dim=1)
        assert torch.equal(hidden.valid.sum(dim=1), torch.minimum(patches * 3 // 4, patches - 1))
        assert not (hidden.as_mask(features.valid.shape[1]) & ~features.valid).any()
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "settings", [{}, {"sampler": "legacy", "front_end": {"padding": "legacy"}}], ids=str
)
@pytest.mark.parametrize("others", [(), (16000,)])
def test_a_clip_of_a_single_patch_hides_nothing_and_is_harmless(others, settings):
    frames = settings.get("front_end", {}).get("padding") == "legacy" and others
    objective = ssast((128, 16), mask="cluster", **settings)
    data = batch((ONE_PATCH, *others))
    hidden = hidden_patches(objective, data)
    assert bool(hidden.valid[0].any()) == bool(
        frames
    )  # legacy padding makes the clip as long as its neighbour
    output = objective(data, 0)
    output.loss.backward()
    assert output.loss.isfinite()
    assert output.weight == hidden.valid.sum()
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.grad is not None)


@pytest.mark.parametrize("axis", ["patches", "predictions"])
def test_silence_is_unanswerable_but_harmless(axis):
    objective = ssast(softmax_axis=axis)
    output = objective(batch(silent=True), 0)
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.grad is not None)

    whole_patches = objective(batch((400 + 63 * 160,), silent=True), 0)
    assert whole_patches.weight == 24
    assert whole_patches.metrics["accuracy"] == 1  # there is nothing to tell apart
    if axis == "patches":
        assert whole_patches.metrics["nce"].item() == pytest.approx(math.log(24))


@pytest.mark.parametrize("mask", ["cluster", "random"])
def test_chance_is_a_function_of_seed_key_and_step(mask):
    data, objective = batch(), ssast(mask=mask)
    base = hidden_patches(objective, data).as_mask(56)
    assert torch.equal(hidden_patches(ssast(mask=mask), data).as_mask(56), base)
    other_seed = hidden_patches(ssast(mask=mask, seed=1), data)
    other_step = objective.mask_patches(data, objective.features(data), 1).masked
    data.keys = data.keys + 1
    for other in (other_seed, other_step, hidden_patches(objective, data)):
        assert (other.as_mask(56) != base).any(dim=1).all()


def test_squares_on_patches_and_single_ones_on_frames():
    assert ssast((16, 16)).masking.config.kind == "cluster"
    assert ssast((128, 2)).masking.config.kind == "random"
    assert ssast((128, 2), mask="cluster").masking.config.kind == "cluster"
    assert ssast((16, 16), mask="random").masking.config.kind == "random"


def test_the_legacy_sampler_is_used_where_asked():
    objective = ssast(sampler="legacy", front_end={"padding": "legacy"})
    data = batch((16000,) * 64)
    mask = hidden_patches(objective, data).as_mask(56).view(64, 8, 7)
    assert not mask[:, 0, 0].any()
    assert mask[:, 0].double().mean() < mask[:, 4].double().mean() - 0.2
    assert mask.sum(dim=(1, 2)).eq(42).all()


@pytest.mark.parametrize(
    "settings",
    [{"sampler": "uniform"}, {"sampler": "legacy", "front_end": {"padding": "legacy"}}],
    ids=str,
)
def test_larger_squares_hide_more_neighbours_together(settings):
    pairs = []
    for side in (1, 5):
        objective = ssast(cluster_sides=(side,), mask_ratio=0.3, **settings)
        mask = hidden_patches(objective, batch((16000,) * 64)).as_mask(56).view(64, 8, 7).double()
        pairs.append((mask[:, :, 1:] * mask[:, :, :-1]).sum())
    assert pairs[1] > 2 * pairs[0]


@pytest.mark.parametrize(
    ("settings", "seconds", "message"),
    [
        (
            {"num_masked": 56},
            1.0,
            r"num_masked = 56; allowed: 1 to 55 masked patches, since 98 frames give 8 x 7 = 56",
        ),
        ({"mask_ratio": 0.999}, 1.0, r"mask_ratio = 0.999; allowed: 1 to 55"),
        ({"mask_ratio": 0.01}, 1.0, r"mask_ratio = 0.01; allowed: 1 to 55"),
        ({"patch": (128, 16)}, 0.1, r"no patch .* since 8 frames give 1 x 1"),
        ({"stride": (16, 10)}, 1.0, r"encoder.stride = \(16, 10\); allowed: \(16, 16\)"),
        (
            {"num_masked": 54, "sampler": "legacy", "front_end": {"padding": "legacy"}},
            1.0,
            r"num_masked = 54; allowed: 1 to 53",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_first_step(settings, seconds, message):
    objective = ssast(**settings)
    with pytest.raises(ConfigError, match=message):
        objective.begin(plan(seconds))


@pytest.mark.parametrize(
    "settings", [{"num_masked": 55}, {"num_masked": 1}, {"mask_ratio": 0.98}, {"mask_ratio": 0.02}]
)
def test_the_ends_of_what_is_allowed_are_trained(settings):
    objective, data = ssast(**settings), batch((16000,))
    objective.begin(plan(1.0))
    output = objective(data, 0)
    assert output.loss.isfinite()
    assert output.weight == settings.get("num_masked", int(56 * settings.get("mask_ratio", 0)))


def test_the_legacy_sampler_is_refused_with_padding():
    with pytest.raises(
        ConfigError, match=r"objective.sampler = 'legacy'; allowed: 'uniform', or 'legacy' with"
    ):
        ssast(sampler="legacy")
    assert (
        ssast((128, 2), sampler="legacy").masking.config.kind == "random"
    )  # single patches know padding


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_ratio": 0.0}, "mask_ratio = 0.0"),
        ({"mask_ratio": 1.0}, "mask_ratio = 1.0"),
        ({"num_masked": 0}, "num_masked = 0"),
        ({"cluster_sides": ()}, "cluster_sides"),
        ({"cluster_sides": (3, 0)}, "cluster_sides"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        SSAST.Config(**settings)


@torch.inference_mode()
def test_picture_shows_what_was_seen_and_what_was_rebuilt():
    objective, data = ssast(), batch((9000, 16000))
    picture = objective.picture(data, 0)
    features, grid = objective.features(data), objective.encoder.grid
    hidden = objective.mask_patches(data, features, 0).masked
    mask = grid.join(hidden.as_mask(56)[:1, :, None].double().expand(-1, -1, 256), 98)[0] > 0
    clean = objective.front_end.denormalise(features.spectrogram)[0]
    torch.testing.assert_close(picture.clean, clean)
    assert torch.equal(picture.masked, mask)
    assert torch.equal(picture.input.isnan(), mask)
    assert picture.masked_is_blank
    torch.testing.assert_close(picture.input[~mask], clean[~mask])
    torch.testing.assert_close(picture.reconstruction[~mask], clean[~mask])
    rebuilt = objective.generative_head(objective.encode(features, hidden))[0, 5]
    row, column = divmod(int(hidden.indices[0, 5]), 7)
    shown = picture.reconstruction[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
    expected = objective.front_end.denormalise(rebuilt.view(16, 16))
    torch.testing.assert_close(shown, expected[:, : shown.shape[1]])


def test_there_is_no_picture_without_reconstruction():
    assert ssast(pretext="discriminative").picture(batch(), 0) is None
