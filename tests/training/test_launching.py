"""Where a training computes."""

import pytest
import torch

from melpatch import distributed
from melpatch.errors import ConfigError
from melpatch.training.config import TrainConfig
from melpatch.training.launching import launch, precision


def test_one_process_is_a_device_of_its_own():
    fabric = launch(TrainConfig(precision="32-true"))
    assert (fabric.world_size, fabric.global_rank) == (1, 0)
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(("has", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_precision_is_bf16_where_the_processor_has_it(monkeypatch, has, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    assert precision("auto") == expected
    assert [precision(asked) for asked in ("32-true", "bf16-mixed")] == ["32-true", "bf16-mixed"]


def test_processes_without_a_local_rank_are_not_started_again(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match="2 processes is open, but LOCAL_RANK is not set"):
        launch(TrainConfig(precision="32-true"))
