"""Label recordings of any length."""

import csv
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import cast

import numpy as np
import tyro
from jaxtyping import Bool

from melpatch.config import check
from melpatch.counted import agreeing, counted
from melpatch.data.columns import class_columns
from melpatch.distributed import on_rank_zero
from melpatch.errors import ConfigError
from melpatch.evaluation.majority import listed
from melpatch.inference.jobs import InferenceConfig, hash_of_run, inference_job
from melpatch.inference.label_rule import (
    check_label_rule,
    describe_too_few,
    label_rule,
    names_of,
)
from melpatch.inference.live import microphone_blocks, piped_blocks, predict_live
from melpatch.inference.model import Model, load
from melpatch.inference.novelty import FALSE_ALARMS, NONE_OF_THESE
from melpatch.inference.table_about import facts_of_answers
from melpatch.inference.tables import Column
from melpatch.inference.writing import write_output
from melpatch.objectives.classify import Classify
from melpatch.outputs import check_output, check_output_folder
from melpatch.progress import console, notice
from melpatch.training.clip_record import untrained_labels
from melpatch.training.completion import describe_unfinished
from melpatch.unchanged import is_unchanged
from melpatch.workflows.event_settings import EventConfig
from melpatch.workflows.events import event_table, events_in, score_events, write_events
from melpatch.workflows.frames import check_frames, write_frames
from melpatch.workflows.kept_weights import read_validation

TOGETHER = True
_ENOUGH = 10  # recordings, or recordings per class, from which on missing classes are told
_PIPE = "-"


@dataclass(frozen=True, kw_only=True)
class Config(EventConfig, InferenceConfig):
    """What to label, and where to write it."""

    recordings: tyro.conf.Positional[tuple[str, ...]] = ()
    """Audio files, folders of them, CSV files with a column path, folders of shards, URLs of these,
    or data of others (docs/data.md); or - for sound that comes through a pipe, of which each --hop
    seconds are answered as they come."""
    out: Path
    """CSV to write: path, start and end in seconds, label, probability, novelty (of a calibrated
    run), note (silent where there is no sound, none of these), then one column per class; clips of
    a CSV file or of shards have their key too. A name that ends in .parquet or .npz is written as
    such."""
    labels: Path | None = None
    """Class list of a model of other code that names no classes: one name a line, or AudioSet's
    class_labels_indices.csv."""
    hop: float | None = None
    """Seconds between the starts of windows, each as long as the segments that the classifier was
    trained on (melpatch finetune --seconds); without, one line per recording."""
    threshold: float | None = None
    """Lowest probability of a label that is given; by default that of each class which the run has
    learnt on validation clips, or else 0.5 of a multi-label model."""
    false_alarms: float = FALSE_ALARMS
    """Share of clips like the training ones that may be called none of these, without a label; 0
    never does. It is for a calibrated run, which has seen validation clips."""

    live: bool = False
    """Listen to the microphone, and answer every --hop seconds until Ctrl-C."""
    raw_rate: int | None = None
    """With -: rate in Hz of raw samples (16 bits, little-endian, mono); without, the pipe is a WAV."""

    @property
    def is_live(self) -> bool:
        """Whether sound is answered as it comes."""
        return self.live or self.recordings == (_PIPE,)

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._check_live()
        self.check_events(self.hop)
        check(self.hop is None or self.hop > 0, "hop", self.hop, "seconds above 0")
        check_label_rule(self.threshold, self.false_alarms)

    def _check_live(self) -> None:
        """Raise ConfigError if sound that is still coming and files are mixed up."""
        if not self.live and not self.recordings:
            raise ConfigError(
                "no recordings are given; name files, or folders that hold some, or - or --live"
            )
        if self.live and self.recordings:
            raise ConfigError(f"--live takes no recordings; leave out {self.recordings[0]}")
        if not self.is_live:
            check(self.raw_rate is None, "raw_rate", self.raw_rate, "none, without a pipe (-)")
            return
        if self.hop is None:
            raise ConfigError("--hop is missing; give the seconds between two answers")
        rate = self.raw_rate
        check(rate is None or rate > 0, "raw_rate", rate, "Hz above 0")
        for name in ("events", "frames", "resume", "salvage"):
            if getattr(self, name):
                raise ConfigError(f"--{name} is for files; leave it out with - or --live")


