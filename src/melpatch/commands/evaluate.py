"""Score a run on labelled audio: a classifier by its predictions, an encoder by probes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import tyro

from melpatch.counted import counted
from melpatch.distributed import on_rank_zero
from melpatch.errors import ConfigError
from melpatch.evaluation.against import describe_verdicts
from melpatch.evaluation.evaluate import evaluate
from melpatch.evaluation.floors import describe_highest
from melpatch.evaluation.majority import REMEDY
from melpatch.evaluation.own_decisions import describe_decisions
from melpatch.evaluation.score_tables import against_tables, floor_tables, score_tables
from melpatch.evaluation.scores import Scores
from melpatch.evaluation.select import parse_settings
from melpatch.inference.label_rule import check_label_rule
from melpatch.inference.network import Precision
from melpatch.inference.novelty import FALSE_ALARMS
from melpatch.opening import require_inside
from melpatch.outputs import as_file_name
from melpatch.progress import console, notice, show_json
from melpatch.weight_files import require_run_folder
from melpatch.workflows.event_evaluation import evaluate_events
from melpatch.workflows.event_settings import EventRuleConfig
from melpatch.workflows.events import event_table

TOGETHER = True


@dataclass(frozen=True, kw_only=True)
class Config(EventRuleConfig):
    """What to score, how, and on what."""

    run: tyro.conf.Positional[Path]
    """Run folder of a classifier or of a pretrained encoder, or a model of other code."""
    data: tuple[str, ...] = ()
    """Labelled folders or CSV files. Left out, with --true-events only events are scored."""
    protocol: tuple[str, ...] = ()
    """Protocols (melpatch list protocols); by default knn and linear for an encoder, as_trained for a classifier."""
    set: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Changed settings of the protocols, such as k=20; each goes to the protocols that have it and
    is written beside the scores."""
    labels: Path | None = None
    """Class list of a model of other code that names no classes: one name a line, or AudioSet's
    class_labels_indices.csv."""
    split: tuple[str, ...] = ()
    """Splits or folds to score, each by itself; by default test, or else every fold."""
    split_column: str = "split"
    """Column of the CSV file that holds the split or fold."""
    label_column: str = "label"
    """Column of the CSV file that holds the labels."""
    group_column: str = "group"
    """Column of the CSV file that holds the recording, speaker or patient of a clip."""
    labels_per_class: int | None = None
    """Train on this many clips per class, drawn by the seed; by default all."""
    seeds: tuple[int, ...] = ()
    """One repetition each; by default as many as the protocol has, from 0."""
    random_weights: bool = False
    """Score the same network at random weights instead: shows what training is worth."""
    floors: bool = True
    """Score the same clips with the majority class, with statistics of log-mel spectrograms and
    MFCCs, and with random weights of the same network too."""
    against: Path | None = None
    """Another run, scored on the same clips: shows the difference to it, a paired test, and how
    many clips it would take to tell the two apart."""
    keep: Path | None = None
    """Run folder to write for the classifier that the linear probe is; with --protocol linear or
    few_shot, one split and one seed. It predicts, embeds and is scored as any other."""
    precision: Precision = "32-true"
    """Arithmetic of the frozen network, written beside the scores: float32; bf16-mixed; auto, which
    is bf16-mixed on a GPU with bf16 hardware; or fastest, which measures which is faster here."""
    batch_size: int = 32
    """Windows per batch."""
    workers: int = 0
    """Decoding processes."""
    out: Path | None = None
    """Folder for the results, with a sub-folder per protocol and set of changed settings; by
    default in RUN/evaluation, named after what is scored; a model of other code has no such
    folder."""
    features_dir: Path | None = None
    """Folder that keeps frozen features for the next time; by default RUN/features. The tokens that
    attentive and prototype need are large: 2 bytes for each number of each token of each clip."""
    overwrite: bool = False
    """Replace scores of something else, and files of another origin, in --out."""
    hop: float | None = None
    """Seconds between the starts of windows, with --true-events; the scores of events are printed
    and written to events.json in --out."""
    threshold: float | None = None
    """Lowest probability of a label that a classifier gives to a clip, or of an event, as in
    predict; by default that of each class which the run has learnt on validation clips, or else
    0.5 of an event or a multi-label model."""
    false_alarms: float = FALSE_ALARMS
    """Share of clips like the training ones that a classifier may call none of these, and with
    --true-events of windows, as in predict; 0 calls none so."""
    pictures: bool = True
    """Draw confusion, scores per class and reliability beside the scores."""
    json: bool = False
    """Print JSON for scripts instead of a table."""
    trust_code: bool = False
    """Allow the run to name code outside melpatch, such as your own encoder; that code is run."""

    def __post_init__(self) -> None:
        """Check what there is to score, and that --true-events and --hop come together."""
        self.event_rule()
        for name, other in (("true_events", "hop"), ("hop", "true_events")):
            if getattr(self, name) and not getattr(self, other):
                flag, needed = (text.replace("_", "-") for text in (name, other))
                raise ConfigError(f"--{flag} is given but --{needed} is not; give both")
        if not self.data and not self.true_events:
            raise ConfigError(
                "nothing to score is given; give labelled clips (--data), or true events of long "
                "recordings (--true-events with --hop), or both"
            )
        check_label_rule(self.threshold, self.false_alarms)


