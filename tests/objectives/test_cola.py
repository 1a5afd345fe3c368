import math
import re

import pytest
import torch
from objectives.tiny_asit import FRAMES, batch, samples, seconds
from objectives.tiny_cola import CROP, LONGEST, cola, plan
from poolings import POOLINGS

from melpatch.audio.augment import noise
from melpatch.data.clip import Batch
from melpatch.encoders.cnn14 import CNN14
from melpatch.errors import ConfigError
from melpatch.nn.whole_step import Rows
from melpatch.objectives.cola import COLA
from melpatch.rng import stream

STEP = 2
MANY = (48, 20, 31, 5, 24, 40, 29)


def begun(**settings):
    """Ready, and with a projection in which no number is a round one."""
    objective, generator = cola(**settings), torch.Generator().manual_seed(0)
    objective.begin(plan())
    with torch.no_grad():
        for name, parameter in objective.named_parameters():
            if not name.startswith("encoder."):
                parameter += 0.2 * torch.randn(
                    parameter.shape, generator=generator, dtype=parameter.dtype
                )
    return objective.eval()


def compared(objective, rows):
    """Return losses and hits of clips that have no others to be compared with."""
    return objective.compare(rows, len(rows.keys))


# ---------------------------------------------------------------------------------------------------------- the crops


def pieces(objective, data, step=STEP):
    """Return the crops of each clip without padding: the first ones, the second ones."""
    crops = objective.crops(data, step)
    frames = objective.front_end.frames(data.lengths).clamp(max=CROP).tolist()
    cut = [crop[:, :own] for crop, own in zip(crops.spectrogram, 2 * frames, strict=True)]
    return cut[: len(data)], cut[len(data) :]


def places(piece, whole):
    """Return the frames of a clip's spectrogram at which a piece of it starts."""
    width = piece.shape[1]
    return [
        at
        for at in range(whole.shape[1] - width + 1)
        if torch.equal(whole[:, at : at + width], piece)
    ]


def test_crops_are_pieces_of_their_clip_from_anywhere():
    objective, data = begun(), batch((28, 20))
    spectrogram, frames = objective.front_end(data.wave, data.lengths)
    starts = [set(), set()]
    for step in range(40):
        for number, crops in enumerate(pieces(objective, data, step)):
            for clip, (piece, own) in enumerate(zip(crops, frames.tolist(), strict=True)):
                (at,) = places(piece, spectrogram[clip, :, :own])
                assert piece.shape[1] == min(own, CROP)
                if clip == 0:
                    starts[number].add(at)
    assert starts == [set(range(28 - CROP + 1))] * 2


def test_the_two_crops_of_a_clip_are_drawn_apart_and_those_of_a_short_one_are_it():
    first, second = pieces(begun(), batch())
    assert [torch.equal(*both) for both in zip(first, second, strict=True)] == [
        False,
        True,
        False,
        True,
    ]


def test_of_a_short_clip_a_crop_is_a_share_but_a_patch_at_least():
    data = batch((60, 30, 17, 9))
    crops = begun(max_crop_ratio=0.5).crops(data, STEP)
    columns = crops.valid.view(2, 4, 4, 3).any(dim=2).sum(dim=2)
    assert columns.tolist() == [[3, 2, 2, 1]] * 2  # 24, 15, 9 and 8 frames, in patches of 8
    first, second = crops.spectrogram.chunk(2)
    assert first.shape[2] == CROP
    for clip, own in enumerate((24, 15, 9, 8)):
        assert not first[clip, :, own:].any()
        assert clip == 3 or not torch.equal(
            first[clip], second[clip]
        )  # of 9 frames there are two pieces only


def test_padding_is_not_valid():
    valid = begun().crops(batch(), STEP).valid.view(2, 4, 4, 3)  # crop, clip, row, column
    assert valid.sum(dim=3).unique(dim=2)[..., 0].tolist() == [[3, 3, 3, 1]] * 2
    assert begun().crops(batch((24, 30)), STEP).valid is None


