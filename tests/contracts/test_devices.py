"""No float64 on the device, which Apple's GPUs lack: every objective trains and pools in float32 and integers.

Tensors on torch's "meta" device, which have shapes but no numbers, stand in for those on a GPU.
"""

from contextlib import nullcontext

import pytest
import torch
from contracts.test_objectives import LENGTHS, batch, begun
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from melpatch import registry


class Float64OnDevice(TorchDispatchMode):
    """Collects the operators that make a float64 tensor on the meta device."""

    def __init__(self):
        super().__init__()
        self.operators = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            on_device = isinstance(value, torch.Tensor) and value.device.type == "meta"
            if on_device and value.dtype in (torch.float64, torch.complex128):
                self.operators.append(str(operator))
        return result


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
        torch.fx.experimental._config.patch(meta_nonzero_assume_all_nonzero=True),
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
