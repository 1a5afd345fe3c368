"""Device, precision and the strategy for several processes."""

import os
import resource
import sys
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.strategies.strategy import Strategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from melpatch import distributed
from melpatch.nn.transformer import Block
from melpatch.training.config import TrainConfig


def launch(config: TrainConfig) -> Fabric:
    """Return the Fabric of a run: device, precision and the strategy for several processes."""
    accelerator = _accelerator()
    arithmetic = precision(config.precision)
    together = distributed.world_size()
    if together == 1:
        return Fabric(accelerator=accelerator, devices=1, precision=arithmetic)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", together))
    fabric = Fabric(
        accelerator=accelerator,
        devices=here,
        num_nodes=together // here,
        strategy=_strategy(config, together),
        precision=arithmetic,
    )
    fabric.launch()
    return fabric


def _accelerator() -> Literal["cuda", "mps", "cpu"]:
    """Return the best device there is; processes that train together need CUDA or CPUs."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available() and distributed.world_size() == 1:
        return "mps"
    return "cpu"


def _strategy(config: TrainConfig, together: int) -> Strategy:
    if config.strategy == "fsdp":
        return ModelParallelStrategy(_sharded, data_parallel_size=together, tensor_parallel_size=1)
    # Which parameters get a gradient depends on the step (frozen prototypes) and the encoder (special tokens).
    return DDPStrategy(find_unused_parameters=True, gradient_as_bucket_view=True)


def _sharded(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shard every parameter over the processes; blocks are gathered one by one while they are used."""
    for block in module.modules():
        if isinstance(block, Block):
            fully_shard(block, mesh=mesh["data_parallel"])
    fully_shard(module, mesh=mesh["data_parallel"])
    register_fsdp_forward_method(module, "prepare")
    return module


def precision(wanted: Literal["auto", "32-true", "bf16-mixed"]) -> Literal["32-true", "bf16-mixed"]:
    """Return the precision to use; ``auto`` is bf16 autocast if the processor supports it."""
    if wanted != "auto":
        return wanted
    has_bf16 = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if torch.cuda.is_available()
        else torch.cpu._is_avx512_bf16_supported()
    )
    return "bf16-mixed" if has_bf16 else "32-true"


def memory_gib() -> float:
    """Return the peak memory of this process in GiB: on its GPU if it has one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
