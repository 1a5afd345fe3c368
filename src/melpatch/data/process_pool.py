"""A pool of worker processes that ends even if one of them was killed."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any


@contextmanager
def process_pool(
    workers: int,
    context: BaseContext,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes; the body hands out the work and waits for it.

    Raises:
        BrokenProcessPool: a process was killed.
    """
    pool = ProcessPoolExecutor(workers, context, initializer, initargs)
    try:
        yield pool
    except BrokenProcessPool:
        # The pool has told its processes to end, but not one that was started meanwhile (Python
        # 3.11), for which it would wait without end. None of them has work any more.
        for process in [*(pool._processes or {}).values()]:
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
