"""pyarrow, which reads and writes Parquet, and need not be installed."""

from typing import Any

from melpatch.errors import ConfigError


def arrow() -> tuple[Any, Any]:
    """Return the modules ``pyarrow`` and ``pyarrow.parquet``.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            "Parquet needs pyarrow; install it with: pip install 'melpatch[parquet]'"
        ) from error
    return pyarrow, parquet
