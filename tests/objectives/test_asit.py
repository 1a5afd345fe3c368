import math
from collections import defaultdict
from dataclasses import replace
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from objectives.tiny_asit import FRAMES, HEADS, OWN, PATCH, STEP, asit, batch, begun, plan, seconds

from melpatch.data.clip import Batch
from melpatch.nn.corruption import Corruption
from melpatch.objectives.asit import ASiT
from melpatch.objectives.base import Features

# ------------------------------------- a slow version: clip by clip, view by view, token by token, from the formulas


def alone(objective, frames, *spectrograms):
    """Spectrograms of one view without the padding that neighbours brought: whole patches, and how many columns."""
    drop = objective.encoder.grid.partial == "drop" and frames >= PATCH
    columns = frames // PATCH if drop else math.ceil(frames / PATCH)
    return columns, [one[:, : columns * PATCH] for one in spectrograms]


def patch_of(objective, spectrogram, token, columns):
    row, column = divmod(token, columns)
    height = objective.encoder.grid.rows * PATCH
    whole = F.pad(spectrogram.double(), (0, 0, 0, height - len(spectrogram)))
    return whole[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]


def logits(heads, token, name):
    vector = heads.trunks[heads.trunk_of[name]](token)
    prototypes = heads.prototypes[heads.prototypes_of[name]].direction
    return prototypes / prototypes.norm(dim=1, keepdim=True) @ (vector / vector.norm())


def told_from(objective, name, said, told):
    """Cross-entropy of one token of the student with one of the teacher, and the entropy of the latter."""
    distillation = objective.distillation
    temperature = 0.04 + 0.03 * (STEP / 10) / 0.5
    with torch.no_grad():
        centred = logits(distillation.teacher, told, name) - distillation.targets[name].centre
        wanted = torch.softmax(centred / temperature, dim=0)
    found = torch.log_softmax(logits(distillation.student, said, name) / 0.1, dim=0)
    return -(wanted * found).sum(), -(wanted * wanted.log()).sum()


def slow_clip(objective, views, clip, frames):
    """Lists of a clip's pixel errors, its tokens' (cross-entropy, entropy, share corrupted), and its pairs of views."""
    config, clips = objective.config, len(views.clean) // objective.config.views
    pixels, tokens, said_by, told_by = [], [], [], []
    for row in range(clip, len(views.clean), clips):
        columns, (clean, seen, hidden) = alone(
            objective, min(frames, 24), views.clean[row], views.corrupted[row], views.mask[row]
        )
        sound = torch.zeros_like(clean)
        sound[:, : min(frames, 24)] = 1
        said = objective.encoder(seen[None])
        told = objective.teacher(clean[None]) if objective.teacher is not None else said
        said_by.append(said.cls[0].mean(dim=0))
        told_by.append(told.cls[0].mean(dim=0))
        for token in range(objective.encoder.grid.rows * columns):
            x, m, s = (patch_of(objective, one, token, columns) for one in (clean, hidden, sound))
            if objective.decoder is not None:
                wrong = (objective.decoder(said.patches[0, token]).view(PATCH, PATCH) - x).abs()
                pixels += wrong[(m if config.pixels == "corrupted" else s) > 0]
            if config.local_weight:
                entropies = told_from(
                    objective, "local", said.patches[0, token], told.patches[0, token]
                )
                tokens.append((*entropies, float(m.sum() / s.sum())))
    for crop in range(clip, clips * config.local_crops if views.local_crops else 0, clips):
        _, (short,) = alone(objective, min(frames, 12), views.local_crops.spectrogram[crop])
        said_by.append(objective.encoder(short[None]).cls[0].mean(dim=0))
    pairs = [
        told_from(objective, "global", said, told)
        for other, told in enumerate(told_by)
        for view, said in enumerate(said_by)
        if view != other and config.global_weight
    ]
    return pixels, tokens, pairs


def mean(values):
    return sum(values) / len(values) if values else torch.zeros((), dtype=torch.float64)


