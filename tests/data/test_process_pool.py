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


def test_no_process_starts_while_another_can_be_killed_by_its_work(monkeypatch):
    # Python 3.11 closes the pipes of a broken pool while it starts the next process with them.
    context = multiprocessing.get_context("forkserver")
    start = context.Process.start

    def start_late(process):
        time.sleep(0.3)
        start(process)

    monkeypatch.setattr(context.Process, "start", start_late)

    def hand_out():
        with process_pool(3, context) as pool:
            futures = [pool.submit(deadly_reader.end) for _ in range(3)]
            assert len(pool._processes) == 3
            futures[0].result()

    with pytest.raises(BrokenProcessPool):
        hand_out()


def test_a_start_that_is_interrupted_ends(monkeypatch):
    """The processes that have started wait for one that does not come."""
    context = multiprocessing.get_context("forkserver")
    start, started = context.Process.start, []

    def start_two(process):
        started.append(process)
        if len(started) == 3:
            raise KeyboardInterrupt
        start(process)

    monkeypatch.setattr(context.Process, "start", start_two)
    with pytest.raises(KeyboardInterrupt), process_pool(3, context):
        pass
    for process in started[:2]:
        process.join(SECONDS)
        assert process.exitcode == -signal.SIGKILL


def test_pipes_that_a_broken_pool_closed_are_no_error_of_their_own():
    def meet_closed_pipes():
        with process_pool(1, multiprocessing.get_context("forkserver")) as pool:
            with pytest.raises(BrokenProcessPool):
                pool.submit(deadly_reader.end).result()
            raise OSError("handle is closed")

    with pytest.raises(BrokenProcessPool, match="handle is closed"):
        meet_closed_pipes()


def test_a_failing_system_call_of_the_body_stays_what_it_is():
    def meet_a_full_disk():
        with process_pool(1, multiprocessing.get_context("forkserver")):
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        meet_a_full_disk()


def test_an_error_of_the_body_starts_nothing_more():
    futures = []

    def interrupted():
        with process_pool(1, multiprocessing.get_context("forkserver")) as pool:
            futures.extend(pool.submit(time.sleep, 0.2) for _ in range(9))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert any(future.cancelled() for future in futures)
