"""What a table of vectors or probabilities is of: kept in the table, or beside a CSV file.

A few facts by name, such as the run, its hash and the pooling, as JSON: the member ``about`` of an NPZ
file, the key ``melpatch`` in the metadata of a Parquet file. A CSV file must be plain for other
programs, so the facts lie beside it in ``NAME.about.json``, with the digest of the table they are of.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from melpatch.atomic import clear_partial, written_aside
from melpatch.errors import CheckpointError
from melpatch.inference.arrow import arrow
from melpatch.inference.calibration import Calibration
from melpatch.opening import open_binary, read_json, reading, require_no_bomb
from melpatch.outputs import check_output
from melpatch.unchanged import digest_file, digest_of, is_unchanged, note_digest

MEMBER = "about"
"""The member of an NPZ file, an array of a single text."""
METADATA = b"melpatch"
"""The key in the metadata of a Parquet file."""
_TABLE = "table_digest"
_AGAIN = "write the table again"
_ZIP = b"PK\x03\x04"
_PARQUET = b"PAR1"


def about_text(about: Mapping[str, Any]) -> str:
    """Return facts as text."""
    return json.dumps(dict(about))


def about_beside(table: Path) -> Path:
    """Return the file beside a CSV file that has its facts."""
    return table.with_name(f"{table.name}.about.json")


def check_beside(table: Path, inputs: Iterable[str | Path], *, overwrite: bool, flag: str) -> None:
    """Raise ConfigError if the facts may not be written beside a CSV file.

    Args:
        table: the CSV file.
        inputs: files that are read.
        overwrite: whether a file of another origin may be replaced.
        flag: the flag that names the table.
    """
    check_output(
        about_beside(table),
        inputs=inputs,
        is_own=lambda path: is_unchanged(path) is True,
        overwrite=overwrite,
        flag=f"beside {flag}",
    )


def note_beside(table: Path, content: Path, about: Mapping[str, Any]) -> None:
    """Write beside a CSV file the facts about what it is to hold, and note the digests of both.

    It is called before the table is replaced. After a crash between the two, the facts have another
    digest than the table, until it is written again.

    Args:
        table: the CSV file.
        content: the file that is to take its place.
        about: the facts.
    """
    beside = about_beside(table)
    # A process that was killed here has left half of one of these.
    for path in (beside, digest_file(beside), digest_file(table)):
        clear_partial(path.parent, path.name)
    facts = {**about, _TABLE: digest_of(content)}
    with written_aside(beside) as aside:
        aside.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        note_digest(beside, aside)
    note_digest(table, content)


def read_about(table: Path) -> dict[str, Any] | None:
    """Return the facts about a table; None if it has none, as a table that others made.

    Args:
        table: an NPZ, Parquet or CSV file, whatever its name.

    Raises:
        CheckpointError: the table or the file beside it is damaged, or the table has changed since.
        ConfigError: it is Parquet, and pyarrow is not installed.
    """
    with reading(table, _AGAIN, None):
        with open_binary(table) as file:
            start = file.read(len(_ZIP))
        if start == _ZIP:
            return _from_npz(table)
        if start == _PARQUET:
            return _from_parquet(table)
    return _from_beside(table)


def _from_npz(table: Path) -> dict[str, Any] | None:
    require_no_bomb(table)
    with np.load(table, allow_pickle=False) as archive:
        if MEMBER not in archive.files:
            return None
        try:
            value = archive[MEMBER]
        except ValueError:
            # An array of objects, which only others write.
            return None
    if value.ndim > 0 or value.dtype.kind != "U":
        return None
    return _facts(value.item())


def _from_parquet(table: Path) -> dict[str, Any] | None:
    _, parquet = arrow()
    text = (parquet.read_metadata(table).metadata or {}).get(METADATA)
    return None if text is None else _facts(text)


def _facts(text: str | bytes) -> dict[str, Any] | None:
    """Return the facts in a text; None if others wrote something else under the same name."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) and "melpatch" in facts else None


def _from_beside(table: Path) -> dict[str, Any] | None:
    beside = about_beside(table)
    if not beside.exists():
        return None
    with reading(beside, _AGAIN):
        facts = read_json(beside)
        digest = facts.pop(_TABLE)
    if digest != digest_of(table):
        raise CheckpointError(f"{beside}: {table} was changed since; {_AGAIN}")
    return facts


def facts_of_answers(
    labels: tuple[str, ...],
    calibration: Calibration | None,
    *,
    multi_label: bool,
    thresholds: Float[np.ndarray, " label"] | None,
    threshold: float | None,
    false_alarms: float,
) -> dict[str, Any]:
    """Return the facts about a table of probabilities: its classes, and how labels were given.

    Args:
        labels: the classes.
        calibration: what was done to the answers; None if nothing was.
        multi_label: whether a clip may have several labels.
        thresholds: the lowest probability at which each label is given; None: the most probable is.
        threshold: the one that the user gave for all labels, if any.
        false_alarms: share of clips like the training ones that may be called none of the classes.
    """
    facts: dict[str, Any] = {
        "labels": [*labels],
        "multi_label": multi_label,
        "calibration": None,
        "threshold_rule": "the most probable class",
        "thresholds": None,
        "false_alarms": None,
    }
    if thresholds is not None:
        facts["threshold_rule"] = "the same for all classes"
        facts["thresholds"] = thresholds.tolist()
    if calibration is not None:
        facts["calibration"] = {
            "temperature": calibration.temperature,
            "clips": calibration.clips,
        }
        if threshold is None and calibration.thresholds is not None:
            facts["threshold_rule"] = calibration.threshold_rule
        if calibration.novelty is not None:
            facts["false_alarms"] = false_alarms
    return facts
