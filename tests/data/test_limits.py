"""Worker processes and batches beyond sense are refused before anything starts."""

import pytest

from melpatch.config import check_batch_size, check_workers
from melpatch.data import limits
from melpatch.data.limits import require_batch, require_workers
from melpatch.data.scan import scan
from melpatch.errors import SettingError


@pytest.mark.parametrize("workers", [-1, 1025, 10**30])
def test_no_machine_has_so_many_processes(workers):
    with pytest.raises(SettingError, match=r"workers = .*; allowed: 0 to 1024"):
        check_workers(workers)


@pytest.mark.parametrize("batch_size", [0, -5, 10**12])
def test_no_machine_holds_such_a_batch(batch_size):
    with pytest.raises(SettingError, match=r"batch_size = .*; allowed: 1 to 1048576"):
        check_batch_size(batch_size)


def test_this_machine_has_a_limit_too(monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "most_workers", lambda: 40)
    require_workers(40)
    with pytest.raises(SettingError, match="workers = 41; allowed: 0 to 40 on this machine"):
        require_workers(41)
    with pytest.raises(SettingError, match="workers"):
        next(scan([tmp_path], workers=41))


def test_a_batch_is_no_larger_than_the_memory(monkeypatch):
    monkeypatch.setattr(limits, "memory_bytes", lambda: 64_000_000)
    require_batch(100, 10.0, 16_000)
    with pytest.raises(SettingError, match=r"batch_size = 101; allowed: 1 to 100 of 10 s"):
        require_batch(101, 10.0, 16_000)
    require_batch(10**6, float("inf"), 16_000)
    monkeypatch.setattr(limits, "memory_bytes", lambda: None)
    require_batch(10**6, 10.0, 16_000)
