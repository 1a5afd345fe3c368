"""Scores along recordings: read from a table of windows, and written as a table of frames."""

import csv
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

import melpatch
from melpatch.atomic import written_aside
from melpatch.inference.events import FrameScores, frame_scores
from melpatch.inference.own_output import check_table
from melpatch.inference.table_about import note_beside, read_about
from melpatch.inference.tables import SECONDS, Column, table_format, write_table
from melpatch.opening import open_text, reading

_DEFAULT = ".csv"


def frames_in(table: Path, labels: Sequence[str], hop: float) -> Iterator[tuple[str, FrameScores]]:
    """Yield the scores along each recording of a table that ``melpatch predict --hop`` wrote.

    Windows with a note, which are silent or like none of the classes, have no score.

    Args:
        table: the file: CSV, NPZ or Parquet.
        labels: the classes, whose probabilities are its last columns.
        hop: the hop that it was written with.

    Raises:
        CheckpointError: the table is damaged.
    """
    readers = {".csv": _csv_rows, ".npz": _npz_rows, ".parquet": _parquet_rows}
    with reading(table, "write it again", None):
        rows = readers[table.suffix.lower() or _DEFAULT](table, len(labels))
        for path, group in groupby(rows, key=itemgetter(0)):
            _, starts, ends, notes, scores = zip(*group, strict=True)
            values = np.array(scores, dtype=float)
            values[[bool(note) for note in notes]] = 0.0
            times = np.array([starts, ends], dtype=float)
            yield path, frame_scores(times[0], times[1], values, hop)


def _csv_rows(table: Path, labels: int) -> Iterator[tuple[Any, ...]]:
    """Yield path, start, end, note and scores of each row."""
    with open_text(table) as file:
        rows = csv.reader(file)
        header = next(rows, [])
        places = [header.index(name) for name in ("path", "start", "end", "note")]
        for row in rows:
            yield *(row[place] for place in places), row[-labels:]


def _npz_rows(table: Path, labels: int) -> Iterator[tuple[Any, ...]]:
    with np.load(table, allow_pickle=False) as archive:
        names = ("path", "start", "end", "note", "probabilities")
        yield from zip(*(archive[name] for name in names), strict=True)


def _parquet_rows(table: Path, labels: int) -> Iterator[tuple[Any, ...]]:
    from pyarrow import parquet

    with parquet.ParquetFile(table) as file:
        for batch in file.iter_batches():
            columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
            names = batch.schema.names
            places = [columns[names.index(name)] for name in ("path", "start", "end", "note")]
            yield from zip(*places, np.stack(columns[-labels:], axis=1), strict=True)


def check_frames(out: Path, inputs: Sequence[str | Path], *, overwrite: bool) -> None:
    """Raise ConfigError if a table of frames cannot be written, or would replace something else."""
    ending = table_format(out, _DEFAULT)
    check_table(out, ending, "frames", inputs=inputs, overwrite=overwrite, flag="--frames")


def write_frames(table: Path, labels: Sequence[str], hop: float, out: Path) -> None:
    """Write the scores along the recordings of a table of windows: a row per frame.

    Args:
        table: see :func:`frames_in`.
        labels: the classes.
        hop: the hop that it was written with.
        out: the file; its ending names the format.
    """
    kinds = np.dtype([("start", "f8"), ("end", "f8"), ("values", "f4", (len(labels),))])

    def chunks() -> Iterator[np.ndarray]:
        for path, frames in frames_in(table, labels, hop):
            texts = np.dtype([("path", f"U{len(path)}"), *kinds.descr])
            chunk = np.empty(len(frames.start), texts)
            chunk["path"] = path
            chunk["start"] = frames.start
            chunk["end"] = frames.end
            chunk["values"] = frames.scores
            yield chunk

    def scores(rows: np.ndarray) -> Float[np.ndarray, "row label"]:
        values: np.ndarray = rows["values"]
        return values

    columns = [
        Column("path", lambda rows: rows["path"]),
        Column("start", lambda rows: rows["start"], SECONDS),
        Column("end", lambda rows: rows["end"], SECONDS),
        Column("probabilities", scores, ".6g", names=tuple(labels)),
    ]
    ending = table_format(out, _DEFAULT)
    about = {"melpatch": melpatch.__version__, **(read_about(table) or {})}
    about |= {"command": "predict --frames", "hop": hop}
    with written_aside(out) as aside:
        write_table(aside, ending, columns, chunks, about)
        if ending == ".csv":
            note_beside(out, aside, about)
