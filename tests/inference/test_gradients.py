"""Gradient maps, against the change of the answer when one pixel of the spectrogram changes."""

import numpy as np
import pytest
import torch
from journeys.three_sounds import LABELS, settings, wave

from melpatch.errors import ConfigError
from melpatch.inference.gradients import gradient_map
from melpatch.inference.model import Model
from melpatch.objectives.base import Features
from melpatch.training.config import build


def classifier(seconds=1.0):
    config = settings(LABELS, seconds=seconds)
    return Model(config, build(config), "cpu")


def test_the_map_is_what_small_changes_of_the_spectrogram_do():
    model = classifier()
    sound = torch.from_numpy(wave("low").astype(np.float32))
    found = gradient_map(model, sound)
    objective = model.objective.double()
    with torch.no_grad():
        front_end = objective.front_end.config
        scale = front_end.scale * front_end.std
        spectrogram = (found.clean[None].double() - front_end.mean) / scale
        logits = objective.logits(Features(spectrogram, None))[0]
        best = int(logits.argmax())
        assert found.label == LABELS[best]
        assert found.probability == pytest.approx(float(logits.softmax(0)[best]), abs=1e-5)
        # Slow and obvious: two patches, each pixel a little higher and lower.
        changes = []
        for row, column in ((0, 0), (1, 3)):
            steps = []
            for mel in range(16 * row, 16 * row + 16):
                for frame in range(16 * column, 16 * column + 16):
                    step = torch.zeros_like(spectrogram)
                    step[0, mel, frame] = 1e-4
                    higher, lower = (
                        objective.logits(Features(spectrogram + sign * step, None))[0, best]
                        for sign in (1, -1)
                    )
                    steps.append(abs(float(higher - lower)) / 2e-4)
            changes.append(np.mean(steps))
    ratio = float(found.weight[1, 3] / found.weight[0, 0])
    assert changes[1] / changes[0] == pytest.approx(ratio, rel=1e-3)
    assert found.weight.max() == 1
    assert found.weight.shape == (2, 7)


def test_no_weight_gets_a_gradient_and_the_map_is_the_same_again():
    model = classifier()
    sound = torch.from_numpy(wave("high").astype(np.float32))
    first = gradient_map(model, sound)
    assert all(weight.grad is None for weight in model.objective.parameters())
    assert torch.equal(first.weight, gradient_map(model, sound).weight)


def test_a_pretraining_run_has_no_answers():
    config = settings()
    with pytest.raises(ConfigError, match="has no labels to predict"):
        gradient_map(Model(config, build(config), "cpu"), torch.zeros(16000))