@pytest.mark.parametrize(
    ("crop_seconds", "segment", "expected"),
    [(None, 10.0, 1.0), (None, 1.2, 0.6), (0.3, 10.0, 0.3), (4.0, 5.0, 4.0)],
)
def test_a_crop_is_of_a_second_or_half_a_segment_unless_told_otherwise(
    crop_seconds, segment, expected
):
    assert COLA.input_seconds(COLA.Config(crop_seconds=crop_seconds), segment) == expected


def test_crops_are_as_long_as_the_plan_says_and_without_one_as_the_batch_does():
    objective, data = cola(crop_seconds=None, max_crop_ratio=0.5), batch()
    assert objective.crops(data, STEP).spectrogram.shape[2] == objective.front_end.frames(
        samples(48) // 2
    )
    objective.begin(plan(seconds=1.5, longest_segment=1.5))
    assert objective.crops(batch((150, 20)), STEP).spectrogram.shape[
        2
    ] == objective.front_end.frames(6000)


def test_noise_is_in_the_second_crops_alone_and_as_loud_as_told():
    plain, noisy, data = begun(), begun(noise_snr_db=6.0), batch()
    state = stream(0, "noise", data.keys, STEP)
    wave = noise(data.wave, data.lengths, state, (6.0, 6.0))
    ratio = data.wave.square().sum(dim=1) / (wave - data.wave).square().sum(dim=1)
    torch.testing.assert_close(10 * ratio.log10(), torch.full_like(ratio, 6.0), rtol=0, atol=0.5)
    whole, _ = plain.front_end(wave, data.lengths)
    (first, second), (same, changed) = pieces(plain, data), pieces(noisy, data)
    assert all(map(torch.equal, first, same))
    for clip in range(len(data)):
        assert not torch.equal(second[clip], changed[clip])
        assert places(changed[clip], whole[clip, :, : FRAMES[clip]])
    again = pieces(noisy, data, STEP + 1)[1]
    assert not torch.equal(again[3], changed[3])  # a whole clip, whose place cannot have changed


# ----------------------------------------------------------------------------------------------------------- the loss


def slow_vector(objective, piece):
    """Return the projection of a crop, encoded by itself, as a list."""
    tokens = objective.encoder(piece[None]).patches[0]
    pooled = tokens.mean(dim=0) if objective.config.pooling == "mean" else tokens.max(dim=0).values
    linear, norm, _ = objective.projection
    line = (linear.weight @ pooled + linear.bias).tolist()
    mean = sum(line) / len(line)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in line) / len(line) + norm.eps)
    scaled = zip(line, norm.weight.tolist(), norm.bias.tolist(), strict=True)
    return [math.tanh((x - mean) / deviation * gain + offset) for x, gain, offset in scaled]


def slow_similarity(objective, one, other):
    if objective.config.similarity == "bilinear":
        size, weight = range(len(one)), objective.bilinear.tolist()
        return sum(one[i] * weight[i][j] * other[j] for i in size for j in size)
    lengths = [math.sqrt(sum(x * x for x in vector)) for vector in (one, other)]
    return (
        sum(x * y for x, y in zip(one, other, strict=True))
        / lengths[0]
        / lengths[1]
        / objective.config.temperature
    )


def slow_loss(objective, data):
    """Return the loss, the accuracy and the spread, one score at a time."""
    first, second = (
        [slow_vector(objective, piece) for piece in crops] for crops in pieces(objective, data)
    )
    clips = range(len(data))
    score = [[slow_similarity(objective, first[i], second[j]) for j in clips] for i in clips]
    losses = [-math.log(math.exp(score[i][i]) / sum(map(math.exp, score[i]))) for i in clips]
    if objective.config.symmetric:
        losses += [
            -math.log(math.exp(score[i][i]) / sum(math.exp(score[j][i]) for j in clips))
            for i in clips
        ]
    accuracy = sum(max(clips, key=lambda j: score[i][j]) == i for i in clips) / len(data)
    columns = list(zip(*first, strict=True))
    deviations = [
        math.sqrt(sum((x - sum(one) / len(one)) ** 2 for x in one) / len(one)) for one in columns
    ]
    return sum(losses) / len(losses), accuracy, sum(deviations) / len(deviations)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    "how", [{}, {"similarity": "cosine", "temperature": 0.3}, {"pooling": "max"}], ids=str
)
@torch.inference_mode()
def test_loss_and_metrics_are_those_of_the_slow_loop(how, symmetric):
    objective, data = begun(symmetric=symmetric, **how), batch(MANY)
    output = objective(data, STEP)
    loss, accuracy, spread = slow_loss(objective, data)
    assert output.loss.item() == pytest.approx(loss, abs=1e-12)
    assert output.metrics["accuracy"].item() == pytest.approx(accuracy)
    assert output.metrics["spread"].item() == pytest.approx(spread, abs=1e-12)
    assert output.weight == len(MANY)


