"""States of which every process holds a share (FSDP2), and the same states whole, as they are saved: a run may go on in
another number of processes, or with another strategy.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

T = TypeVar("T")


def whole(state: T) -> T:
    """Return a tensor or a state with the shares of all processes joined, where there are any; all must call it."""
    joined: T = tree_map_only(DTensor, lambda share: share.full_tensor(), state)
    return joined


def load_weights_into(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a whole state into a module, of which each process takes its share."""
    held = module.state_dict()
    module.load_state_dict({name: _shared_as(value, held[name]) for name, value in state.items()})


def load_averages_into(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimiser's whole state, of which each process takes its share."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shares = {
        number: {name: _shared_as(value, parameters[number]) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": shares})


def _shared_as(value: Any, held: Tensor) -> Any:
    """Return a process's share of a value that is shaped as a tensor of which it holds a share; else the value."""
    if not isinstance(held, DTensor) or not isinstance(value, Tensor) or value.shape != held.shape:
        return value
    return distribute_tensor(
        value.to(held.device), held.device_mesh, held.placements, src_data_rank=None
    )


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Let every process hold all weights for the body, which may call any part of the module; it must not train."""
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not module, recurse=False)
            part.reshard()
