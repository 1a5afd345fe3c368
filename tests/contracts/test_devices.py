"""No float64 on the device, which Apple's GPUs lack: every objective trains and pools in float32 and integers.

Tensors on torch's "meta" device, which have shapes but no numbers, stand in for those on a GPU.
"""

from contextlib import nullcontext

import pytest
import torch
from contracts.test_objectives import LENGTHS, batch, begun
from float64_on_device import Float64OnDevice, nonzero_on_meta

from melpatch import registry


@pytest.mark.parametrize("lengths", [(16000,) * 4, LENGTHS], ids=["whole", "padded"])
@pytest.mark.parametrize("name", registry.names("objectives"))
def test_no_objective_needs_float64_on_its_device(name, lengths, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    piece = registry.find("objectives", name)
    objective, data = begun(piece), batch(piece, lengths, torch.float32)
    wide = [key for key, value in objective.state_dict().items() if value.dtype == torch.float64]
    assert wide == []
    objective, data = objective.to("meta"), data.to("meta")
    with (
        nonzero_on_meta(),
        Float64OnDevice() as seen,
    ):
        objective(data, 3).loss.backward()
        objective.after_step(3)
        objective.eval()
        encoder = objective.export_encoder()
        encoder(*objective.features(data), layers=True)
    assert seen.operators == []


def test_the_check_sees_float64():
    with Float64OnDevice() as seen:
        torch.zeros(2, device="meta").double()
        torch.zeros(2).double()
    assert len(seen.operators) == 1
