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
    """Yield a pool whose processes have all started; the body hands out the work and waits for it.

    Raises:
        BrokenProcessPool: a process was killed.
    """
    everyone = context.Barrier(workers)
    pool = ProcessPoolExecutor(workers, context, _meet, (everyone, initializer, initargs))
    try:
        _start(pool, workers)
        yield pool
    except (BrokenProcessPool, OSError) as error:
        if not pool._broken:
            raise
        # The pool has told its processes to end, but not one that was started meanwhile (Python
        # 3.11), for which it would wait without end. None of them has work any more.
        _kill(pool)
        if isinstance(error, BrokenProcessPool):
            raise
        # A process that ended at once closed the pipes under one that was starting.
        raise BrokenProcessPool(str(error)) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start(pool: ProcessPoolExecutor, workers: int) -> None:
    """Start all processes.

    Python starts one when it is handed work and none is idle. Were the first ones to work already,
    one could be killed meanwhile, and the pool close the pipes under the next.
    """
    try:
        for started in [pool.submit(_nothing) for _ in range(workers)]:
            started.result()
    except BaseException:
        # Interrupted: those that have started would wait for the others without end.
        _kill(pool)
        raise


def _kill(pool: ProcessPoolExecutor) -> None:
    for process in [*(pool._processes or {}).values()]:
        process.kill()


def _meet(
    everyone: Any, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> None:
    """Prepare a process, and wait at a barrier for all others to be there."""
    if initializer is not None:
        initializer(*initargs)
    everyone.wait()


def _nothing() -> None: ...
