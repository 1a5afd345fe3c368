"""The part of a report on an evaluation: scores with intervals and floors, classes, the worst clips."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from melpatch.audio.logmel import LogMel
from melpatch.counted import counted
from melpatch.errors import AudioError, CheckpointError
from melpatch.evaluation.floors import describe_highest
from melpatch.evaluation.majority import metric_in_words
from melpatch.evaluation.own_decisions import describe_decisions
from melpatch.evaluation.pictures import CONFUSION, PER_CLASS, RELIABILITY, pictures_of, title_of
from melpatch.evaluation.worst import Answer, worst_answers
from melpatch.inference.novelty import NONE_OF_THESE
from melpatch.markup import Html, element, paragraph, table
from melpatch.reports.media import picture
from melpatch.reports.page import Section, missing, note
from melpatch.reports.stretch import clip_of, shown

_CAPTIONS = {
    CONFUSION: "Confusion: a row per true class, a column per answer; dark is many.",
    PER_CLASS: "The score of each class, the best on top, with its number of clips.",
    RELIABILITY: "Reliability: how often answers are right, over the probability they were given.",
}


def evaluation_sections(
    folder: Path, record: Mapping[str, Any], front_end: LogMel.Config, clips: int
) -> list[Section]:
    """Return the sections on one evaluation.

    Args:
        folder: the folder of the evaluation.
        record: its record.
        front_end: the front end of the run that was scored.
        clips: how many of the worst clips to show.
    """
    name = f"{record['protocol']} on {record['corpus']}"
    return [
        Section(f"Scores: {name}", [*_scores(record)]),
        Section(f"Classes: {name}", [*_classes(record)]),
        Section(f"Worst clips: {name}", [*_worst(folder, record, front_end, clips)]),
    ]


def summary_table(records: Mapping[Path, Mapping[str, Any]]) -> Html:
    """Return a table with a row per evaluation."""
    rows = [
        [
            f"{record['protocol']} (version {record['version']})",
            f"{record['corpus']} ({_splits(record)})",
            metric_in_words(record["metric"]),
            record["value"],
            _between(record["interval_95"]),
            record["n"],
        ]
        for record in records.values()
    ]
    return table(["protocol", "on", "metric", "value", "95 %", "clips"], rows)


def _scores(record: Mapping[str, Any]) -> Iterator[Html]:
    yield paragraph(title_of(record), ".")
    for warning in filter(None, (record["warning"], describe_highest(record))):
        yield note(warning)
    yield table([], _conditions(record))
    intervals = record["metrics_95"]
    rows = [
        [metric_in_words(name), value, _between(intervals.get(name))]
        for name, value in record["metrics"].items()
    ]
    how = f"intervals by {record['interval_by']}" if record["interval_by"] else "no interval"
    yield table(
        ["metric", "value", "95 % interval"],
        rows,
        f"{counted(record['n'], 'scored clip')}; {how}.",
    )
    decisions = record.get("decisions")
    if decisions is not None:
        for sentence in describe_decisions(record["run"], decisions):
            yield paragraph(sentence[0].upper(), sentence[1:], ".")
    if record["floors"]:
        yield table(
            ["floor", metric_in_words(record["metric"]), "gain over it", "95 % of the gain"],
            [
                [floor["name"], floor["value"], _signed(floor["gain"]), _between(floor["gain_95"])]
                for floor in record["floors"]
            ],
            "What no training, or no network, scores on the same clips by the same probe.",
        )
    else:
        yield missing("No floors were measured: score again without --no-floors.")


def _conditions(record: Mapping[str, Any]) -> Iterator[list[object]]:
    trained = record["scored_clips_trained_on"]
    yield ["run", record["run"]]
    yield ["weights", record["initialisation"]]
    yield ["corpus", record["corpus"]]
    yield ["scored splits", _splits(record)]
    yield ["protocol", f"{record['protocol']}, version {record['version']}"]
    yield ["changed settings", ", ".join(record["settings_changed"]) or "none"]
    yield ["splits", record["split_rule"]]
    yield ["selection", record["selection_rule"]]
    yield ["seeds", ", ".join(map(str, record["seeds"]))]
    yield ["scored clips that were trained on", "unknown" if trained is None else trained]
    yield ["files that cannot be read", len(record["rejected"])]


def _classes(record: Mapping[str, Any]) -> Iterator[Html]:
    for name, draw in pictures_of(record).items():
        yield picture(draw, f"{_CAPTIONS[name]} {title_of(record)}", _CAPTIONS[name])
    if record.get("confusion_matrix") is None:
        yield missing("No confusion matrix: clips have several labels, or classes are too many.")
    heads = [*record["per_class"][0]]
    yield element(
        "details",
        element("summary", f"Numbers of {counted(len(record['per_class']), 'class')}"),
        table(heads, [[_count(row[head]) for head in heads] for row in record["per_class"]]),
        open=True,
    )
    decisions = record.get("decisions")
    if decisions is not None:
        summary = "Labels as predict gives them, and clips that it calls none of these"
        yield element("details", element("summary", summary), _decisions(decisions), open=True)


def _decisions(decisions: Mapping[str, Any]) -> Html:
    """Return a table of the labels that are given, by class."""
    rows = []
    for row in decisions["per_class"]:
        alarms = row["none_of_these"] or {"share": None, "interval_95": None}
        values = [value for name, value in row.items() if name != "none_of_these"]
        rows.append([*values, alarms["share"], _between(alarms["interval_95"])])
    heads = [*decisions["per_class"][0]]
    return table([*heads[:-1], f"called {NONE_OF_THESE}", "95 % of that"], rows)


def _count(value: Any) -> Any:
    """Return a count that is a mean over seeds as a whole number where it is one, and others as they are."""
    return int(value) if isinstance(value, float) and value > 1 and value.is_integer() else value


def _worst(
    folder: Path, record: Mapping[str, Any], front_end: LogMel.Config, clips: int
) -> Iterator[Html]:
    if not clips:
        return
    try:
        answers = worst_answers(folder, record, clips)
    except CheckpointError as error:
        yield missing(f"The worst clips are not known: {error}")
        return
    if not answers:
        yield paragraph("Every scored clip was answered right.")
        return
    yield paragraph(
        "The wrong answers that were given with most certainty: those of highest cross-entropy, "
        "each clip once. What one hears here is often a wrong label."
    )
    for answer in answers:
        yield from _clip(answer, front_end)


def _clip(answer: Answer, front_end: LogMel.Config) -> Iterator[Html]:
    yield element("h3", answer.path.rpartition("/")[2], " at ", f"{answer.start:g}", " s")
    true = ", ".join(map(_with_probability(answer), answer.labels)) or "no label"
    given = ", ".join(map(_with_probability(answer), answer.predicted)) or "no label"
    yield paragraph("True: ", element("strong", true), "; answered: ", element("strong", given))
    title = f"{answer.path.rpartition('/')[2]}: {true}, answered {given}"
    try:
        yield from shown(clip_of(answer), front_end, title)
    except AudioError as error:
        yield missing(f"No picture and no sound: {error}")


def _with_probability(answer: Answer) -> Any:
    """Return a function from a label to its name with the probability that it was given."""

    def named(label: str) -> str:
        probability = answer.probabilities.get(label)
        return label if probability is None else f"{label} ({probability:.3f})"

    return named


def _splits(record: Mapping[str, Any]) -> str:
    return ", ".join(entry["split"] for entry in record["splits"])


def _between(interval: Any) -> str | None:
    return None if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.3f}"
