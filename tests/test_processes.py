"""What processes tell each other, and what one says that is alone."""

import pytest
import torch
from torch import distributed
from two_processes import in_both

from melpatch import processes
from melpatch.errors import ConfigError, DataError


def failing():
    raise DataError("no sound")


def process(rank, folder):
    """Be one of two."""
    values = torch.arange(4.0) * (rank + 1)
    found = {
        "who": (processes.rank(), processes.world_size(), processes.is_first()),
        "mine": processes.mine([10, 11, 12]),
        "everyones": processes.everyones({"rank": rank}),
        "from first": processes.from_first(f"of {rank}"),
        "by first": processes.by_first(lambda: f"by {rank}"),
        "summed": processes.summed(values),
        "untouched": values,
        "gathered": processes.gathered(torch.full((1 + 2 * rank, 2), float(rank))),
        "nothing": processes.gathered(torch.zeros(rank, 3, dtype=torch.int64)),
    }
    with pytest.raises(DataError, match="no sound"):
        processes.by_first(failing)
    processes.agree(["a", 0.5], "the clips")
    with pytest.raises(
        DataError, match=r"^the clips are not the same in process 1 as in process 0; give"
    ):
        processes.agree(["a", 0.5 * rank], "the clips")
    processes.wait()
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
    assert not processes.started()
    assert (processes.rank(), processes.world_size(), processes.is_first()) == (0, 1, True)
    assert processes.mine([1, 2]) == [1, 2]
    assert processes.everyones("x") == ["x"]
    assert processes.from_first("x") == processes.by_first(lambda: "x") == "x"
    assert processes.summed(rows) is rows
    assert processes.gathered(rows) == [rows]
    assert processes.first_to_fail()
    with pytest.raises(DataError):
        processes.by_first(failing)
    with processes.together():
        processes.wait()


def test_more_processes_than_gpus_are_refused_in_one_line(monkeypatch):
    for name, value in {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "_board", [])
    monkeypatch.setattr(
        processes, "rendezvous", lambda *_, **__: iter([(distributed.HashStore(), 2, 3)])
    )
    monkeypatch.setattr(distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "set_device", range(2).index
    )  # fails for a GPU that is not there
    with (
        pytest.raises(ConfigError, match="--nproc-per-node = 3; allowed: at most 2"),
        processes.together(),
    ):
        pass
