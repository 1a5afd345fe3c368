"""What processes tell each other, and what one says that is alone."""

import signal
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from two_processes import in_both

from melpatch import distributed
from melpatch.errors import ConfigError, DataError, Interrupted


def failing():
    raise DataError("no sound")


def process(rank, folder):
    """Be one of two."""
    values = torch.arange(4.0) * (rank + 1)
    found = {
        "who": (distributed.rank(), distributed.world_size(), distributed.is_rank_zero()),
        "mine": distributed.shard_of_rank([10, 11, 12]),
        "everyones": distributed.all_gather_objects({"rank": rank}),
        "from first": distributed.broadcast_from_rank_zero(f"of {rank}"),
        "by first": distributed.on_rank_zero(lambda: f"by {rank}"),
        "summed": distributed.all_reduce_sum(values),
        "untouched": values,
        "gathered": distributed.all_gather_rows(torch.full((1 + 2 * rank, 2), float(rank))),
        "nothing": distributed.all_gather_rows(torch.zeros(rank, 3, dtype=torch.int64)),
    }
    with pytest.raises(DataError, match="no sound"):
        distributed.on_rank_zero(failing)
    distributed.require_same_on_all_ranks(["a", 0.5], "the clips")
    with pytest.raises(
        DataError, match=r"^the clips are not the same on rank 1 as on rank 0; give"
    ):
        distributed.require_same_on_all_ranks(["a", 0.5 * rank], "the clips")
    distributed.barrier()
    return found


def test_two_processes_know_of_each_other(tmp_path, monkeypatch):
    for rank, found in enumerate(in_both(process, tmp_path, monkeypatch)):
        assert found["who"] == (rank, 2, rank == 0)
        assert found["mine"] == [[10, 12], [11]][rank]
        assert found["everyones"] == [{"rank": 0}, {"rank": 1}]
        assert (found["from first"], found["by first"]) == ("of 0", "by 0")
        assert found["summed"].tolist() == [0, 3, 6, 9]
        assert found["untouched"].tolist() == [value * (rank + 1) for value in range(4)]
        assert [part.tolist() for part in found["gathered"]] == [[[0, 0]], [[1, 1]] * 3]
        assert [part.tolist() for part in found["nothing"]] == [[], [[0, 0, 0]]]


def test_one_that_is_alone_has_all_of_it():
    rows = torch.ones(2, 3)
    assert not distributed.launched_by_torchrun()
    assert (distributed.rank(), distributed.world_size(), distributed.is_rank_zero()) == (
        0,
        1,
        True,
    )
    assert distributed.shard_of_rank([1, 2]) == [1, 2]
    assert distributed.all_gather_objects("x") == ["x"]
    assert distributed.broadcast_from_rank_zero("x") == distributed.on_rank_zero(lambda: "x") == "x"
    assert distributed.all_reduce_sum(rows) is rows
    assert distributed.all_gather_rows(rows) == [rows]
    assert distributed.first_to_fail()
    with pytest.raises(DataError):
        distributed.on_rank_zero(failing)
    with distributed.process_group():
        distributed.barrier()


def test_more_processes_than_gpus_are_refused_in_one_line(monkeypatch):
    for name, value in {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "_store", [])
    monkeypatch.setattr(
        distributed, "rendezvous", lambda *_, **__: iter([(dist.HashStore(), 2, 3)])
    )
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "set_device", range(2).index
    )  # fails for a GPU that is not there
    with (
        pytest.raises(ConfigError, match="--nproc-per-node = 3; allowed: at most 2"),
        distributed.process_group(),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads from /proc")
@pytest.mark.parametrize("stopped", [False, True])
def test_no_thread_of_a_closed_process_group_outlives_it(monkeypatch, stopped):
    """Such a thread aborts an exiting interpreter now and then: a finished run would look failed."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setattr(distributed, "launched_by_torchrun", lambda: True)
    monkeypatch.setattr(
        distributed, "rendezvous", lambda *_, **__: iter([(dist.HashStore(), 0, 1)])
    )

    def work():
        network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
        network.itself = [network]  # a reference cycle, as real networks have
        network(torch.ones(3, 2)).sum().backward()
        assert threads_of_gloo() > 0
        if stopped:
            raise Interrupted("saved", signal.SIGTERM)

    with pytest.raises(Interrupted) if stopped else nullcontext(), distributed.process_group():
        work()
    assert threads_of_gloo() == 0


def threads_of_gloo():
    """Return how many threads of this process run gloo's work."""
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    return sum("gloo_run" in name for name in names)
