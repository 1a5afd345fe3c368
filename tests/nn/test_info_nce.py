import math

import pytest
import torch
import torch.distributed
from torch.utils._python_dispatch import TorchDispatchMode
from two_processes import in_both

from melpatch.nn.info_nce import info_nce

AXES = ["patches", "predictions"]


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ragged(clips=48, hidden=7, pixels=5):
    """Return predictions and patches of clips with 7, 6, ... 0 masked patches."""
    valid = torch.arange(hidden) < 7 - torch.arange(clips)[:, None] % 8
    return noise(clips, hidden, pixels), noise(clips, hidden, pixels, seed=1), valid


def slow_info_nce(predictions, patches, axis):
    """Return loss and hit of each prediction of a clip without padding, score by score."""
    size = range(len(predictions))
    score = [
        [sum(c * x for c, x in zip(predictions[i], patches[j], strict=True)) for j in size]
        for i in size
    ]
    share = [[0.0] * len(size) for _ in size]  # softmax of score[i][j] over j, or over i
    for i in size:
        for j in size:
            others = score[i] if axis == "patches" else [score[k][j] for k in size]
            share[i][j] = math.exp(score[i][j]) / sum(map(math.exp, others))
    losses = [-math.log(share[i][i]) for i in size]
    hits = [patches[max(size, key=lambda j: share[i][j])] == patches[i] for i in size]
    return losses, hits


@pytest.mark.parametrize("axis", AXES)
def test_loss_and_hits_equal_the_slow_loop(axis):
    predictions, patches, valid = ragged()
    patches[0, 4] = patches[0, 2]  # identical patches
    predictions[0, 4] += 3 * patches[0, 4]
    loss, hit = info_nce(predictions, patches, valid, axis)
    assert hit[0].any()
    assert not hit[0].all()
    for clip, count in enumerate(valid.sum(dim=1).tolist()):
        own = predictions[clip, :count].tolist(), patches[clip, :count].tolist()
        losses, hits = slow_info_nce(*own, axis)
        assert loss[clip, :count].tolist() == pytest.approx(losses, abs=1e-12)
        assert hit[clip, :count].tolist() == hits
        assert not loss[clip, count:].any()
        assert not hit[clip, count:].any()


def test_the_two_axes_differ():
    predictions, patches, valid = ragged()
    assert not torch.allclose(
        info_nce(predictions, patches, valid)[0], info_nce(predictions, patches, valid, AXES[1])[0]
    )


@pytest.mark.parametrize("axis", AXES)
def test_padding_changes_neither_loss_nor_gradient(axis):
    _, patches, valid = ragged()
    results = []
    for rubbish in (0.0, 1e30, -7.0):
        predictions = ragged()[0].requires_grad_()
        targets = patches.clone()
        with torch.no_grad():
            predictions[~valid] = rubbish
            targets[~valid] = -rubbish
        loss, hit = info_nce(predictions, targets, valid, axis)
        loss.sum().backward()
        assert not predictions.grad[~valid].any()
        results.append((loss.detach(), hit, predictions.grad))
    assert results[0][2][valid].any()
    for result in results[1:]:
        assert all(torch.equal(mine, first) for mine, first in zip(result, results[0], strict=True))


def test_identical_patches_count_as_hits():
    """All three predictions match the identical patches 0 and 1; the third prediction is wrong."""
    patches = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    predictions = torch.tensor([[[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]]])
    _, hit = info_nce(predictions, patches, torch.ones(1, 3, dtype=torch.bool))
    assert hit.tolist() == [[True, True, False]]


@pytest.mark.parametrize("axis", AXES)
def test_a_constant_clip_gives_the_logarithm_of_the_number_of_patches(axis):
    predictions = noise(1, 1, 4).expand(1, 400, 4)
    loss, hit = info_nce(
        predictions,
        torch.full((1, 400, 4), -1.28, dtype=torch.float64),
        torch.ones(1, 400).bool(),
        axis,
    )
    torch.testing.assert_close(loss, torch.full_like(loss, math.log(400)))
    assert hit.all()


def test_identical_patches_give_the_loss_of_chance_for_any_prediction():
    """Over patches only; along the published axis, predictions of identical patches may differ."""
    loss, _ = info_nce(
        noise(1, 9, 4), torch.full((1, 9, 4), -1.28, dtype=torch.float64), torch.ones(1, 9).bool()
    )
    torch.testing.assert_close(loss, torch.full_like(loss, math.log(9)))


@pytest.mark.parametrize("axis", AXES)
def test_large_scores_give_finite_losses(axis):
    predictions, patches, valid = (
        1e3 * part if part.is_floating_point() else part for part in ragged()
    )
    predictions = predictions.float().requires_grad_()
    loss, _ = info_nce(predictions, patches.float(), valid, axis)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert predictions.grad.isfinite().all()


