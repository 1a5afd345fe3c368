"""A figure of the metrics of a run against the step."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from melpatch.errors import MelpatchError
from melpatch.faults import let_pass
from melpatch.opening import LOG_BYTES, read_bytes
from melpatch.plots.base import save, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_TRAINING = "#2f5f9e"
_VALIDATION = "#d9541e"
_VALIDATED = "val_"  # in front of the name of a metric that was measured on the validation split
_MAJORITY = "majority_rate"  # accuracy of calling every clip the commonest class
_SPARSE = 30  # up to this number, values are drawn as points
_EXACT = {"lr"}  # not measured but set, so that there is no noise to smooth


def curve(
    path: Path,
    metrics: Path | Sequence[Mapping[str, Any]],
    keys: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Draw metrics against the step: each value thin, their running mean thick, validation as points.

    Args:
        path: PNG file to write.
        metrics: a run's metrics.jsonl, or its lines as mappings with ``step`` and numbers.
        keys: which metrics to draw, the first one largest; all of them, the loss first, if not
            given. ``val_`` metrics are drawn with the ones they belong to, and the majority rate as
            a line beside the accuracy.
        title: words above the picture.

    Raises:
        MelpatchError: the file is no such file, or holds no such metric; or matplotlib is missing.
    """
    logged = _read(metrics) if isinstance(metrics, Path) else metrics
    records = [record for record in logged if "step" in record]
    names = _names(records)
    keys = names if keys is None else keys
    unknown = [key for key in keys if key not in names]
    if unknown or not keys:
        what = f"no metric {unknown[0]!r}" if unknown else "no metric to draw"
        raise MelpatchError(f"{what}; there are: {', '.join(names) or 'none'}")
    figure = sheet(10.0, 0.7 + 2.4 * (len(keys) // 2 + 1), title)
    last = max(record["step"] for record in records)
    lines: dict[str, Line2D] = {}
    for key, panel in zip(keys, _panels(figure, len(keys)), strict=True):
        panel.set_xlim(-0.02 * last, 1.02 * last + 1)
        _draw(panel, records, key)
        lines = {str(line.get_label()): line for line in panel.lines} | lines
    figure.legend(
        lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines), frameon=False
    )
    save(figure, path)


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        lines = read_bytes(file, LOG_BYTES).decode("utf-8", "replace").splitlines()
    except OSError as error:
        let_pass(error)
        raise MelpatchError(
            f"{file}: cannot be read ({error.strerror}); give a run's metrics.jsonl"
        ) from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise MelpatchError(
                f"{file}, line {number}: not JSON ({error.msg}); take that line out"
            ) from error
    return records


def _number(value: object) -> float:
    """Return a value as a float; NaN if it is not a finite number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return math.nan


def _names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the metrics that have a finite number anywhere, the loss first, the others in order of appearance."""
    names = {
        key.removeprefix(_VALIDATED): None
        for record in records
        for key, value in record.items()
        if not math.isnan(_number(value))
    }
    for name in ("step", _MAJORITY):
        names.pop(name, None)
    return sorted(names, key=lambda key: key != "loss")


def _panels(figure: "Figure", count: int) -> Iterator["Axes"]:
    """Yield rows of two panels; the first one has a row to itself, and so has a last one without neighbour."""
    grid = figure.add_gridspec(count // 2 + 1, 2)
    for number in range(count):
        wide = number == 0 or (number == count - 1 and number % 2 == 1)
        row, column = divmod(number + 1, 2)
        yield figure.add_subplot(grid[row, :] if wide else grid[row, column])


def _series(
    records: Sequence[Mapping[str, Any]], key: str
) -> tuple[Float[np.ndarray, " value"], Float[np.ndarray, " value"]]:
    """Return the steps at which a metric was logged, in order, and its values."""
    pairs = sorted(
        ((_number(record["step"]), _number(record[key])) for record in records if key in record),
        key=lambda pair: pair[0],
    )
    steps, values = np.array(pairs, dtype=float).reshape(-1, 2).T
    return steps, values


def _smooth(values: Float[np.ndarray, " value"]) -> Float[np.ndarray, " value"]:
    """Return the mean over the neighbouring finite values, a twentieth of all of them."""
    window = np.ones(2 * (len(values) // 40) + 1)
    finite = np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0.0), window, mode="same")
    count = np.convolve(finite, window, mode="same")
    mean: Float[np.ndarray, " value"] = np.divide(
        total, count, out=np.full_like(total, np.nan), where=count > 0
    )
    return mean


def _draw(panel: "Axes", records: Sequence[Mapping[str, Any]], key: str) -> None:
    steps, values = _series(records, key)
    if len(values) <= _SPARSE or key in _EXACT:
        marker = "o" if len(values) <= _SPARSE else ""
        panel.plot(
            steps,
            values,
            color=_TRAINING,
            linewidth=1.5,
            marker=marker,
            markersize=3,
            label="training",
        )
    else:
        panel.plot(steps, values, color=_TRAINING, linewidth=0.6, alpha=0.45, label="training")
        panel.plot(
            steps, _smooth(values), color=_TRAINING, linewidth=2, label="training, running mean"
        )
    steps, values = _series(records, _VALIDATED + key)
    if len(values):
        panel.plot(
            steps,
            values,
            color=_VALIDATION,
            linewidth=1,
            marker="o",
            markersize=5,
            label="validation",
        )
    _, majority = _series(records, _VALIDATED + _MAJORITY)
    if key == "accuracy" and len(majority):
        panel.axhline(majority[-1], color="0.4", linewidth=1, linestyle="--", label="majority rate")
    panel.set_xlabel("step")
    panel.set_ylabel(key, parse_math=False)
    panel.ticklabel_format(axis="y", scilimits=(-3, 4))
    panel.grid(color="0.9", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
