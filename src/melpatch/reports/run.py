"""The report on a run: what it was trained on, how that went, what it makes of sound, what it scores."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from melpatch.evaluation.majority import metric_in_words
from melpatch.evaluation.report import SCORES, record_in
from melpatch.inference.description import facts
from melpatch.markup import Html, listing, paragraph, table
from melpatch.opening import LOG_BYTES, read_json_lines, reading
from melpatch.plots.curve import curve
from melpatch.reports.hearing import hearing_sections
from melpatch.reports.media import picture
from melpatch.reports.methods import methods_section
from melpatch.reports.page import Section, missing, note
from melpatch.reports.repeat import repeat_section, settings_section, starts_of
from melpatch.reports.scores import evaluation_sections, summary_table
from melpatch.training.clip_record import ABOUT, untrained_labels
from melpatch.training.completion import describe_unfinished
from melpatch.training.config import RunConfig
from melpatch.training.foreign import read_source
from melpatch.training.run import Run
from melpatch.workflows.kept_weights import read_validation
from melpatch.workflows.pictures import run_title

METRICS = "metrics.jsonl"
_RESTORE = "restore it from a backup"


def run_sections(folder: Path, settings: RunConfig, worst: int, clips: int) -> list[Section]:
    """Return the sections on a run.

    Args:
        folder: the run folder.
        settings: its settings.
        worst: how many of the worst clips of each evaluation to show.
        clips: how many training clips to embed; 0 leaves out what needs the network.
    """
    records = evaluations_in(folder)
    sections = [
        Section("What was trained, on what", [*_about(folder, settings)]),
        Section("Training", [*_training(folder, settings)]),
        *hearing_sections(folder, settings, clips),
        Section("Scores", [*_scores(folder, records)]),
    ]
    for path, record in records.items():
        sections += evaluation_sections(path, record, settings.front_end, worst)
    sections.append(settings_section(settings))
    sections.append(repeat_section(starts_of(folder)))
    sections.append(methods_section(folder, settings, [*records.values()]))
    return sections


def evaluations_in(folder: Path) -> dict[Path, dict[str, Any]]:
    """Return the records of all evaluations in a folder and below it, by their folders.

    Raises:
        CheckpointError: a record is damaged.
    """
    records = {}
    for path in sorted(folder.rglob(SCORES)):
        record = record_in(path.parent)
        # Floors, and the runs of a protocol, have records of their own below its folder.
        if record is not None and not any(parent in records for parent in path.parent.parents):
            records[path.parent] = record
    return records


def _about(folder: Path, settings: RunConfig) -> Iterator[Html]:
    warnings = [describe_unfinished(folder, settings)]
    untrained = untrained_labels(folder)
    if untrained:
        warnings.append(f"trained on no clip of these classes: {', '.join(untrained)}")
    yield from map(note, filter(None, warnings))
    yield table([], _facts(folder, settings))


def _facts(folder: Path, settings: RunConfig) -> Iterator[list[object]]:
    yield from facts(settings)
    path = folder / ABOUT
    if path.exists():
        with reading(path, _RESTORE):
            yield ["training clips", int(json.loads(path.read_text(encoding="utf-8"))["clips"])]
    source = read_source(folder)
    if source is not None:
        yield ["imported from", f"{source.source}: {source.family}, licence {source.licence}"]
    speed = Run.speed(folder)
    for name in ("seconds", "cpu_seconds", "clips_per_second", "memory_gib"):
        if name in speed:
            yield [name.replace("_", " ").replace("gib", "(GiB)"), speed[name]]


def _training(folder: Path, settings: RunConfig) -> Iterator[Html]:
    path = folder / METRICS
    if not path.exists():
        yield missing("No curves: the weights were imported or kept from a probe, without steps.")
        return
    with reading(path, "take the damaged lines out, or restore it from a backup", LOG_BYTES):
        records = read_json_lines(path)
    warnings = [
        f"step {record['step']}: {record['warning']}" for record in records if "warning" in record
    ]
    if warnings:
        yield note("Warnings while it trained:", listing(warnings))
    title = run_title(folder, settings)
    yield picture(
        partial(curve, metrics=records, title=title),
        f"Curves of training: {title}",
        "Each value thin, the running mean thick, validation as points. embedding_std and "
        "effective_rank are the health of the embeddings: both fall where they collapse.",
    )
    yield table(["metric", "first", "last"], _ends(records), "Where each curve starts and ends.")


def _ends(records: Sequence[Mapping[str, Any]]) -> Iterator[list[object]]:
    values: dict[str, list[Any]] = {}
    for record in records:
        for name, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                values.setdefault(name, []).append(value)
    for name, series in values.items():
        yield [name.replace("_", " "), series[0], series[-1]]


def _scores(folder: Path, records: Mapping[Path, Mapping[str, Any]]) -> Iterator[Html]:
    validation = read_validation(folder)
    if validation is not None:
        yield from map(note, validation["warnings"])
        probe = validation.get("linear_probe") or {}
        rows = [
            [metric_in_words(name), value, probe.get(name)]
            for name, value in validation["metrics"].items()
        ]
        yield table(
            ["metric", "this run", "linear probe it started from"],
            rows,
            f"On validation clips ({validation.get('clips')}), on which the weights were chosen: "
            "they are no test.",
        )
    if records:
        yield summary_table(records)
    else:
        yield missing(
            "No test scores: this run has not been scored, or not into its folder; see melpatch "
            "evaluate."
        )
    if validation is None and not records:
        yield paragraph("Nothing is known of how good it is.")
