"""Index recordings of any length for melpatch search and melpatch page."""

from dataclasses import dataclass
from pathlib import Path

from melpatch import distributed
from melpatch.errors import ConfigError
from melpatch.inference.jobs import RecordingsConfig
from melpatch.search.approximate import build, require_library
from melpatch.search.build import add_recordings
from melpatch.search.index import Index

TOGETHER = True


@dataclass(frozen=True, kw_only=True)
class Config(RecordingsConfig):
    """What to index, how, and where."""

    out: Path
    """Folder of the index. Recordings that it has already are not computed again; new and changed
    ones are added."""
    window: float | None = None
    """Length of what is searched for, in seconds; by default the run's input. A longer one is pooled
    over pieces of that length."""
    hop: float | None = None
    """Seconds between the starts of windows; by default the window."""
    pooling: str | None = None
    """Tokens to vector, as in embed; by default fitted if the run has a fit-embedding, a
    classifier's own, or short vectors that the index fits to its first recordings."""
    layer: int | None = None
    """Layer whose output to take, from 0 or, from the end, from -1; without, the pooling's own."""
    approximate: bool = False
    """Also make, or bring up to date, the graphs of search --approximate, for millions of
    vectors."""


def run(config: Config) -> None:
    """Add the recordings to the index; those that cannot be read are listed in it."""
    if config.approximate:
        _check_approximate()
    add_recordings(
        config,
        window=config.window,
        hop=config.hop,
        pooling=config.pooling,
        layer=config.layer,
    )
    if config.approximate:
        build(Index(config.out))


def _check_approximate() -> None:
    """Raise ConfigError, before anything is computed, if graphs cannot be made."""
    require_library()
    if distributed.world_size() > 1:
        raise ConfigError(
            "--approximate is for one process; leave it out here, and run the same command with it "
            "once more without torchrun"
        )