def slow_tokens(config, tokens, which):
    """The mean over the wanted tokens of their cross-entropy (which = 0) or entropy (1)."""
    corrupted = [
        token[which] for token in tokens if token[2] > 0 and token[2] >= config.corrupted_threshold
    ]
    intact = [
        token[which]
        for token in tokens
        if not (token[2] > 0 and token[2] >= config.corrupted_threshold)
    ]
    if config.local_tokens == "all":
        return mean(corrupted + intact)
    if config.local_tokens == "corrupted":
        return mean(corrupted)
    return config.intact_weight * mean(intact) + (1 - config.intact_weight) * mean(corrupted)


def slow_metrics(objective, data, views):
    config, found = objective.config, defaultdict(list)
    clips = [slow_clip(objective, views, clip, FRAMES[clip]) for clip in range(len(data))]
    everything = tuple(list(chain(*lists)) for lists in zip(*clips, strict=True))
    for pixels, tokens, pairs in clips if config.average == "clip" else [everything]:
        found["pixel"].append(mean(pixels))
        for which, name in enumerate(("", "_entropy")):
            found["local" + name].append(slow_tokens(config, tokens, which))
            found["global" + name].append(mean([pair[which] for pair in pairs]))
    return {name: mean(values) for name, values in found.items()}


ONE = {"pixel_weight": 0.0, "local_weight": 0.0, "global_weight": 0.0}
CASES = [
    {},
    {"average": "batch"},
    {"local_tokens": "corrupted"},
    {"local_tokens": "corrupted", "corrupted_threshold": 0.6, "average": "batch"},
    {"local_tokens": "separate", "corrupted_threshold": 0.5, "intact_weight": 0.3},
    {"local_tokens": "separate", "intact_weight": 1.0, "average": "batch"},
    {"pixel_weight": 0.5, "local_weight": 2.0, "global_weight": 3.0},
    {"views": 3, "pixels": "all", "average": "batch"},
    {"views": 2, "local_crops": 3},
    {
        "views": 3,
        "local_crops": 1,
        "encoder": {"cls_tokens": 2, "positions": "learned", "columns": 3},
    },
    {"corrupt": False, "pixels": "all"},
    {
        "corruption": Corruption.Config(aligned=True, fill="noise"),
        "distillation": replace(HEADS, shared="none"),
    },
    {"decoder": (), "distillation": replace(HEADS, shared="all", local_prototypes=12)},
    {"encoder": {"partial": "drop"}},
    {"encoder": {"partial": "drop"}, "pixels": "all", "front_end": {"n_mels": 36}},
    {"front_end": {"n_mels": 36}, "local_tokens": "separate", "corrupted_threshold": 0.5},
    ONE | {"pixel_weight": 1.0, "views": 1},
    ONE | {"local_weight": 1.0, "views": 1},
    ONE | {"global_weight": 1.0},
]


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_losses_and_gradients_are_those_of_the_slow_loop(settings):
    objective, data = begun(**settings), batch()
    views = objective.views(data, STEP)
    slow = slow_metrics(objective, data, views)
    weights = {
        name: getattr(objective.config, f"{name}_weight") for name in ("pixel", "local", "global")
    }
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    expected = sum(weight * slow[name] for name, weight in weights.items())
    gradients = torch.autograd.grad(expected, trained, allow_unused=True)

    output = objective(data, STEP)
    torch.testing.assert_close(output.loss, expected, rtol=1e-9, atol=0)
    assert output.weight == len(data)
    for name, value in slow.items():
        if weights[name.partition("_")[0]]:
            torch.testing.assert_close(output.metrics[name], value, rtol=1e-9, atol=0)
    for found, gradient in zip(
        torch.autograd.grad(output.loss, trained, allow_unused=True), gradients, strict=True
    ):
        torch.testing.assert_close(found, gradient, rtol=1e-6, atol=1e-9)


# --------------------------------------------------------------------------------------------------- views and chance


