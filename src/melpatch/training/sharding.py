"""Sharded weights and optimiser states (FSDP2), and the full ones that are saved.

Since checkpoints are full, a run may resume with another number of processes or another strategy.
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


def gather_full(state: T) -> T:
    """Return a tensor or state with every shard gathered from all processes; a collective call."""
    joined: T = tree_map_only(DTensor, lambda share: share.full_tensor(), state)
    return joined


def load_weights_into(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load full weights into a module; each process keeps its shard."""
    held = module.state_dict()
    module.load_state_dict({name: _shared_as(value, held[name]) for name, value in state.items()})


def load_optimizer_into(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimiser's full state; each process keeps its shard."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shares = {
        number: {name: _shared_as(value, parameters[number]) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": shares})


def _shared_as(value: Any, held: Tensor) -> Any:
    """Return this process's shard of a value if ``held`` is a shard of the same shape, else the value itself."""
    if not isinstance(held, DTensor) or not isinstance(value, Tensor) or value.shape != held.shape:
        return value
    return distribute_tensor(
        value.to(held.device), held.device_mesh, held.placements, src_data_rank=None
    )


@contextmanager
def unsharded(module: nn.Module) -> Iterator[None]:
    """Gather all weights on every process for the body, which may call any submodule but must not train."""
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
