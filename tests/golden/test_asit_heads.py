"""Our distillation heads and decoder with official ASiT weights, against numbers of the official code."""

import pytest
import torch
import torch.nn.functional as F
from golden.official_asit import (
    COLUMNS,
    DTYPES,
    close,
    draw,
    frequency_major,
    official_objective,
    stated,
    time_major,
)

TOKENS = [0, 7, 8, 150, 295]
CLIPS, FRAMES, MELS = (
    (0,) * 5 + (1,) * 5,
    (0, 0, 15, 16, 300, 591, 591, 100, 5, 1),
    (0, 127, 16, 15, 64, 127, 0, 33, 1, 5),
)


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def dtype(request):
    return request.param


@pytest.fixture(scope="module", params=["c23", "c24"])
def release(request):
    return request.param


@pytest.fixture(scope="module")
def objective(release, dtype):
    return official_objective(release, dtype).eval()


def logits(objective, part, dtype):
    """Of the class tokens ("global") or the patch tokens ("local")."""
    tokens, heads = draw("heads/tokens", (2, 297, 96)).to(dtype), objective.distillation.student
    with torch.inference_mode():
        return F.linear(
            heads.project(tokens[:, 0] if part == "global" else tokens[:, 1:], part),
            heads.prototypes_for(part),
        )


def columns(name):
    return stated(name).long()


def test_logits(objective, release, dtype):
    found, name = (
        {part: logits(objective, part, dtype) for part in ("global", "local")},
        f"{release}/heads",
    )
    close(f"{name}/global", found["global"][:, columns(f"{name}/cols_global")], dtype)
    close(f"{name}/local", found["local"][:, TOKENS][..., columns(f"{name}/cols_local")], dtype)
    for part, values in found.items():
        close(f"{name}/{part}_lse_t0.1", (values / 0.1).logsumexp(dim=-1), dtype)
        close(f"{name}/{part}_max", values.amax(dim=-1), dtype)
        close(f"{name}/{part}_sumsq", values.square().flatten(1).sum(dim=1), dtype)
    close(f"{name}/global_argmax", found["global"].argmax(dim=-1), dtype)
    few = found["local"][:, TOKENS]
    close(f"{name}/local_argmax", few.argmax(dim=-1), dtype)
    close(f"{name}/local_top2_gap", -few.topk(2).values.diff(dim=-1)[..., 0], dtype)


def test_logits_with_a_gain(dtype):
    objective, name = official_objective("c24", dtype), "c24/heads"
    with torch.no_grad():
        objective.distillation.student.prototypes["shared"].gain += 0.1 * draw(
            "heads/gain", (8192, 1)
        )
    found = logits(objective, "global", dtype)
    close(f"{name}/gain_global", found[:, columns(f"{name}/cols_global")], dtype)
    close(f"{name}/gain_global_lse_t0.1", (found / 0.1).logsumexp(dim=-1), dtype)


def test_reconstruction(objective, release, dtype):
    tokens, name = (
        frequency_major(draw("heads/rectokens", (2, 296, 96)).to(dtype)),
        f"{release}/rec",
    )
    with torch.inference_mode():
        pixels = objective.decoder(tokens)
    rebuilt = objective.encoder.grid.join(pixels, 16 * COLUMNS)
    close(f"{name}/points", rebuilt[CLIPS, MELS, FRAMES], dtype)
    sums = torch.stack(
        [values.double().sum() for values in (rebuilt, rebuilt.abs(), rebuilt.square())]
    )
    close(f"{name}/checksum", sums, dtype)
    close(f"{name}/mean_per_token_row", time_major(pixels.mean(dim=-1)), dtype)
