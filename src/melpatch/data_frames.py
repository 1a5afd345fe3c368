"""Results as frames of pandas or polars, which are imported on first use and need not be installed."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from melpatch.errors import MelpatchError

Column = Sequence[Any] | np.ndarray
"""The values of a column; all columns of a frame are of one length."""


class Tabular:
    """What has columns, and so becomes a frame of pandas or of polars."""

    __slots__ = ()

    def columns(self) -> dict[str, Column]:
        """Return the columns by their names."""
        raise NotImplementedError

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame``.

        Raises:
            MelpatchError: pandas is not installed.
        """
        return _library("pandas").DataFrame(self.columns())

    def to_polars(self) -> Any:
        """Return a ``polars.DataFrame``.

        Raises:
            MelpatchError: polars is not installed.
        """
        return _library("polars").DataFrame(self.columns())


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MelpatchError(
            f"to_{name} needs {name}; install it with: pip install 'melpatch[{name}]'"
        ) from error