def run(config: Config) -> None:
    """Score; write scores.json, predictions.csv and pictures for each protocol; print the scores."""
    records: Mapping[str, Mapping[str, Any]] = _score_clips(config) if config.data else {}
    folders = [*dict.fromkeys(Path(record["folder"]).parent for record in records.values())]
    if not config.data:
        folders = [_events_folder(config)]
    events = _score_events(config, folders[0])
    if config.json:
        show_json({**records} if events is None else {**records, "events": events})
        return
    if records:
        _show(records)
    if events is not None:
        console().print(event_table(events))
    notice(f"written to {', '.join(map(str, folders))}")
    if config.keep is not None:
        notice(f"kept as a classifier: melpatch predict {config.keep} RECORDINGS --out FILE")


def _score_clips(config: Config) -> Scores:
    """Return the record of each protocol on labelled clips."""
    return evaluate(
        config.run,
        config.data,
        config.protocol,
        settings=parse_settings(chain.from_iterable(config.set)),
        labels=config.labels,
        split=config.split,
        split_column=config.split_column,
        label_column=config.label_column,
        group_column=config.group_column,
        labels_per_class=config.labels_per_class,
        seeds=config.seeds,
        random_weights=config.random_weights,
        floors=config.floors,
        against=config.against,
        keep=config.keep,
        threshold=config.threshold,
        false_alarms=config.false_alarms,
        precision=config.precision,
        batch_size=config.batch_size,
        workers=config.workers,
        out=config.out,
        features_dir=config.features_dir,
        overwrite=config.overwrite,
        pictures=config.pictures,
        trust_code=config.trust_code,
    )


def _show(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the scores of labelled clips, and what is to be said of them."""
    for table in score_tables(records, _title(records), console()):
        console().print(table)
    for table in chain(floor_tables(records), against_tables(records, console())):
        console().print(table)
    if any(record["settings_changed"] for record in records.values()):
        console().print("* with settings other than the protocol's")
    below = filter(None, map(describe_highest, records.values()))
    for sentence in dict.fromkeys(
        chain(
            below,
            _collapses(records),
            describe_verdicts(records),
            _calibrations(records),
            _decisions(records),
            _unranked_classes(records),
        )
    ):
        notice(sentence)


def _events_folder(config: Config) -> Path:
    """Return the folder for the scores of events where no clips are scored.

    Raises:
        ConfigError: a model of other code has no folder of its own, and none is given.
        CheckpointError: the folder lies outside the run, by a link.
    """
    if config.out is not None:
        return config.out
    require_run_folder(config.run, "scores", "give --out, or ")
    names = "+".join(as_file_name(Path(source).stem) for source in config.true_events)
    folder = config.run / "evaluation" / f"events-{names}"
    require_inside(config.run, folder, "remove the link, or give --out")
    return folder


def _score_events(config: Config, out: Path) -> dict[str, Any] | None:
    """Return the scores of events, if true ones are given; only rank 0 computes them."""
    if config.hop is None:
        return None
    return on_rank_zero(
        partial(
            evaluate_events,
            config.run,
            config.true_events,
            out,
            hop=config.hop,
            rule=config.event_rule(),
            threshold=config.threshold,
            false_alarms=config.false_alarms,
            precision=config.precision,
            labels=config.labels,
            batch_size=config.batch_size,
            workers=config.workers,
            trust_code=config.trust_code,
        )
    )


def _title(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what was scored: run, corpus, splits and number of clips."""
    first = next(iter(records.values()))
    weights = " at random weights" if first["initialisation"] == "random weights" else ""
    splits = ", ".join(entry["split"] for entry in first["splits"])
    return f"{first['run']}{weights} on {first['corpus']} ({splits}): {counted(first['n'], 'clip')}"


def _collapses(records: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, record in records.items():
        if record["warning"] is not None:
            yield f"{name}: {record['warning']}"
    if any(record["warning"] is not None for record in records.values()):
        yield REMEDY


def _calibrations(records: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a sentence on each classifier that has learnt a temperature."""
    for name, record in records.items():
        calibration = record["calibration"]
        if calibration is not None and calibration["temperature"] is not None:
            before = calibration["ece_uncalibrated"]
            yield (
                f"{name}: expected calibration error {calibration['ece']:.3f}; {before:.3f} without "
                f"the temperature of {calibration['temperature']:.3g}"
            )


def _decisions(records: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield sentences on the labels that each classifier gives, as predict would."""
    for name, record in records.items():
        if record["decisions"] is not None:
            for sentence in describe_decisions(record["run"], record["decisions"]):
                yield f"{name}: {sentence}"


def _unranked_classes(records: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for record in records.values():
        for kind in ("classes_without_positives", "classes_without_negatives"):
            if record[kind]:
                classes = ", ".join(record[kind])
                yield f"{kind.replace('_', ' ')}: {classes}; left out of mAP and mAUC"
