"""Device, precision and the strategy for several processes."""

import os
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
from melpatch.errors import ConfigError
from melpatch.machine import peak_memory_gib
from melpatch.nn.transformer import Block
from melpatch.training.config import TrainConfig


def launch(config: TrainConfig) -> Fabric:
    """Return the Fabric of a run: device, precision and the strategy for several processes."""
    accelerator = _accelerator()
    chosen_precision = precision(config.precision)
    world_size = distributed.world_size()
    if world_size == 1:
        return Fabric(accelerator=accelerator, devices=1, precision=chosen_precision)
    if "LOCAL_RANK" not in os.environ:
        # Fabric would take this process for the first one, and start the script again for the rest.
        raise ConfigError(
            f"a process group of {world_size} processes is open, but LOCAL_RANK is not set; start "
            "them with torchrun, or set LOCAL_RANK to the number of each process on its machine"
        )
    # torchrun sets the number of processes on this node.
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    fabric = Fabric(
        accelerator=accelerator,
        devices=local_world_size,
        num_nodes=world_size // local_world_size,
        strategy=_strategy(config, world_size),
        precision=chosen_precision,
    )
    fabric.launch()
    return fabric


def _accelerator() -> Literal["cuda", "mps", "cpu"]:
    """Return the fastest kind of device; several processes need CUDA or CPUs."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available() and distributed.world_size() == 1:
        return "mps"
    return "cpu"


def _strategy(config: TrainConfig, world_size: int) -> Strategy:
    if config.strategy == "fsdp":
        return ModelParallelStrategy(
            _sharded, data_parallel_size=world_size, tensor_parallel_size=1
        )
    # Which parameters get a gradient depends on the step (frozen prototypes) and the encoder
    # (special tokens).
    return DDPStrategy(find_unused_parameters=True, gradient_as_bucket_view=True)


def _sharded(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shard all parameters over the processes; each block is gathered only while it is used."""
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
    if torch.cuda.is_available():
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bf16 = torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if has_bf16 else "32-true"


def memory_gib() -> float:
    """Return the peak memory of this process in GiB, on its GPU if it has one; NaN if unknown."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return peak_memory_gib()
