"""Find out whether code needs float64 on its device, which Apple's GPUs lack.

Tensors on torch's "meta" device, which have shapes but no values, stand in for those on a GPU.
"""

import pytest
import torch
from torch.fx.experimental import _config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def nonzero_on_meta():
    """Let ``nonzero`` on the meta device count all elements; skip the test where torch cannot."""
    if not hasattr(_config, "meta_nonzero_assume_all_nonzero"):
        pytest.skip(f"nonzero has no meta kernel in torch {torch.__version__}")
    return _config.patch(meta_nonzero_assume_all_nonzero=True)


class Float64OnDevice(TorchDispatchMode):
    """Collects the operators that make a float64 tensor on the meta device."""

    def __init__(self):
        super().__init__()
        self.operators = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        tensors = [value for value in tree_leaves(result) if isinstance(value, torch.Tensor)]
        for tensor in tensors:
            wide = tensor.dtype in (torch.float64, torch.complex128)
            if wide and tensor.device.type == "meta":
                self.operators.append(str(operator))
        return result
