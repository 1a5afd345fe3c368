"""Checks of what callers of the Python API give; the command line is checked as it is parsed."""

from math import inf
from numbers import Integral, Real
from typing import Any, get_args

import torch

from melpatch.audio.sound_file import HIGHEST_RATE, LOWEST_RATE
from melpatch.config import check
from melpatch.errors import ConfigError
from melpatch.inference.fitted import require_spelling
from melpatch.inference.network import Precision


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number; True and False are not."""
    if value is True or value is False or not isinstance(value, Real):
        return False
    return -inf < float(value) < inf


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number; True and False are not."""
    return isinstance(value, Integral) and value is not True and value is not False


def check_sample_rate(sample_rate: Any) -> None:
    """Raise ConfigError unless samples can have been taken at a rate."""
    fits = is_number(sample_rate) and LOWEST_RATE <= float(sample_rate) <= HIGHEST_RATE
    allowed = f"{LOWEST_RATE} to {HIGHEST_RATE}, the rate of the samples in Hz (16 kHz is 16000)"
    check(fits, "sample_rate", sample_rate, allowed)


def check_embedding(pooling: Any, layer: Any, hop: Any) -> None:
    """Raise ConfigError unless the arguments of an embedding are of their types."""
    if pooling is not None:
        require_spelling(pooling)
    check(layer is None or is_whole(layer), "layer", layer, "a whole number, or None")
    check_hop(hop)


def check_hop(hop: Any) -> None:
    """Raise ConfigError unless a hop is a number above 0."""
    check(hop is None or (is_number(hop) and hop > 0), "hop", hop, "seconds above 0, or None")


def check_many(batch_size: Any, workers: Any) -> None:
    """Raise ConfigError unless many files can be computed with these."""
    fits = batch_size is None or (is_whole(batch_size) and batch_size >= 1)
    check(fits, "batch_size", batch_size, "1 or more, or None")
    fits = workers is None or (is_whole(workers) and workers >= 0)
    check(fits, "workers", workers, "0 or more, or None")


def check_precision(precision: Any) -> None:
    """Raise ConfigError unless a precision has one of its names."""
    names = get_args(Precision)
    check(precision in names, "precision", precision, ", ".join(map(repr, names)))


def device_of(device: Any) -> torch.device:
    """Return a device by its name.

    Raises:
        ConfigError: there is no such device here.
    """
    try:
        named = torch.device(device)
        # Only its use shows that there is none of this number.
        torch.empty(0, device=named)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        allowed = "a device that is here, such as 'cpu', 'cuda' or 'mps'"
        raise ConfigError(f"device = {device!r}; allowed: {allowed} ({why:.120})") from error
    return named