@pytest.mark.parametrize(
    ("view_seconds", "width"), [(seconds(24), 24), (None, 28), (seconds(48), 48)]
)
@torch.inference_mode()
def test_views_and_crops_are_pieces_of_the_clips(view_seconds, width):
    objective, data = asit(view_seconds=view_seconds, views=3, local_crops=2), batch()
    objective.begin(plan())
    views, whole = objective.views(data, 0), objective.features(data).spectrogram
    assert views.clean.shape == (12, 32, math.ceil(width / PATCH) * PATCH)
    for row, start in enumerate(views.start.tolist()):
        frames = min(FRAMES[row % 4], width)
        assert 0 <= start <= max(0, FRAMES[row % 4] - width)
        assert torch.equal(views.clean[row, :, :frames], whole[row % 4, :, start : start + frames])
        assert not views.clean[row, :, frames:].any()
        assert views.valid_pixels[row, 0].sum() == frames
    for row, crop in enumerate(views.local_crops.spectrogram):
        frames = min(FRAMES[row % 4], 12)
        places = range(FRAMES[row % 4] - frames + 1)
        assert any(
            torch.equal(crop[:, :frames], whole[row % 4, :, at : at + frames]) for at in places
        )
    if width == 24:
        assert len(set(views.start[::4].tolist())) > 1
        assert not torch.equal(views.start, objective.views(data, 1).start)
        assert not torch.equal(views.local_crops.spectrogram[0], views.local_crops.spectrogram[4])
        assert not torch.equal(views.mask[1], views.mask[5])  # the same place, other blocks


@torch.inference_mode()
def test_without_a_plan_views_are_as_long_as_said_or_else_six_tenths_of_the_batch():
    assert asit(view_seconds=None).views(batch(), 0).clean.shape[2] == 32  # 28, in whole patches
    assert asit().views(batch(), 0).clean.shape[2] == 24


def test_what_is_heard_at_once_is_a_view():
    assert ASiT.input_seconds(ASiT.Config(), 10.0) == 6.0
    assert ASiT.input_seconds(ASiT.Config(view_seconds=2.5), 10.0) == 2.5


SPLIT = [
    {},
    {"local_crops": 2, "views": 3},
    {"encoder": {"partial": "drop"}},
    {"local_tokens": "separate"},
]


@pytest.mark.parametrize("fill", ["zeros", "noise", "silence"])
@pytest.mark.parametrize("settings", SPLIT, ids=str)
@torch.inference_mode()
def test_without_aliens_neighbours_cannot_change_a_clips_loss(settings, fill):
    objective, data = begun(corruption=replace(OWN, fill=fill), **settings), batch((48, 20, 31, 9))
    together, sums = objective(data, STEP), defaultdict(float)
    for clip, length in enumerate(data.lengths.tolist()):
        one = slice(clip, clip + 1)
        output = objective(Batch(data.wave[one, :length], data.lengths[one], data.keys[one]), STEP)
        for name, value in {"loss": output.loss, **output.metrics}.items():
            sums[name] += value * output.weight
    for name, total in sums.items():
        expected = {"loss": together.loss, **together.metrics}[name]
        torch.testing.assert_close(total / together.weight, expected, rtol=1e-9, atol=0)


# ------------------------------------------------------------------------------------------------ corruption, padding


