"""No objective waits for its device, but ASiT and ATST-Frame ask it for where their losses look.

Tensors on torch's "meta" device, which have shapes but no numbers, stand in for those on a GPU.
"""

from contextlib import nullcontext

import pytest
import torch
from contracts.test_objectives import LENGTHS, batch, begun
from float64_on_device import nonzero_on_meta

from melpatch import registry

LOOKS = {"asit": (1, 2), "atst_frame": (0, 1)}
"""How often a method asks where something is, in clips that are not padded, and in clips that are."""


@pytest.mark.parametrize("lengths", [(16000,) * 4, LENGTHS], ids=["whole", "padded"])
@pytest.mark.parametrize("name", registry.names("objectives"))
def test_no_step_waits_for_its_device(name, lengths, monkeypatch):
    piece, looks, nonzero = registry.find("objectives", name), [], torch.Tensor.nonzero
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    monkeypatch.setattr(torch.Tensor, "nonzero", lambda self: looks.append(name) or nonzero(self))
    objective, data = begun(piece).to("meta"), batch(piece, lengths, torch.float32).to("meta")
    with nonzero_on_meta():
        objective(data, 3).loss.backward()
    objective.after_step(3)
    whole, padded = LOOKS.get(name, (0, 0))
    assert len(looks) <= (whole if len(set(lengths)) == 1 else padded)


def test_a_number_on_such_a_device_cannot_be_asked_for():
    with pytest.raises(RuntimeError, match="meta"):
        bool(torch.zeros(1, device="meta").all())
