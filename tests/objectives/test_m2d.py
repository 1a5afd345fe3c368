"""M2D: who sees what, what moves when, and the loss against a loop over clips and places."""

import pytest
import torch
from objectives.tiny_asit import LONGEST, PATCH, batch
from objectives.tiny_masked import MELS, masked, slow_clips

from melpatch.errors import ConfigError
from melpatch.nn.ema import Momentum
from melpatch.objectives.base import Plan
from melpatch.objectives.m2d import M2D

PLAN = Plan(steps=10, batch_size=4, seconds=LONGEST, longest_segment=LONGEST)


def m2d(**settings):
    return masked(M2D, **settings)


def begun(**settings):
    objective = m2d(**settings)
    objective.begin(PLAN)
    return objective


def standardised(values):
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return [(value - mean) / (variance + 1e-6) ** 0.5 for value in values]


@pytest.mark.parametrize("cls_tokens", [0, 2])
@torch.inference_mode()
def test_loss_is_that_of_the_slow_loop(cls_tokens):
    """Each clip alone, cut to its length: the teacher gets its masked patches one by one."""
    objective, data = m2d(encoder={"cls_tokens": cls_tokens}), batch()
    losses = []
    for decoded, pixels in slow_clips(objective, data):
        teacher = objective.teacher
        columns = max(column for _, column in pixels) + 1
        positions = objective.encoder.positions(columns)
        tokens = [
            objective.encoder.projection(pixels[row, column]) + positions[row * columns + column]
            for row, column in decoded
        ]
        told = teacher.encode_tokens(torch.stack(tokens)[None]).patches[0]
        for token, target in zip(decoded.values(), told, strict=True):
            wanted = torch.tensor(standardised(target.tolist()), dtype=torch.float64)
            predicted = objective.head(token)
            losses.append(2 - 2 * torch.cosine_similarity(predicted, wanted, dim=0).item())
    output = objective(data, 0)
    assert output.loss.item() == pytest.approx(sum(losses) / len(losses))
    assert output.metrics["cosine"].item() == pytest.approx(1 - output.loss.item() / 2)
    assert output.weight == len(losses)


def parts(objective, spectrogram, data):
    """Return the targets and the student's tokens for a changed spectrogram."""
    features = objective.features(data)._replace(spectrogram=spectrogram)
    split = objective.mask_patches(data, features, 0)
    tokens = objective.encoder.tokens(spectrogram)
    seen = objective.encoder.encode_tokens(split.visible.gather(tokens), split.visible.valid)
    return objective.targets(features, tokens, split), seen.patches[split.visible.valid]


@pytest.mark.parametrize("teacher_sees", ["masked", "all"])
@torch.inference_mode()
def test_neither_sees_what_the_other_does(teacher_sees):
    objective, data = m2d(teacher_sees=teacher_sees), batch()
    features = objective.features(data)
    split = objective.mask_patches(data, features, 0)
    clean = features.spectrogram
    targets, seen = parts(objective, clean, data)
    patches = objective.encoder.grid.split(clean)
    changed = {}
    for name, subset in (("visible", split.visible), ("masked", split.masked)):
        louder = subset.scatter(subset.gather(patches) + 1.0, patches)
        spectrogram = objective.encoder.grid.join(louder, clean.shape[2])
        changed[name] = parts(objective, spectrogram, data)
    valid = split.masked.valid
    assert torch.equal(changed["visible"][0][valid], targets[valid]) == (teacher_sees == "masked")
    assert not torch.equal(changed["masked"][0][valid], targets[valid])
    assert torch.equal(changed["masked"][1], seen)
    assert not torch.equal(changed["visible"][1], seen)


@torch.no_grad()
def test_the_teacher_shares_the_embedding_and_follows_with_its_layers():
    objective, data = begun(momentum=Momentum(start=0.5)), batch()
    features = objective.features(data)
    split = objective.mask_patches(data, features, 0)

    def target():
        return objective.targets(features, objective.encoder.tokens(features.spectrogram), split)

    before = target()
    objective.encoder.transformer.blocks[0].mlp[0].weight.add_(1.0)
    assert torch.equal(target(), before)
    objective.encoder.projection.weight.add_(1.0)
    assert not torch.equal(target(), before)
    teacher = objective.teacher.transformer.blocks[0].mlp[0].weight.clone()
    objective.after_step(0)
    moved = objective.teacher.transformer.blocks[0].mlp[0].weight
    torch.testing.assert_close(moved - teacher, torch.full_like(moved, 0.5))
    assert torch.equal(objective.teacher.projection.weight, objective.encoder.projection.weight)


