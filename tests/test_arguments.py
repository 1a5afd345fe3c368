"""The words of a command line as a configuration."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from melpatch.arguments import read_config
from melpatch.errors import ConfigError


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


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Flags of numbers, of which some may be none."""

    crop_seconds: float | None = 1.0
    """A number."""
    sizes: tuple[float, float] | None = (0.5, 1.0)
    """Two numbers."""
    steps: int = 3
    """Never none."""


@pytest.mark.parametrize("none", ["none", "None"])
@pytest.mark.parametrize("dash", ["-", "_"])
def test_numbers_can_be_none_as_the_help_spells_it(none, dash):
    for words in (
        [f"--crop{dash}seconds", none, "--sizes", none, "--steps", "4"],
        [f"--crop{dash}seconds={none}", f"--sizes={none}", "--steps", "4"],
    ):
        config = read_config(Numbers, words, prog="melpatch", about="")
        assert config == Numbers(crop_seconds=None, sizes=None, steps=4)


def test_numbers_without_none_refuse_it():
    with pytest.raises(ConfigError, match="--steps"):
        read_config(Numbers, ["--steps", "none"], prog="melpatch", about="")
