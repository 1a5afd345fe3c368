"""A GPU gives what a processor gives; on a machine without one, only the processor is asked."""

import pytest
import torch

from melpatch.data.clip import Batch
from melpatch.encoders.vit import ViT
from melpatch.objectives.base import Plan
from melpatch.recipes.base import recipe
from melpatch.training.config import build
from melpatch.training.start import fitted

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
        ],
    ),
]


@pytest.mark.parametrize("device", DEVICES)
def test_an_encoder_gives_the_same_tokens(device):
    torch.manual_seed(0)
    encoder = ViT(size="nano").eval()
    spectrograms = torch.randn(2, 128, 96)
    with torch.inference_mode():
        expected = encoder(spectrograms)[0]
        tokens = encoder.to(device)(spectrograms.to(device))[0].cpu()
    torch.testing.assert_close(tokens, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["ssast", "mae_ast"])
def test_an_objective_has_the_same_loss(device, name):
    config = recipe(name)("nano")
    objective = build(fitted(config)).eval()
    objective.begin(Plan(4, 2, 1.0, 1.0))
    keys = torch.arange(2)
    batch = Batch(torch.randn(2, 16_000) * 0.1, torch.full((2,), 16_000), keys)
    with torch.inference_mode():
        expected = objective(batch, 0).loss
        loss = objective.to(device)(batch.to(device), 0).loss.cpu()
    torch.testing.assert_close(loss, expected, rtol=2e-3, atol=2e-3)
