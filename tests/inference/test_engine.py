"""Many recordings at once, decoded by processes beside this one."""

import os
import signal

import numpy as np
import pytest
from journeys.three_sounds import write_sound

from melpatch.errors import MelpatchError
from melpatch.inference import windows as windows_module
from melpatch.inference.engine import InferenceTask, infer_many
from melpatch.inference.rows import Row
from melpatch.inference.windows import RecordingEnd, WindowSpec, clip_of_file

RATE = 8000


def means(batch):
    """The mean of each window."""
    return [
        wave[:length].mean(0, keepdim=True).numpy()
        for wave, length in zip(batch.wave, batch.lengths, strict=True)
    ]


def rows(items):
    """A row per window."""
    for item in items:
        yield (
            item
            if isinstance(item, RecordingEnd)
            else Row(item.span.recording, item.span.start, item.span.end, item.values)
        )


TASK = InferenceTask(WindowSpec(0.5, 0.5, RATE), means, rows)


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    files = [write_sound(folder / f"{n}.wav", "noise", 0.4 + 0.5 * n, RATE, n) for n in range(5)]
    return [[*enumerate(map(clip_of_file, files))]]


def test_worker_processes_change_nothing_and_end_well(groups, monkeypatch):
    loaders = []
    start_workers = windows_module.start_workers
    monkeypatch.setattr(
        windows_module,
        "start_workers",
        lambda loader: loaders.append(start_workers(loader)) or loaders[-1],
    )
    alone, beside = (
        [*infer_many(TASK, groups, batch_size=2, workers=workers)] for workers in (0, 2)
    )
    assert len(alone) == len(beside) > 10
    for one, other in zip(alone, beside, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Row):
            assert one[:3] == other[:3]
            np.testing.assert_array_equal(one.values, other.values)
    workers = [worker for loader in loaders for worker in loader._workers]
    assert len(workers) == 2
    loaders.clear()  # which has them end
    for worker in workers:
        worker.join(60)
    # Of one that fails torch tells by an error wherever the main thread is then, if it hears of it at all.
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_a_decoding_process_that_is_killed_is_told_in_one_line(groups, monkeypatch):
    monkeypatch.setattr(
        windows_module, "decode_windows", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    )
    with pytest.raises(MelpatchError, match="a decoding process was killed"):
        list(infer_many(TASK, groups, batch_size=2, workers=1))
