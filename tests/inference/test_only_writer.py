"""One process at a time writes an output."""

import pytest

from melpatch.errors import ConfigError, DataError
from melpatch.inference.only_writer import only_writer


def test_a_second_process_is_refused_by_name_and_nothing_stays(tmp_path):
    out = tmp_path / "deep" / "out.npz"
    refused = pytest.raises(ConfigError, match=r"out\.npz: another process writes it; .* --out")
    with only_writer(out), refused, only_writer(out):
        pass
    with only_writer(out), only_writer(out.with_name("other.npz")):
        pass
    assert [*out.parent.iterdir()] == []


def test_a_dead_process_holds_nothing(tmp_path):
    (tmp_path / ".out.npz.lock").touch()
    with only_writer(tmp_path / "out.npz"):
        pass
    assert [*tmp_path.iterdir()] == []


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(DataError, match="cannot be written"),
        only_writer(tmp_path / "file" / "out"),
    ):
        pass
