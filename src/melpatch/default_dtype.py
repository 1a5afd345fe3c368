"""float32 as torch's default type while melpatch computes, whatever the program has set."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Make float32 the default type of new tensors in the body; also a decorator.

    The default belongs to the whole process: other threads see it too while the body runs.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
