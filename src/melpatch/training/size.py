"""Whether a model and its batches fit into the memory, computed before any of it is taken.

The bounds are what is needed at least, so that nothing is refused that could be trained: weights,
gradients and the optimiser's two moments, and of each clip its samples, its spectrogram and the
embeddings of its patches. What else a network keeps for the backward pass depends on its kind.
"""

import re
from collections.abc import Callable

import torch
from torch import nn

from melpatch.config import check
from melpatch.errors import ConfigError, MelpatchError
from melpatch.machine import memory_bytes
from melpatch.objectives.base import Objective, Plan
from melpatch.training.unfilled import WithoutDrawing

_BYTES = 4  # of a float32
# A weight that is trained has a gradient and two moments beside it.
_TRAINED_BYTES = 4 * _BYTES
_GIB = 1 << 30
_OVERFLOW = re.compile(r"overflow|too large|too big|invalid (size|shape)|negative dimension", re.I)
_SMALLER = "give a smaller --size, or smaller numbers in [encoder] and [objective]"


def require_weights_fit(build: Callable[[], nn.Module]) -> None:
    """Raise ConfigError if a module has more weights than the memory holds.

    Args:
        build: builds the module; it is called on torch's meta device, where tensors have no memory.

    Raises:
        ConfigError: it has; or a setting is out of range.
    """
    memory = memory_bytes()
    if memory is None:
        return
    try:
        with torch.device("meta"), WithoutDrawing():
            weights = _count(build())
    except MelpatchError:
        raise
    except (RuntimeError, OverflowError, TypeError, ValueError) as error:
        if _OVERFLOW.search(str(error)):
            raise ConfigError(
                f"the model has more weights than can be counted; {_SMALLER}"
            ) from error
        return
    # A piece of the user's own may compute with its tensors, which have no values here. What is
    # wrong with it comes up when it is built.
    except Exception:  # noqa: BLE001
        return
    if weights * _BYTES > memory:
        needed = f"{weights:,} weights take {weights * _BYTES / _GIB:,.1f} GiB"
        raise ConfigError(
            f"the model's {needed}, and this machine has {memory / _GIB:,.1f} GiB; {_SMALLER}"
        )


def _count(module: nn.Module) -> int:
    return sum(value.numel() for value in (*module.parameters(), *module.buffers()))


def require_training_fits(objective: Objective, plan: Plan) -> None:
    """Raise ConfigError if weights, optimiser and one batch of a run do not fit into the memory.

    Args:
        objective: the model, whose weights are there already.
        plan: length and batch size of the run.
    """
    memory = _training_memory()
    if memory is None:
        return
    trained = sum(value.numel() for value in objective.parameters() if value.requires_grad)
    # Of several processes, each may hold a shard of the weights.
    fixed = (_count(objective) * _BYTES + trained * (_TRAINED_BYTES - _BYTES)) // plan.world_size
    if fixed > memory:
        raise ConfigError(
            f"weights, gradients and optimiser take {fixed / _GIB:,.1f} GiB, and there are "
            f"{memory / _GIB:,.1f}; {_SMALLER}"
        )
    most = int((memory - fixed) / clip_bytes(objective, plan.longest_segment))
    most *= plan.accumulate * plan.world_size
    front_end = objective.front_end.config
    allowed = (
        f"at most {most} of {plan.longest_segment:g} s at {front_end.sample_rate} Hz, "
        f"{front_end.n_mels} mels every {front_end.hop_ms:g} ms, in {memory / _GIB:,.1f} GiB; "
        "or a larger accumulate"
    )
    check(plan.batch_size <= most, "batch_size", plan.batch_size, allowed)


def clip_bytes(objective: Objective, seconds: float) -> int:
    """Return the least memory that a clip takes in training, in bytes.

    Args:
        objective: the model.
        seconds: length of the clip.
    """
    front_end = objective.front_end
    samples = round(seconds * front_end.sample_rate)
    frames = front_end.config.target_frames or front_end.frames(samples)
    tokens = objective.encoder.grid.count(frames)
    values = samples + front_end.n_mels * frames + objective.encoder.embed_dim * tokens
    return max(1, _BYTES * values)


def _training_memory() -> int | None:
    """Return the memory of the device that trains, in bytes; None where it is not known."""
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return memory_bytes()
