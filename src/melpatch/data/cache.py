"""Where fetched data is kept, and how much of it: the user says so in environment variables."""

import os
from pathlib import Path

from melpatch.errors import ConfigError

CACHE_FOLDER = "MELPATCH_CACHE"
"""Environment variable with the folder of the cache."""
CACHE_LIMIT = "MELPATCH_CACHE_GIB"
"""Environment variable with its size in GiB."""
_DEFAULT_GIB = "20"


def cache_root() -> Path:
    """Return the folder of the cache."""
    given = os.environ.get(CACHE_FOLDER)
    if given:
        return Path(given).absolute()
    return Path.home() / ".cache" / "melpatch"


def cache_limit() -> int:
    """Return the size limit of the cache in bytes."""
    given = os.environ.get(CACHE_LIMIT, _DEFAULT_GIB)
    try:
        gib = float(given)
    except ValueError:
        gib = 0.0
    if not gib > 0:
        raise ConfigError(f"{CACHE_LIMIT} = {given!r}; allowed: gibibytes above 0")
    # Infinity becomes 2^50 bytes.
    return int(min(gib, 1 << 20) * (1 << 30))
