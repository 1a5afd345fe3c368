"""Scores as tables for a terminal of any width: names are shortened, numbers never."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from melpatch.counted import counted

# Heads of the columns, and what stands for them in a narrow terminal.
_SHORT_HEADS = {
    "protocol": "protocol",
    "metric": "metric",
    "value": "value",
    "95 %": "95 %",
    "seeds": "seeds",
    "majority": "majority",
    "balanced accuracy": "bal. acc.",
    "macro F1": "F1",
    "mAP": "mAP",
    "mAUC": "mAUC",
    "s (embedding)": "s (emb.)",
}
_AGAINST_HEADS = ("", "this", "other", "difference", "95 %", "p", "needed", "balanced")
# Width at which a table is measured, so that nothing in it has to give way.
_UNLIMITED = 10_000


def score_tables(
    records: Mapping[str, Mapping[str, Any]], title: str, console: Console
) -> list[Table]:
    """Return the scores of some protocols as one table, or as several where one would not fit.

    Where the names of the columns fit, there is a row per protocol. In a narrower terminal there is
    a column per protocol, and as many tables as it takes.

    Args:
        records: protocol to record, as ``melpatch.evaluate`` returns them.
        title: what was scored.
        console: where the tables will be shown.
    """
    rows = [_cells(name, record) for name, record in records.items()]
    for heads in (_SHORT_HEADS.keys(), _SHORT_HEADS.values()):
        table = _row_per_protocol(heads, rows, title)
        if _fits(table, console):
            return [table]
    return _tables_of_columns([*_SHORT_HEADS.values()], rows, title, console)


def floor_tables(records: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Return a table per protocol of its floors and the gain over each; none without floors."""
    return [_floor_table(name, record) for name, record in records.items() if record["floors"]]


def against_tables(records: Mapping[str, Mapping[str, Any]], console: Console) -> list[Table]:
    """Return the differences to another run as :func:`score_tables` does; none without one."""
    compared = {name: record for name, record in records.items() if record["against"]}
    if not compared:
        return []
    first = next(iter(compared.values()))
    title = f"{first['run']} against {first['against']['run']} on the same clips"
    rows = [_difference(name, record) for name, record in compared.items()]
    table = _row_per_protocol(_AGAINST_HEADS, rows, title)
    if _fits(table, console):
        return [table]
    return _tables_of_columns(_AGAINST_HEADS, rows, title, console)


def _difference(name: str, record: Mapping[str, Any]) -> list[str]:
    other = record["against"]
    needed = other[f"{other['by']}s_needed"]
    return [
        name,
        _number(record["value"]),
        _number(other["value"]),
        f"{other['difference']:+.3f}",
        _signed(other["difference_95"]),
        f"{other['p_value']:.2g}",
        "-" if needed is None else counted(needed, other["by"]),
        _balanced(record["metrics"].get("balanced_accuracy"), other["balanced_accuracy"]),
    ]


def _balanced(own: float | None, other: float | None) -> str:
    if own is None or other is None:
        return "-"
    return f"{own:.3f} / {other:.3f}"


def _floor_table(name: str, record: Mapping[str, Any]) -> Table:
    title = f"{name} {record['version']} beside floors on the same clips"
    table = Table("", record["metric"], "gain", "95 % of the gain", title=title)
    own = ["this run", _number(record["value"]), "", ""]
    rows = []
    for floor in record["floors"]:
        gain = "-" if floor["gain"] is None else f"{floor['gain']:+.3f}"
        rows.append([floor["name"], _number(floor["value"]), gain, _signed(floor["gain_95"])])
    if record["metric"] == "accuracy":
        table.add_column("balanced")
        own.append(_number(record["metrics"]["balanced_accuracy"]))
        for row, floor in zip(rows, record["floors"], strict=True):
            row.append(_number(floor["balanced_accuracy"]))
    table.add_row(*own, style="bold")
    for row in rows:
        table.add_row(*row)
    return table


def _row_per_protocol(heads: Iterable[str], rows: Sequence[Sequence[str]], title: str) -> Table:
    table = Table(*heads, title=title)
    for cells in rows:
        table.add_row(*cells)
    return table


def _tables_of_columns(
    heads: Sequence[str], rows: Sequence[Sequence[str]], title: str, console: Console
) -> list[Table]:
    """Return tables with a row per number, each with as many protocols as fit."""
    tables: list[Table] = []
    remaining = list(rows)
    while remaining:
        for count in range(len(remaining), 0, -1):
            table = _column_per_protocol(heads, remaining[:count], "" if tables else title)
            if _fits(table, console):
                break
        tables.append(table)
        remaining = remaining[count:]
    return tables


def _column_per_protocol(heads: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> Table:
    table = Table(title=title)
    table.add_column(heads[0], no_wrap=True)
    for cells in rows:
        table.add_column(cells[0], overflow="fold")
    for number, head in enumerate(heads[1:], start=1):
        table.add_row(head, *(cells[number] for cells in rows))
    return table


def _fits(table: Table, console: Console) -> bool:
    options = console.options.update(width=_UNLIMITED)
    return console.measure(table, options=options).maximum <= console.width


def _cells(name: str, record: Mapping[str, Any]) -> list[str]:
    """Return the row of a protocol, a text per column."""
    changed = " *" if record["settings_changed"] else ""
    metrics = record["metrics"]
    cells = [f"{name} {record['version']}{changed}", record["metric"], _number(record["value"])]
    cells += [_interval(record), _seeds(record)]
    baseline = metrics.get("majority_rate", metrics.get("prevalence"))
    cells.append(_number(baseline))
    cells += [_number(metrics.get(key)) for key in ("balanced_accuracy", "macro_f1", "mAP", "mAUC")]
    return [*cells, _seconds(record)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _signed(interval: Sequence[float] | None) -> str:
    if interval is None:
        return "-"
    low, high = interval
    return f"{low:+.3f} to {high:+.3f}"


def _interval(record: Mapping[str, Any]) -> str:
    if record["interval_95"] is None:
        return "-"
    low, high = record["interval_95"]
    by_group = " (by group)" if record["interval_by"] == "group" else ""
    return f"{low:.3f} to {high:.3f}{by_group}"


def _seeds(record: Mapping[str, Any]) -> str:
    text = f"{len(record['seeds'])}"
    if record["seed_std"] is not None:
        text += f" (±{record['seed_std']:.3f})"
    return text


def _seconds(record: Mapping[str, Any]) -> str:
    """Return the seconds of the trials, and in brackets those of the embedding, if known."""
    text = "-" if record["seconds"] is None else f"{record['seconds']:.1f}"
    if record["embedding_seconds"] is not None:
        text += f" ({record['embedding_seconds']:.1f})"
    return text