def run(config: Config) -> None:
    """Write one table; unreadable files are listed beside it.

    With ``--hop`` a damaged file has its windows up to the damage. Otherwise it has no row, or with
    ``--salvage`` that of the sound before the damage.
    """
    model = load(
        config.run,
        precision=config.precision,
        labels=config.labels,
        trust_code=config.trust_code,
    )
    if not isinstance(model.objective, Classify):
        raise ConfigError(
            f"{config.run}: has no labels to predict; fine-tune it first with "
            f"melpatch finetune --init {config.run}"
        )
    if config.is_live:
        _listen(config, model)
        return
    _check_events(config, model)
    _warn_of_run(config.run, model)
    _warn_of_few(config, model)
    tally = _Tally(np.zeros(len(model.labels), dtype=bool))
    job = inference_job(
        config,
        model,
        model.prediction_task(hop=config.hop, salvage=config.salvage),
        _columns(config, model, tally),
        default_ending=".csv",
        about={
            "command": "predict",
            "model": hash_of_run(config.run, model, with_calibration=True),
            "hop": config.hop,
            "salvage": config.salvage,
        },
        more_about=lambda _: facts_of_answers(
            model.labels,
            model.calibration,
            multi_label=model.network.classifier().config.multi_label,
            thresholds=label_rule(model, config.threshold, config.false_alarms).thresholds,
            threshold=config.threshold,
            false_alarms=config.false_alarms,
        ),
        timed=True,
        keep=config.hop is not None or config.salvage,
    )
    write_output(job)
    if config.events is not None or config.frames is not None:
        on_rank_zero(lambda: _write_events(config, model))
    warnings = (
        describe_assigned(tally.assigned, model.labels, len(job.recordings)),
        describe_unlike(tally.unlike, tally.rows, model.seconds),
    )
    for warning in filter(None, warnings):
        notice(warning)


def _listen(config: Config, model: Model) -> None:
    """Write a row for each hop of sound as it comes, to a file or to stdout (--out -)."""
    assert config.hop is not None
    if config.live:
        rate, blocks = microphone_blocks(config.hop)
    else:
        rate, blocks = piped_blocks(
            cast("BufferedIOBase", sys.stdin.buffer), config.hop, config.raw_rate
        )
    to_stdout = str(config.out) == _PIPE
    if not to_stdout:
        check_output(config.out, inputs=[], is_own=lambda path: False, overwrite=config.overwrite)
    rule = label_rule(model, config.threshold, config.false_alarms)
    with ExitStack() as stack:
        file = sys.stdout
        if not to_stdout:
            file = stack.enter_context(config.out.open("w", newline="", encoding="utf-8"))
        writer = csv.writer(file)
        fixed = ("start", "end", "label", "probability", "note")
        writer.writerow([*fixed, *class_columns(model.labels, fixed)])
        for answer in predict_live(model, blocks, rate):
            p = np.array([[*answer.probabilities.values()]])
            novelty = None if answer.novelty is None else np.array([answer.novelty])
            (label,) = names_of(rule.given(p, novelty), model.labels)
            (is_unlike,) = rule.unlike(novelty, 1)
            notes = [*["silent"] * answer.silent, *[NONE_OF_THESE] * bool(is_unlike)]
            row = [f"{answer.start:.3f}", f"{answer.end:.3f}", label]
            row += [f"{p.max():.6g}", "; ".join(notes), *(f"{value:.6g}" for value in p[0])]
            writer.writerow(row)
            file.flush()


def _check_events(config: Config, model: Model) -> None:
    """Raise ConfigError if events cannot be found with these settings, or not be written."""
    if config.hop is None or (config.events is None and config.frames is None):
        return
    allowed = f"at most {model.seconds:g} s, the length of a window, beside --events and --frames"
    check(config.hop <= model.seconds, "hop", config.hop, allowed)
    inputs = [*config.recordings, *config.true_events]
    if config.frames is not None:
        check_frames(config.frames, [*inputs, config.out], overwrite=config.overwrite)
    if config.events is None:
        return
    if config.events_for != "csv":
        check_output_folder(config.events, inputs, flag="--events")
        return
    check_output(
        config.events,
        inputs=[*inputs, config.out],
        is_own=lambda path: bool(is_unchanged(path)),
        overwrite=config.overwrite,
        flag="--events",
    )


def _write_events(config: Config, model: Model) -> None:
    """Write frames and events of the table that was written, and score events against true ones."""
    assert config.hop is not None
    if config.frames is not None:
        write_frames(config.out, model.labels, config.hop, config.frames)
        notice(f"scores along recordings: {config.frames}")
    if config.events is None:
        return
    rule = label_rule(model, config.threshold, config.false_alarms)
    thresholds = rule.event_thresholds(len(model.labels))
    events = events_in(config.out, model.labels, thresholds, config.hop, config.event_rule())
    count = write_events(events, config.events, config.events_for)
    notice(f"{counted(count, 'event')} in {counted(len(events), 'recording')}: {config.events}")
    if config.true_events:
        scores = score_events(events, config.true_events, model.labels)
        console().print(event_table(scores))


