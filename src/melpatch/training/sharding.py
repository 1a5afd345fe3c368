"""Sharded weights and optimiser states (FSDP2), and the full ones in checkpoints.

Since checkpoints hold full tensors, a run may resume with another number of processes or another
strategy.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from melpatch.checkpoint import load_into
from melpatch.errors import CheckpointError, shortened

T = TypeVar("T")


def gather_full(state: T) -> T:
    """Return a tensor or state with all shards gathered from all ranks; a collective call."""
    full: T = tree_map_only(DTensor, lambda shard: shard.full_tensor(), state)
    return full


def load_weights_into(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load full weights into a module; each process keeps its shard."""
    own = module.state_dict()
    load_into(
        module, {name: _sharded_as(value, own.get(name, value)) for name, value in state.items()}
    )


def load_optimizer_into(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimiser's full state; each process keeps its shard."""
    # An optimiser's state dict numbers the parameters in the order of its groups.
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    try:
        shards = {
            number: {name: _sharded_as(value, parameters[number]) for name, value in values.items()}
            for number, values in state["state"].items()
        }
        optimizer.load_state_dict({**state, "state": shards})
    # What torch does with a state of other parameters, or with something else.
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {shortened(error, typed=True)}"
        raise CheckpointError(
            f"the checkpoint's optimizer.pt does not fit the run ({reason}); remove that folder of "
            "resume/ to go on from the checkpoint before it"
        ) from error


def _sharded_as(value: Any, like: Tensor) -> Any:
    """Return this rank's shard of a full tensor if ``like`` is sharded, else the value itself.

    A value of another shape than ``like``, such as the optimiser's step count, is not sharded.
    """
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    # Every rank has loaded the full tensor, so that each takes its own shard without communication.
    return distribute_tensor(
        value.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


@contextmanager
def unsharded(module: nn.Module) -> Iterator[None]:
    """Gather all weights on every rank while the body runs.

    The body may call any submodule, but must not train.
    """
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