@pytest.mark.parametrize(
    "corruption", [replace(OWN, fill=fill) for fill in ("zeros", "noise", "silence")], ids=str
)
@pytest.mark.parametrize("alien_probability", [0.0, 1.0])
@torch.inference_mode()
def test_what_is_hidden_does_not_reach_the_student(corruption, alien_probability):
    objective, data = (
        begun(corruption=replace(corruption, alien_probability=alien_probability)),
        batch(),
    )
    views, whole = objective.views(data, 0), objective.features(data).spectrogram
    encoded = objective.encoder(views.corrupted, views.valid)
    for row, start in enumerate(views.start.tolist()):
        for changed, same in (
            (views.mask[row], True),
            (views.valid_pixels[row] & ~views.mask[row], False),
        ):
            other, frames = whole.clone(), min(24, whole.shape[2] - start)
            other[row % 4, :, start : start + frames][changed[:, :frames]] += 100.0
            objective.features = lambda _, other=other: Features(other, None)
            again = objective.views(data, 0)
            assert torch.equal(again.mask, views.mask)
            assert not torch.equal(again.clean[row], views.clean[row])
            assert (
                torch.equal(
                    objective.encoder(again.corrupted, again.valid).patches[row],
                    encoded.patches[row],
                )
                == same
            )


@torch.inference_mode()
def test_silence_is_what_the_front_end_makes_of_zeros():
    objective = asit(
        corruption=replace(OWN, fill="silence"), front_end={"mean": -7.0, "std": 3.0, "scale": 2.0}
    )
    views = objective.views(batch(), 0)
    silence = objective.front_end(torch.zeros(1, 400, dtype=torch.float64), torch.tensor([400]))[0]
    torch.testing.assert_close(views.corrupted[views.mask].unique(), silence.unique())


@pytest.mark.parametrize("encoder", [{}, {"partial": "drop"}], ids=str)
@torch.inference_mode()
def test_padding_is_never_corrupted_and_in_no_loss(encoder):
    objective, data = begun(encoder=encoder, views=3), batch()
    views = objective.views(data, 0)
    assert not (views.mask & ~views.valid_pixels).any()
    assert torch.equal(views.corrupted[~views.mask], views.clean[~views.mask])
    assert not torch.equal(views.corrupted[views.mask], views.clean[views.mask])
    whole_tokens = 20 // PATCH * PATCH if encoder else 20
    assert views.valid_pixels.any(dim=1).sum(dim=1).tolist() == [24, whole_tokens, 24, 5] * 3
    loss = objective.losses(views, STEP).loss
    padding = torch.zeros_like(views.clean)
    padding[1::4, :, 24:] = padding[3::4, :, PATCH:] = 1e3
    changed = views._replace(clean=views.clean + padding, corrupted=views.corrupted + padding)
    assert torch.equal(objective.losses(changed, STEP).loss, loss)


@pytest.mark.parametrize("frames", [(48,), (5,), (1,), (1, 1), (20, 1)], ids=str)
@pytest.mark.parametrize(
    "settings", [{}, {"local_crops": 2}, {"corruption": Corruption.Config(aligned=True)}], ids=str
)
def test_few_and_short_clips_are_harmless(frames, settings):
    objective = begun(**settings)
    output = objective(batch(frames), STEP)
    output.loss.backward()
    assert output.loss.isfinite()
    assert output.metrics["pixel"] > 0
    assert all(
        parameter.grad.isfinite().all()
        for parameter in objective.parameters()
        if parameter.requires_grad
    )


def test_a_batch_without_a_token_corrupted_enough_has_no_local_loss_and_is_harmless():
    slight = replace(OWN, ratio=(0.05, 0.05), max_block_ratio=0.05)
    objective = begun(local_tokens="corrupted", corrupted_threshold=1.0, corruption=slight)
    output = objective(batch(), STEP)
    assert output.metrics["local"] == 0
    torch.testing.assert_close(output.loss, output.metrics["pixel"] + output.metrics["global"])
    centre = objective.distillation.targets["local"].centre.clone()
    output.loss.backward()
    objective.after_step(STEP)
    assert torch.equal(objective.distillation.targets["local"].centre, centre)
    assert all(
        parameter.grad.isfinite().all()
        for parameter in objective.parameters()
        if parameter.requires_grad
    )


def test_silent_clips_are_harmless():
    objective, data = begun(), batch()
    data.wave.zero_()
    output = objective(data, STEP)
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(
        parameter.grad.isfinite().all()
        for parameter in objective.parameters()
        if parameter.requires_grad
    )
