"""Our losses and centres at given logits, and their sum with the pixels', against numbers of the official ASiT code."""

from dataclasses import replace

import pytest
import torch
from golden.official_asit import (
    COLUMNS,
    DTYPES,
    ROWS,
    close,
    corruption_masks,
    draw,
    official_objective,
    spectrogram,
    temperature,
)

from melpatch.encoders.base import Encoded
from melpatch.nn.distillation import CentredTargets, chunked_cross_entropy, cross_view_loss
from melpatch.objectives.asit import Views

CLASSES = {"c23": {"global": 8192, "local": 1024}, "c24": {"global": 8192, "local": 8192}}
EPOCHS = {"c23": (0, 12, 60), "c24": (0, 2, 60)}
STUDENT = 0.1  # temperature


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


def logits(name, shape, dtype):
    return (0.1 * draw(name, shape)).to(dtype)


def global_loss(target, told, said, tau):
    """The global loss of logits (view and clip, class); the teacher has two views."""
    told = told.unflatten(0, (2, -1))
    return cross_view_loss(
        target.distribution(told, tau, 0)[0], said.unflatten(0, (-1, told.shape[1])), STUDENT
    ).mean()


def local_loss(target, told, said, tau):
    """The local loss of logits (view and clip, token, class): every token has a vector to itself."""
    told, said = told.flatten(0, 1), said.flatten(0, 1)
    vectors = torch.eye(len(said), dtype=said.dtype)
    weights = torch.full((len(said),), 1 / len(said), dtype=said.dtype)
    return chunked_cross_entropy(
        vectors, said.T, weights, lambda part: target.distribution(told[part], tau, 0)[0], STUDENT
    )


# By loss: the function, rows of the logits (times classes), and which of the gradient's rows and classes are stated.
LOSSES = {
    "global": (global_loss, (6,), [0, 1, 4095, 8000, 8191], ([0, 3, -1],)),
    "local": (local_loss, (6, 24), [0, 1, 2, 500, 1023], ([0, 3, 5], [0, 7, 23])),
}


@pytest.mark.parametrize("part", LOSSES)
@pytest.mark.parametrize(
    ("release", "variant"), [("c23", "2view"), ("c24", "2view"), ("c24", "2view4local")]
)
def test_three_calls_in_a_row(release, variant, part, dtype):
    loss_of, rows, shown, shown_rows = LOSSES[part]
    classes, said_rows = (
        CLASSES[release][part],
        (18,) if (part, variant) == ("global", "2view4local") else rows,
    )
    target = CentredTargets(classes).to(dtype)
    target.centre.copy_(0.05 * draw(f"loss/center_{part}", (1, classes))[0])
    for step, epoch in enumerate(EPOCHS[release]):
        name, tau = f"{release}/loss/{variant}/step{step}", temperature(release, epoch)
        told = logits(f"loss/step{step}/teacher_{part}", (*rows, classes), dtype)
        said = logits(
            f"loss/step{step}/student_{part}", (*said_rows, classes), dtype
        ).requires_grad_()
        loss = loss_of(target, told, said, tau)
        loss.backward()
        target.update(0)
        gradient, centre = said.grad, target.centre
        close(f"{name}/tau", torch.tensor(tau, dtype=torch.float64), dtype)
        close(f"{name}/{part}", loss, dtype)
        points = gradient[shown_rows][:, shown].flatten()
        close(f"{name}/grad_student_{part}", torch.cat([gradient.norm()[None], points]), dtype)
        sums = torch.stack([centre.norm(), centre.mean(), centre.abs().sum()])
        close(f"{name}/center_{part}_after", torch.cat([sums, centre[shown]]), dtype)


def test_corrupted_pixels():
    counts = corruption_masks().sum(dim=(1, 2))
    for release in CLASSES:
        close(f"{release}/recloss/mask_pixels", counts, torch.float64)


@pytest.mark.parametrize(
    ("release", "variant"),
    [
        ("c23", "locals0"),
        *(("c24", f"locals{crops}{pixels}") for crops in (0, 4) for pixels in ("", "_all_pixels")),
    ],
)
def test_sum_of_the_losses(release, variant, dtype):
    losses, name = {}, f"{release}/recloss/{variant}"
    for part, rows in {"global": (4,), "local": (4, 8)}.items():
        classes = CLASSES[release][part]
        told, said = (
            logits(f"recloss/{who}_{part}", (*rows, classes), dtype)
            for who in ("teacher", "student")
        )
        if part == "global" and "locals4" in variant:
            said = torch.cat(
                [said, logits("recloss/student_global_localcrops", (8, classes), dtype)]
            )
        losses[part] = LOSSES[part][0](
            CentredTargets(classes).to(dtype), told, said, temperature(release, 0)
        )

    asit = official_objective(release, dtype)
    asit.config = replace(asit.config, pixels="all" if "all_pixels" in variant else "corrupted")
    clean = torch.cat([spectrogram(f"recloss/view{view}", 16 * COLUMNS, dtype) for view in (1, 2)])
    rebuilt = 0.5 * draw("recloss/prediction", (4, 1, 16 * COLUMNS, 16 * ROWS))[:, 0].transpose(
        1, 2
    ).to(dtype)
    # The networks give what is given here: the decoder its patches, the heads their losses.
    encoded = Encoded(asit.encoder.grid.split(rebuilt), torch.zeros(4, 1, 96, dtype=dtype), ())
    asit.encoder.forward = asit.teacher.forward = lambda *_: encoded
    asit.decoder = torch.nn.Identity()
    asit.local_loss, asit.global_loss = (
        lambda *_: {"local": losses["local"]},
        lambda *_: {"global": losses["global"]},
    )
    output = asit.losses(
        Views(clean, clean, corruption_masks(), torch.ones_like(clean, dtype=torch.bool), None), 0
    )

    for part, metric in {"global": "global", "local": "local", "reconstruction": "pixel"}.items():
        close(f"{name}/{part}", output.metrics[metric], dtype)
    close(f"{name}/total", output.loss, dtype)
