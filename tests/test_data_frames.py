"""Results as frames: of pandas and polars where they are installed, and a hint where they are not."""

import sys
from types import SimpleNamespace

import pytest

from melpatch.data_frames import Tabular
from melpatch.errors import MelpatchError


class Two(Tabular):
    def columns(self):
        return {"a": [1, 2], "b": ["x", "y"]}


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_columns_become_a_frame(monkeypatch, name):
    monkeypatch.setitem(
        sys.modules, name, SimpleNamespace(DataFrame=lambda columns: (name, columns))
    )
    assert getattr(Two(), f"to_{name}")() == (name, {"a": [1, 2], "b": ["x", "y"]})


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_a_missing_library_is_named_with_what_installs_it(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    hint = rf"to_{name} needs {name}; install it with: pip install 'melpatch\[{name}\]'"
    with pytest.raises(MelpatchError, match=hint):
        getattr(Two(), f"to_{name}")()


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_the_real_library_takes_the_columns(name):
    library = pytest.importorskip(name)
    frame = getattr(Two(), f"to_{name}")()
    assert isinstance(frame, library.DataFrame)
    assert [*frame.columns] == ["a", "b"]
    assert [*frame["b"]] == ["x", "y"]
