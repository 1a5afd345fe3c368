"""Settings of a run that an export has no place for, told in one line with what fits."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from melpatch.errors import ConfigError


class Misfit(NamedTuple):
    """A setting that does not fit."""

    setting: str
    """Its name, as in config.toml."""
    value: object
    allowed: str
    """The values that fit, in words."""

    def __str__(self) -> str:
        """Return the setting, its value and what fits."""
        return f"{self.setting} = {self.value!r} (fits: {self.allowed})"


def refuse(run: Path, what: str, misfits: Sequence[Misfit], advice: str) -> None:
    """Raise ConfigError if settings of a run do not fit.

    Args:
        run: the run folder.
        what: what it cannot become.
        misfits: the settings; nothing is raised without any.
        advice: which run would fit.
    """
    if misfits:
        listed = ", ".join(map(str, misfits))
        raise ConfigError(f"{run}: does not fit {what}: {listed}; {advice}")