def test_momentum_moves_on_a_line():
    objective = begun(momentum=Momentum(start=0.9, end=1.0))
    weight = objective.teacher.transformer.blocks[0].mlp[0].weight
    with torch.no_grad():
        objective.encoder.transformer.blocks[0].mlp[0].weight.copy_(weight + 1.0)
        start = weight.clone()
        objective.after_step(5)
    torch.testing.assert_close(weight - start, torch.full_like(weight, 0.05))


def test_a_teacher_of_its_own_weights_differs_but_for_the_embedding():
    objective = begun(teacher_start="random")
    student = dict(objective.encoder.named_parameters())
    for name, parameter in objective.teacher.named_parameters():
        is_shared = objective.encoder.parameter_layers()[name] == 0
        if parameter.ndim > 1:
            assert torch.equal(parameter, student[name]) == is_shared, name
        assert not parameter.requires_grad
    again = begun(teacher_start="random")
    assert all(
        torch.equal(one, other)
        for one, other in zip(
            objective.teacher.parameters(), again.teacher.parameters(), strict=True
        )
    )


@torch.inference_mode()
def test_several_layers_are_averaged():
    one, both = m2d(target_layers=1), m2d(target_layers=2)
    data = batch()
    assert one(data, 0).loss != both(data, 0).loss


@torch.inference_mode()
def test_an_instance_norm_leaves_a_clips_targets_nothing_in_common():
    data = batch()

    def raw(**settings):
        objective = m2d(standardise=False, **settings)
        features = objective.features(data)
        split = objective.mask_patches(data, features, 0)
        tokens = objective.encoder.tokens(features.spectrogram)
        return objective.targets(features, tokens, split), split.masked.valid

    for normed, plain, valid in zip(raw(instance_norm=True)[0], *raw(), strict=True):
        own = plain[valid]
        variance = own.var(dim=0, correction=0)
        expected = (own - own.mean(dim=0)) / (variance + 1e-5).sqrt()
        torch.testing.assert_close(normed[valid], expected)
    metrics = m2d(instance_norm=True)(data, 0).metrics
    assert metrics["clip_mean_cosine"] < m2d()(data, 0).metrics["clip_mean_cosine"]


def test_segments_too_short_for_the_masks_are_refused():
    short = PLAN._replace(seconds=0.03)
    with pytest.raises(ConfigError, match=r"no patch .* since 1 frames give .* longer segments"):
        m2d(encoder={"patch": (MELS, PATCH)}).begin(short)


@pytest.mark.parametrize("start", [-0.1, 1.1])
def test_a_momentum_outside_0_to_1_is_refused(start):
    with pytest.raises(ConfigError, match=f"start = {start}; allowed: from 0 to 1"):
        Momentum(start=start)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_layers": 3}, "objective.target_layers = 3; allowed: 0 to 2"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        m2d(**settings)


def test_a_clip_too_short_to_be_masked_changes_no_other():
    """With patches of all mels, the shortest clip has a single one; its teacher gets nothing."""
    objective = m2d(encoder={"cls_tokens": 0, "patch": (MELS, PATCH)})
    data = batch()
    split = objective.mask_patches(data, objective.features(data), 0)
    assert split.masked.valid.any(dim=1).tolist() == [True, True, True, False]
    output = objective(data, 0)
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(
        p.grad.isfinite().all() for p in objective.encoder.parameters() if p.grad is not None
    )


def test_targets_that_are_all_alike_are_told():
    objective, data = m2d(), batch()
    assert objective.warning({"clip_mean_cosine": 0.7}, 0) is None
    objective.targets = lambda features, tokens, split: torch.ones(
        *split.masked.indices.shape, 24, dtype=torch.float64
    )
    metrics = objective(data, 0).metrics
    assert metrics["clip_mean_cosine"].item() == pytest.approx(1)
    told = objective.warning({name: value.item() for name, value in metrics.items()}, 0)
    assert "differ by 0.0% of their energy" in told
    assert "--objective.momentum.start" in told
