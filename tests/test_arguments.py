"""The words of a command line as a configuration."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from melpatch.arguments import read_config


@dataclass(frozen=True, kw_only=True)
class Config:
    """Flags that may be left out."""

    fold: str | None = None
    """A fold."""
    out: Path | None = None
    """A file."""
    splits: tuple[str, ...] = ()
    """Splits."""


@pytest.mark.parametrize("name", ["None", "none", "nan", "null", "1", "1.0", "True", ""])
def test_a_name_stays_a_name(name):
    words = ["--fold", name, "--splits", name, "--out", name]
    config = read_config(Config, words, prog="melpatch", about="")
    assert config == Config(fold=name, splits=(name,), out=Path(name))


def test_what_is_left_out_is_nothing():
    assert read_config(Config, [], prog="melpatch", about="") == Config()
