"""Block corruption against statistics of 4,000 draws of the official routine in each of six cases.

Ours are those of the slow loop, which is faster for single clips on a processor and makes the same masks.
"""

import json
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from nn.slow_blocks import slow_blocks
from places import shared

from melpatch.nn.rectangles import rectangles
from melpatch.rng import stream, uniform

DRAWS = 1500
FRAMES, MELS, PATCH = 592, 128, 16
SHARES = {"zeros_p0.7": (0.5, 0.7), "zeros_p0.5": (0.5, 0.5), "alien_p0.3": (0.3, 0.3)}


class Case(NamedTuple):
    """What is stated of one case, and our draws."""

    stated: dict[str, Any]
    profiles: dict[str, np.ndarray]
    unit: int
    states: torch.Tensor
    shares: torch.Tensor
    masks: np.ndarray
    rectangles: list[list[tuple[int, int, int, int]]]

    def tokens(self):
        """Hidden share of each token's pixels, (draw, row, column)."""
        return self.masks.reshape(DRAWS, MELS // PATCH, PATCH, FRAMES // PATCH, PATCH).mean(
            axis=(2, 4)
        )


@pytest.fixture(
    scope="module", params=[(fill, unit) for fill in SHARES for unit in (1, PATCH)], ids=str
)
def case(request):
    (fill, unit), keys = request.param, torch.arange(DRAWS)
    name = f"{fill}_a{unit}"
    low, high = SHARES[fill]
    states = stream(0, name, keys)
    shares = low + (high - low) * uniform(stream(0, f"{name} share", keys), 1)[:, 0].double()
    drawn = [
        slow_blocks(state, FRAMES, MELS, share, align=(unit, unit))
        for state, share in zip(states.split(1), shares.tolist(), strict=True)
    ]
    profiles = np.load(shared("golden/asit/gmml.npz"))
    return Case(
        json.loads(shared("golden/asit/gmml.json").read_text())["cases"][name],
        {axis: profiles[f"{name}/per_{axis}"] for axis in ("frame", "mel", "token")},
        *(unit, states, shares),
        *(np.stack([mask for mask, _ in drawn]), [used for _, used in drawn]),
    )


def close(stated, values):
    """Whether the mean of our values is within four standard errors of the stated one."""
    error = math.sqrt(stated["standard_error"] ** 2 + values.var() / len(values))
    return abs(values.mean() - stated["mean"]) < 4 * error


def test_the_batched_masks_are_those_of_the_slow_loop(case):
    some, frames = slice(32), torch.full((32,), FRAMES)
    wanted = (case.shares[some] * FRAMES * MELS - 1e-9).ceil().long()
    masks = rectangles(
        case.states[some], frames, MELS, FRAMES, wanted, align=(case.unit, case.unit)
    )
    assert np.array_equal(masks.numpy(), case.masks[some])


def test_pixels_and_tokens(case):
    share = case.tokens()
    found = {
        "pixels": case.masks.mean(axis=(1, 2)),
        "tokens_touched": (share > 0).mean(axis=(1, 2)),
        "tokens_half": (share >= 0.5).mean(axis=(1, 2)),
        "tokens_full": (share == 1).mean(axis=(1, 2)),
        "blocks": np.array([len(used) for used in case.rectangles]),
    }
    assert [name for name, values in found.items() if not close(case.stated[name], values)] == []


def test_sizes_and_corners_of_rectangles(case):
    bottom, top, left, right = np.concatenate(case.rectangles).T
    # There time runs downward and mels to the right.
    found = {"height": right - left, "width": top - bottom, "top": left, "left": bottom}
    for name, values in found.items():
        stated = case.stated[f"block_{name}"]
        error = stated["sd"] * math.sqrt(1 / stated["n"] + 1 / len(values))
        assert abs(values.mean() - stated["mean"]) < 4 * error, name
        assert (values.min(), values.max()) == (stated["min"], stated["max"]), name


def test_profiles(case):
    tokens, profiles = case.tokens(), case.profiles
    assert abs(case.masks.mean(axis=(0, 1)) - profiles["frame"]).max() < 0.03
    assert abs(case.masks.mean(axis=(0, 2)) - profiles["mel"]).max() < 0.03
    # Hidden or not: the difference of two such means has a standard error of 0.015; of 296 one may be 4.6 off.
    assert abs(tokens.mean(axis=0).T - profiles["token"]).max() < 0.07