@torch.inference_mode()
def test_the_settings_differ():
    settings = [
        {},
        {"symmetric": True},
        {"similarity": "cosine"},
        {"pooling": "max"},
        {"noise_snr_db": 3.0},
    ]
    assert len({begun(**one)(batch(MANY), STEP).loss.item() for one in settings}) == len(settings)


def test_the_matrix_starts_as_the_identity_or_as_published():
    assert torch.equal(cola().bilinear, torch.eye(6).double())
    random = cola(init="random", projection=300).bilinear
    assert random.std().item() == pytest.approx(0.05, rel=0.02)
    assert random.diagonal().mean().abs() < 0.02
    assert "bilinear" not in dict(cola(similarity="cosine").named_parameters())


@torch.inference_mode()
def test_clips_that_are_the_same_cannot_be_told_apart():
    data = batch((24, 24, 24))
    data.wave[:] = data.wave[0]
    output = begun()(data, STEP)
    assert output.loss.item() == pytest.approx(math.log(3))
    assert output.metrics["spread"].item() == pytest.approx(0.0, abs=1e-12)


@torch.inference_mode()
def test_a_clip_that_a_batch_holds_twice_is_not_told_from_itself():
    data = batch((24, 30, 28, 30))
    data.wave[3], data.keys[3] = data.wave[1], data.keys[1]
    objective = begun()
    own = objective.project(data, STEP)
    loss, hit = compared(objective, own)
    for row in range(4):
        rows = [other for other in range(4) if other == row or data.keys[other] != data.keys[row]]
        among = Rows(*(part[rows] for part in own))
        expected, found = compared(objective, among)
        torch.testing.assert_close(loss[row], expected[rows.index(row)], rtol=1e-9, atol=0)
        assert hit[row] == found[rows.index(row)]


def test_a_lone_clip_costs_nothing_and_teaches_nothing():
    """As where the others of its batch could not be read."""
    objective = begun()
    output = objective(batch((48,)), STEP)
    output.loss.backward()
    assert output.loss == 0
    assert all(
        not parameter.grad.any()
        for parameter in objective.encoder.parameters()
        if parameter.grad is not None
    )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_any_encoder_learns_by_any_pooling(pooling):
    objective = begun(
        encoder=CNN14.Config(width=2), pooling=pooling, crop_seconds=seconds(40)
    ).train()
    objective(batch((80, 70, 33)), STEP).loss.backward()
    assert all(block.conv1.weight.grad.any() for block in objective.encoder.blocks)
    assert objective.export_encoder() is objective.encoder
    assert objective.picture(batch(), STEP) is None


def test_what_is_encoded_to_be_compared_leaves_the_running_statistics():
    objective = begun(encoder=CNN14.Config(width=2), crop_seconds=seconds(40)).train()
    before = {name: value.clone() for name, value in objective.named_buffers()}
    assert any("running_mean" in name for name in before)
    with torch.no_grad():
        objective.prepare([batch((80, 70)), batch((33, 80))], STEP)
    assert all(torch.equal(value, before[name]) for name, value in objective.named_buffers())


def test_losses_are_float32_under_autocast():
    objective, data = begun().float(), batch()
    data.wave = data.wave.float()
    with torch.autocast("cpu", torch.bfloat16):
        crops = objective.crops(data, STEP)
        vectors = Rows(objective.embed(crops), data.keys)
        assert objective.encoder(*crops).patches.dtype == torch.bfloat16
        loss, _ = compared(objective, vectors)
    assert {one.dtype for one in (vectors.features, loss)} == {torch.float32}
    torch.testing.assert_close(loss, compared(objective, vectors)[0], rtol=0, atol=0)


