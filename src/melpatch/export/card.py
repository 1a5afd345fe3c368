"""A model card: what a run was trained on and how, its scores, and a field for the licence."""

import re
from collections.abc import Iterator
from typing import Any

from melpatch.config import owner, to_dict
from melpatch.counted import counted
from melpatch.data.sources import source_name
from melpatch.evaluation.majority import metric_in_words
from melpatch.evaluation.report import record_in
from melpatch.export.source import Source
from melpatch.training.foreign import read_source
from melpatch.workflows.kept_weights import read_validation

CARD = "README.md"
"""Name of the file."""
UNKNOWN = "unknown"
"""The licence of weights whose owner has not named one."""
_MOST_LABELS = 50
_TEMPLATE = """---
license: {licence}
library_name: {library}
pipeline_tag: {task}
tags:
- audio
- melpatch
---
# {title}

{summary}

```python
{usage}
```

| | |
|---|---|
{facts}

## Scores

{scores}

## Limits

{notes}

## Licence

{terms}
"""
_FILL_IN = "  # fill in: the licence of these weights"
_NO_TERMS = (
    "Fill in, here and in the first lines: the licence of these weights, which depends on the audio "
    "that\nthey were trained on and on the weights that they started from."
)


def model_card(
    source: Source, usage: str, notes: list[str], *, library: str = "transformers"
) -> str:
    """Return a model card in Markdown.

    Args:
        source: the run.
        usage: how it is used, in Python.
        notes: in which points the export does otherwise than the run.
        library: what opens the files.
    """
    objective = type(source.model.objective).__name__
    summary = f"A spectrogram transformer that melpatch has pretrained with {objective}."
    if source.classifier is not None:
        summary = f"A classifier of {counted(len(source.classifier.labels), 'class')}, trained with melpatch."
    licence = source.licence or UNKNOWN + _FILL_IN
    terms = _NO_TERMS if source.licence is None else f"These weights are under {source.licence}."
    return _TEMPLATE.format(
        licence=licence,
        library=library,
        terms=terms,
        task="feature-extraction" if source.classifier is None else "audio-classification",
        title=_plain(source.folder.resolve().name),
        summary=summary,
        usage=usage,
        facts="\n".join(f"| {name} | {_plain(value)} |" for name, value in _facts(source)),
        scores="\n".join(_scores(source)) or "None were measured.",
        notes="\n".join(f"- {_plain(note)}" for note in notes) or "None are known.",
    )


def _facts(source: Source) -> Iterator[tuple[str, str]]:
    config = source.model.config
    front_end = config.front_end
    yield "input", f"mono at {front_end.sample_rate} Hz, segments of {config.loader.seconds:g} s"
    yield (
        "front end",
        f"log-mel, {front_end.n_mels} bins from {front_end.low_hz:g} to {front_end.top_hz:g} Hz, "
        f"{front_end.window_ms:g} ms every {front_end.hop_ms:g} ms, mean {front_end.mean:g}, "
        f"deviation {front_end.std:g}",
    )
    encoder = config.encoder
    yield f"encoder {owner(encoder).__name__}", _in_words(to_dict(encoder))
    yield f"objective {owner(config.objective).__name__}", _in_words(to_dict(config.objective))
    imported = read_source(source.folder)
    if imported is not None:
        yield "imported from", f"{imported.source}: {imported.family}"
        yield "licence of the published weights", imported.licence
    yield "data", ", ".join(map(source_name, config.data)) or "unknown"
    length = f"{config.train.epochs:g} epochs"
    if config.train.steps is not None:
        length = counted(config.train.steps, "step")
    yield (
        "training",
        f"{length}, batches of {config.loader.batch_size}, {config.train.optimizer}, learning rate "
        f"{config.train.lr:g}, seed {config.seed}",
    )
    labels = config.labels
    if labels:
        shown = ", ".join(labels[:_MOST_LABELS])
        rest = len(labels) - _MOST_LABELS
        yield "classes", shown if rest <= 0 else f"{shown} and {rest} more"


def _scores(source: Source) -> Iterator[str]:
    """Yield the lines of a table of the scores in the run folder."""
    rows = [*_validation(source), *_evaluations(source)]
    if rows:
        yield "| protocol | on | metric | value | 95 % | clips |"
        yield "|---|---|---|---|---|---|"
    for row in rows:
        yield f"| {' | '.join(map(_plain, row))} |"


def _validation(source: Source) -> Iterator[tuple[str, ...]]:
    record = read_validation(source.folder)
    if record is None:
        return
    metric = str(record.get("selected_by"))
    value = record["metrics"].get(metric)
    if value is not None:
        clips = str(record.get("clips"))
        yield (
            "choice of the weights",
            "validation",
            metric_in_words(metric),
            f"{value:.3f}",
            "",
            clips,
        )


def _evaluations(source: Source) -> Iterator[tuple[str, ...]]:
    for path in sorted((source.folder / "evaluation").glob("*/*/scores.json")):
        record = record_in(path.parent)
        if record is None or record.get("value") is None:
            continue
        splits = ", ".join(str(entry["split"]) for entry in record["splits"])
        interval = record.get("interval_95")
        yield (
            f"{record['name']} (version {record['version']})",
            f"{record['corpus']} ({splits})",
            metric_in_words(record["metric"]),
            f"{record['value']:.3f}",
            "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
            str(record["n"]),
        )


def _in_words(settings: dict[str, Any]) -> str:
    """Return plain settings in one line; nested ones are left out."""
    plain = {name: value for name, value in settings.items() if not isinstance(value, dict)}
    return ", ".join(f"{name} {value}" for name, value in plain.items())


def _plain(text: object) -> str:
    """Return a text that stays within a cell of a table."""
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").replace("<", "&lt;")