def test_the_last_bias_learns_only_under_the_papers_axis():
    """One vector added to all predictions shifts every published softmax by a constant."""
    bias = {}
    for axis in AXES:
        added = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        predictions, patches, valid = ragged()
        info_nce(predictions + added, patches, valid, axis)[0].sum().backward()
        bias[axis] = added.grad.abs().max()
    assert bias["predictions"] < 1e-12 < 1e-3 < bias["patches"]


# Other negatives


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("negatives", ["batch", "processes"])
def test_the_negatives_of_the_batch_are_the_items_of_all_clips(axis, negatives):
    """Without other processes, all items are those of the batch."""
    predictions, targets, valid = ragged(clips=6)
    predictions = predictions[:, :, :3] / 2
    targets = targets[:, :, :3]
    targets[3, 2] = targets[0, 4]
    predictions[3, 2] = predictions[0, 4] = 3 * targets[0, 4]
    loss, hit = info_nce(predictions, targets, valid, axis, negatives)
    losses, hits = slow_info_nce(predictions[valid].tolist(), targets[valid].tolist(), axis)
    assert loss[valid].tolist() == pytest.approx(losses, abs=1e-12)
    assert hit[valid].tolist() == hits
    assert hit[3, 2]
    assert hit[0, 4]
    assert not loss[~valid].any()
    assert not hit[~valid].any()


@pytest.mark.parametrize("axis", AXES)
def test_the_negatives_of_a_batch_of_one_clip_are_those_of_the_clip(axis):
    items = [part[:1] for part in ragged()]
    over_batch = info_nce(*items, axis, "batch")
    over_clip = info_nce(*items, axis)
    assert all(torch.equal(a, b) for a, b in zip(over_batch, over_clip, strict=True))


def test_the_other_axis_is_the_other_direction():
    predictions, targets, valid = ragged(clips=6)
    there, _ = info_nce(predictions, targets, valid, "predictions", "batch")
    back, _ = info_nce(targets, predictions, valid, "patches", "batch")
    torch.testing.assert_close(there, back, rtol=0, atol=1e-12)


class Largest(TorchDispatchMode):
    """Record the number of elements of the largest new tensor."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.size = max(self.size, result.untyped_storage().nbytes() // result.element_size())
        return result


@pytest.mark.parametrize("negatives", ["clip", "batch"])
def test_no_tensor_is_larger_than_the_scores(negatives):
    clips = 4
    items = 8
    dim = 100
    predictions = noise(clips, items, dim).requires_grad_()
    targets = noise(clips, items, dim, seed=1)
    with Largest() as largest:
        info_nce(predictions, targets, torch.ones(clips, items).bool(), "patches", negatives)[
            0
        ].sum().backward()
    assert largest.size == clips * items * dim


# Processes

SHAPES = [((3, 4), (2, 6)), ((1, 1), (4, 2)), ((2, 3), (2, 3))]
"""Clips and items of each process, per step."""


def held(step, rank):
    """Return predictions, targets and valid items of a process."""
    clips, items = SHAPES[step][rank]
    seed = 10 * step + rank
    valid = torch.arange(items) < items - torch.arange(clips)[:, None] % 2
    return noise(clips, items, 3, seed=seed), noise(clips, items, 3, seed=seed + 5), valid


def done(predictions, targets, valid, axis, negatives):
    """Return losses, hits and the gradients of a weighted sum of the losses."""
    predictions = predictions.requires_grad_()
    targets = targets.requires_grad_()
    loss, hit = info_nce(predictions, targets, valid, axis, negatives)
    (loss * predictions.detach().sum(dim=2)).sum().backward()
    return tuple(part[valid] for part in (loss.detach(), hit, predictions.grad, targets.grad))


def process(rank, folder):
    """Return the results of a process for each step and axis."""
    return [
        [done(*held(step, rank), axis, "processes") for axis in AXES] for step in range(len(SHAPES))
    ]


def test_two_processes_equal_one_with_the_items_of_both(tmp_path, monkeypatch):
    both = in_both(process, tmp_path, monkeypatch)
    for step in range(len(SHAPES)):
        real = [
            tuple(part[items[2]] for part in items)
            for items in (held(step, rank) for rank in range(2))
        ]
        for number, axis in enumerate(AXES):
            alone = done(
                *(torch.cat(parts)[None] for parts in zip(*real, strict=True)), axis, "batch"
            )
            together = (
                torch.cat(parts)
                for parts in zip(*(results[step][number] for results in both), strict=True)
            )
            for mine, expected in zip(together, alone, strict=True):
                torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