def _warn_of_run(folder: Path, model: Model) -> None:
    """Warn of what its training tells of a classifier's answers."""
    unfinished = describe_unfinished(folder, model.config)
    if unfinished is not None:
        notice(unfinished)
    untrained = untrained_labels(folder)
    if untrained:
        notice(f"{folder} was trained on no clip of these classes: {', '.join(untrained)}")
    validation = read_validation(folder)
    if validation is not None and validation["warnings"]:
        notice(f"{folder}: {'; '.join(validation['warnings'])}")


@dataclass
class _Tally:
    """What the answers written so far have in common."""

    assigned: Bool[np.ndarray, " label"]
    """Which classes are the most probable one of any row."""
    rows: int = 0
    unlike: int = 0
    """Rows that are like no training clip."""


def _columns(config: Config, model: Model, tally: _Tally) -> list[Column]:
    """Return the columns of the answers, which are counted in a tally as they are written."""
    number = len(model.labels)
    rule = label_rule(model, config.threshold, config.false_alarms)

    def novelty(rows: np.ndarray) -> np.ndarray | None:
        return None if rule.novelty_clips is None else rows["values"][:, number]

    def labels(rows: np.ndarray) -> np.ndarray:
        probabilities = rows["values"][:, :number]
        tally.assigned[probabilities.argmax(axis=1)] = True
        return names_of(rule.given(probabilities, novelty(rows)), model.labels)

    def notes(rows: np.ndarray) -> np.ndarray:
        silent = np.where(rows["silent"], "silent", "")
        both = np.where(rows["silent"], f"silent; {NONE_OF_THESE}", NONE_OF_THESE)
        unlike = rule.unlike(novelty(rows), len(rows))
        tally.rows += len(rows)
        tally.unlike += int(unlike.sum())
        return np.where(unlike, both, silent)

    columns = [
        Column("label", labels),
        Column("probability", lambda rows: rows["values"][:, :number].max(axis=1), ".6g"),
        Column("note", notes),
        Column("probabilities", lambda rows: rows["values"][:, :number], ".6g", names=model.labels),
    ]
    if rule.novelty_clips is not None:
        columns.insert(2, Column("novelty", lambda rows: rows["values"][:, number], ".4g"))
    return columns


def describe_assigned(
    assigned: Bool[np.ndarray, " label"], labels: tuple[str, ...], recordings: int
) -> str | None:
    """Return a sentence if recordings that are enough to judge by are all called the same, or never some class.

    Args:
        assigned: which classes are the most probable one of any row.
        labels: the classes.
        recordings: how many recordings there are.
    """
    (called,) = np.nonzero(assigned)
    if len(called) == 1 and recordings >= _ENOUGH:
        return (
            f"the most probable class is {labels[called[0]]!r} in all of {recordings} recordings; if "
            "they are not all of it, the classifier has collapsed: see melpatch evaluate"
        )
    if called.size and recordings >= _ENOUGH * len(labels) and len(called) < len(labels):
        missing = [label for label, known in zip(labels, assigned, strict=True) if not known]
        verb = agreeing(len(missing), "is", "are")
        classes = counted(len(labels), "class")
        return f"{len(missing)} of {classes} {verb} never the most probable one: {listed(missing)}"
    return None


def describe_unlike(unlike: int, rows: int, seconds: float) -> str | None:
    """Return a sentence if most rows are like no training clip.

    Args:
        unlike: how many of the rows are.
        rows: how many rows there are.
        seconds: length of a window.
    """
    if 2 * unlike <= rows or rows < _ENOUGH:
        return None
    return (
        f"{unlike} of {rows} rows are like no training clip and have no label; windows last "
        f"{seconds:g} s, and where the labelled clips are shorter, training with --seconds as long "
        "as these helps; --false-alarms 0 labels all rows"
    )


def _warn_of_few(config: Config, model: Model) -> None:
    """Say so if there are too few validation clips to tell what is unlike the training clips."""
    rule = label_rule(model, config.threshold, config.false_alarms)
    if rule.has_too_few_clips:
        assert rule.novelty_clips is not None
        notice(describe_too_few(str(config.run), rule.novelty_clips, rule.false_alarms))
