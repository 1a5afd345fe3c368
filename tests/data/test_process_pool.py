"""A pool ends although a process of it was killed, whatever its others do."""

import multiprocessing
import signal
import time
from concurrent.futures.process import BrokenProcessPool

import deadly_reader
import pytest

from melpatch.data.process_pool import process_pool

SECONDS = 60


def test_what_is_done_comes_back():
    with process_pool(2, multiprocessing.get_context("forkserver")) as pool:
        assert [*pool.map(abs, [-1, -2, -3])] == [1, 2, 3]


def test_a_process_that_the_pool_did_not_end_is_not_waited_for():
    context = multiprocessing.get_context("forkserver")
    is_ready = context.Event()
    late = context.Process(target=deadly_reader.stay, args=(is_ready,))
    late.start()
    assert is_ready.wait(SECONDS)

    def break_with_a_late_process():
        with process_pool(1, context) as pool:
            future = pool.submit(deadly_reader.end)
            # As Python 3.11 may, while the pool breaks.
            pool._processes[late.pid] = late
            future.result()

    with pytest.raises(BrokenProcessPool):
        break_with_a_late_process()
    late.join(SECONDS)
    assert late.exitcode == -signal.SIGKILL


def test_an_error_of_the_body_starts_nothing_more():
    futures = []

    def interrupted():
        with process_pool(1, multiprocessing.get_context("forkserver")) as pool:
            futures.extend(pool.submit(time.sleep, 0.2) for _ in range(9))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert any(future.cancelled() for future in futures)
