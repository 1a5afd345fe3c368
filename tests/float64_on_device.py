"""Find out whether code needs float64 on its device, which Apple's GPUs lack.

Tensors on torch's "meta" device, which have shapes but no values, stand in for those on a GPU.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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
