"""Score the events that a classifier finds in long recordings, with the settings that made them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from melpatch.atomic import written_aside
from melpatch.config import check
from melpatch.data.manifest import load_corpus
from melpatch.errors import ConfigError
from melpatch.inference.events import EventRule, FrameScores, find_events, frame_scores
from melpatch.inference.label_rule import LabelRule, label_rule
from melpatch.inference.model import load
from melpatch.inference.network import Precision
from melpatch.inference.results import Prediction
from melpatch.objectives.classify import Classify
from melpatch.workflows.events import score_events

EVENTS = "events.json"
"""The scores of events, beside the folders of protocols."""


def evaluate_events(
    run: Path,
    truth: Sequence[str],
    out: Path,
    *,
    hop: float,
    rule: EventRule,
    threshold: float | None,
    false_alarms: float,
    precision: Precision,
    labels: Path | None,
    batch_size: int,
    workers: int,
    trust_code: bool,
) -> dict[str, Any]:
    """Return the scores of the events found in the recordings that have true ones, and write them.

    Windows that are silent or like none of the classes have no score.

    Args:
        run: a classifier.
        truth: tables of labelled stretches.
        out: folder to write ``events.json`` into.
        hop: seconds between the starts of windows.
        rule: what makes an event.
        threshold: what the score of an event reaches; None: for each class that which the run has
            learnt on validation clips, or 0.5.
        false_alarms: share of windows like the training clips that may be called none of the
            classes.
        precision: arithmetic of the network, see :func:`melpatch.load`.
        labels: file of the classes of a model of other code that names none.
        batch_size: windows at a time.
        workers: decoding processes.
        trust_code: whether the run may name code outside melpatch.

    Raises:
        ConfigError: the run has no labels, or windows would leave gaps.
        DataError: a table cannot be read.
    """
    model = load(run, precision=precision, labels=labels, trust_code=trust_code)
    if not isinstance(model.objective, Classify):
        raise ConfigError(f"{run}: has no labels, so that it finds no events; fine-tune it first")
    check(0 < hop <= model.seconds, "hop", hop, f"up to {model.seconds:g} s, the model's input")
    labelling = label_rule(model, threshold, false_alarms)
    thresholds = labelling.event_thresholds(len(model.labels))
    paths = dict.fromkeys(clip.path for clip in load_corpus(truth).clips)
    recordings = model.predict_many(paths, hop=hop, batch_size=batch_size, workers=workers)
    events = {
        str(path): find_events(_frames(answers, hop, labelling), model.labels, thresholds, rule)
        for path, answers in recordings
    }
    scores = score_events(events, truth, model.labels)
    by_label = dict(zip(model.labels, thresholds.tolist(), strict=True))
    settings = {"false_alarms": false_alarms, "precision": model.precision, **asdict(rule)}
    asked = {"run": str(run), "true_events": [*truth], "hop": hop, "thresholds": by_label}
    record = asked | settings | scores
    _write(record, out)
    return record


def _write(record: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with written_aside(out / EVENTS) as aside:
        aside.write_text(json.dumps(record, indent=1), encoding="utf-8")


def _frames(
    answers: Prediction | Sequence[Prediction], hop: float, labelling: LabelRule
) -> FrameScores:
    """Return the scores along a recording; windows that are silent or none of the classes have none."""
    windows = [answers] if isinstance(answers, Prediction) else answers
    times = np.array([[window.start, window.end] for window in windows])
    values = np.array([[*window.probabilities.values()] for window in windows], dtype=float)
    unlike = labelling.unlike(np.array([window.novelty or 0.0 for window in windows]), len(windows))
    values[unlike | [window.silent for window in windows]] = 0.0
    return frame_scores(times[:, 0], times[:, 1], values, hop)
