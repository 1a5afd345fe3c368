"""NT-Xent of the released AudioMosaic on fixed embeddings: value and gradients at three temperatures.

The numbers are those of shared/golden/weights/losses, in float64.
"""

import json

import pytest
import torch
from places import shared

from melpatch.nn.nt_xent import nt_xent

GOLDEN = json.loads(shared("golden/weights/losses/losses.json").read_text())


@pytest.mark.parametrize("temperature", ["0.1", "0.5", "1.0"])
def test_value_and_gradients_are_the_published_ones(temperature):
    embeddings = [GOLDEN["embeddings"][name] for name in ("first", "second")]
    views = torch.tensor(embeddings, dtype=torch.float64).transpose(0, 1).requires_grad_()
    losses, _ = nt_xent(views, torch.arange(6), float(temperature))
    losses.mean().backward()
    expected = GOLDEN["nt_xent"][temperature]
    assert losses.mean().item() == pytest.approx(expected["value"], abs=1e-9)
    first, second = views.grad.unbind(dim=1)
    assert first.norm().item() == pytest.approx(expected["gradient_norm_first"], rel=1e-6)
    assert second.norm().item() == pytest.approx(expected["gradient_norm_second"], rel=1e-6)
    assert first[0].tolist() == pytest.approx(expected["gradient_first_row0"], abs=1e-7)