# -------------------------------------------------------------------------------------------------- refusals, warnings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_seconds": 0.0}, "crop_seconds = 0.0; allowed: seconds above 0, or none"),
        ({"noise_snr_db": math.inf}, "noise_snr_db = inf; allowed: a finite number of dB, or none"),
        ({"projection": 0}, "projection = 0; allowed: 1 or more"),
        ({"temperature": 0.0}, "temperature = 0.0; allowed: above 0"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError) as wrong:
        COLA.Config(**settings)
    assert str(wrong.value) == message


def test_a_front_end_whose_padding_is_sound_is_refused():
    with pytest.raises(
        ConfigError,
        match=r"front_end.padding = 'legacy'; allowed: 'masked', so that no crop is padd",
    ):
        cola(front_end={"padding": "legacy"})


@pytest.mark.parametrize(
    ("negatives", "changes", "least"),
    [
        ("processes", {"batch_size": 1}, 2),
        ("batch", {"batch_size": 4, "accumulate": 4}, 8),
        ("batch", {"batch_size": 4, "accumulate": 2, "world_size": 2}, 8),
    ],
)
def test_a_clip_that_has_no_other_to_be_told_from_is_refused(negatives, changes, least):
    message = f"batch_size = {changes['batch_size']}; allowed: {least} or more, since other clips are the negatives"
    with pytest.raises(ConfigError, match=message):
        cola(negatives=negatives).begin(plan(**changes))
    cola(negatives="processes").begin(plan(batch_size=4, accumulate=2, world_size=2))


@pytest.mark.parametrize(("crop", "fits"), [(8, True), (7, False), (48, True), (49, False)])
def test_a_crop_is_of_a_patch_at_least_and_no_longer_than_the_longest_segment(crop, fits):
    objective = cola(crop_seconds=seconds(crop))
    if fits:
        return objective.begin(plan())
    allowed = f"allowed: {seconds(8):g} \\(one patch\\) to {LONGEST:g}, the longest segment"
    with pytest.raises(ConfigError, match=f"objective.crop_seconds = .*; {allowed}"):
        objective.begin(plan())


@pytest.mark.parametrize(
    ("step", "found", "message"),
    [
        (0, {"loss": 9.0, "spread": 0.0}, None),
        (10, {"loss": 1.37, "spread": 0.3}, None),
        (
            10,
            {"loss": 1.38, "spread": 0.3},
            "the loss is no better than ln 4 = 1.39, what guessing costs; try .*",
        ),
        (
            10,
            {"loss": 9.0, "spread": 0.3, "accuracy": 0.25},
            "the loss is no better than ln 4 = 1.39, .*",
        ),
        (10, {"loss": 9.0, "spread": 0.3, "accuracy": 0.75}, None),
        (
            90,
            {"loss": 1.38, "spread": 0.005},
            "collapse: all clips have the same embedding; try a lower --lr, .*cosine",
        ),
        (90, {"loss": 1.0, "spread": 0.005}, None),
    ],
    ids=str,
)
def test_a_run_that_learns_nothing_is_told(step, found, message):
    objective = cola()
    objective.begin(plan(steps=100, batch_size=4, accumulate=2))
    said = objective.warning(found, step)
    assert said is message or re.fullmatch(message, said)


def test_what_is_told_is_what_a_collapsed_encoder_gives():
    objective, data = begun(), batch((24, 30, 40, 48))
    with torch.no_grad():
        objective.projection[0].weight.zero_()
    output = objective(data, STEP)
    record = {
        "loss": output.loss.item(),
        **{name: value.item() for name, value in output.metrics.items()},
    }
    assert objective.warning(record, 10).startswith("collapse: ")


def test_a_clip_is_the_same_whatever_its_place_in_the_batch():
    objective, data = begun(), batch(MANY)
    back = Batch(data.wave.flip(0), data.lengths.flip(0), data.keys.flip(0))
    losses = [compared(objective, objective.project(one, STEP))[0] for one in (data, back)]
    torch.testing.assert_close(losses[0], losses[1].flip(0), rtol=0, atol=1e-12)
