"""Score events in made-up long scenes, with and without hysteresis, over thresholds and other settings.

    python benchmarks/events.py make scenes
    melpatch finetune --init scratch --data scenes/windows.csv --out RUN --size nano --seconds 0.5 ...
    melpatch predict RUN scenes/val --out val.csv --hop 0.1
    melpatch predict RUN scenes/test --out test.csv --hop 0.1
    python benchmarks/events.py score scenes/truth.csv val.csv test.csv

Settings are chosen on the scenes val and scored on the scenes test, by collar-based F1. A class and
its mirror image in time are one kind, so that what is scored is where events are.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import soundfile
import tyro

from melpatch.data.answers import BACKGROUND
from melpatch.datasets.scenes import CARD, Stretch, long_scene
from melpatch.datasets.synthesis import SAMPLE_RATE
from melpatch.evaluation.event_scores import event_scores
from melpatch.inference.events import Event, EventRule, FrameScores, find_events
from melpatch.workflows.frames import frames_in

RECORDING = 60.0  # seconds
EVENTS = 15  # in a recording
WINDOW = 0.5  # seconds
STEP = 0.25  # seconds between windows to train on
HOP = 0.1  # seconds between the windows that are predicted
KINDS = {
    "clicks": ("clicks_faster", "clicks_slower"),
    "notes": ("notes_down", "notes_up"),
    "sweep": ("sweep_down", "sweep_up"),
    "swell": ("noise_fade", "noise_swell"),
    "tone_and_noise": ("noise_tone", "tone_noise"),
}
KIND_OF = {label: kind for kind, labels in KINDS.items() for label in labels}
THRESHOLDS = np.round(np.arange(0.2, 0.81, 0.05), 2).tolist()
RELEASES = (1.0, 0.9, 0.8, 0.65, 0.5)
GAPS = (0.0, 0.2)
SHORTEST = (0.0, 0.3, 0.5)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to do."""

    do: tyro.conf.Positional[str]
    """make or score."""
    paths: tyro.conf.Positional[tuple[Path, ...]]
    """The folder to make; or truth, predictions to choose settings on, and predictions to score."""
    minutes: tuple[int, int, int] = (60, 20, 40)
    """Recordings of a minute to train on, to choose on, and to score."""
    seed: int = 0
    """Seed of the scenes."""


def main(config: Config) -> None:
    """Make scenes, or print a JSON line for each setting."""
    if config.do == "make":
        make(config.paths[0], config)
    else:
        score(*config.paths)


def make(folder: Path, config: Config) -> None:
    """Write recordings, true events (truth.csv), and labelled windows to train on (windows.csv)."""
    folder.mkdir(parents=True)
    windows: list[list[object]] = [["path", "start", "end", "label", "split"]]
    truth: list[list[object]] = [["path", "start", "end", "label"]]
    numbers = iter(range(sum(config.minutes)))
    for split, count in zip(("train", "val", "test"), config.minutes, strict=True):
        (folder / split).mkdir()
        for number in [next(numbers) for _ in range(count)]:
            random = np.random.default_rng((config.seed, number))
            labels = random.choice(CARD.labels, EVENTS).tolist()
            wave, stretches = long_scene(config.seed, number, RECORDING, labels)
            path = (folder / split / f"{number:03}.flac").absolute()
            soundfile.write(path, wave, SAMPLE_RATE)
            truth += [[path, s.start, s.end, KIND_OF[s.label]] for s in stretches]
            if split != "test":
                windows += [[path, *cells, split] for cells in labelled_windows(stretches)]
    for name, rows in (("windows.csv", windows), ("truth.csv", truth)):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


def labelled_windows(stretches: Sequence[Stretch]) -> Iterator[list[object]]:
    """Yield start, end and label of windows: an event's if it fills half of it, or background.

    Of background there are as many as an event has in the mean.
    """
    background = 0
    for number in range(int((RECORDING - WINDOW) / STEP) + 1):
        start = number * STEP
        shared = [min(s.end, start + WINDOW) - max(s.start, start) for s in stretches]
        most = int(np.argmax(shared))
        if shared[most] >= WINDOW / 2:
            yield [start, start + WINDOW, KIND_OF[stretches[most].label]]
        elif shared[most] <= 0:
            background += 1
            if background % 4 == 0:
                yield [start, start + WINDOW, BACKGROUND]


Truth = dict[str, list[Event]]
Frames = dict[str, FrameScores]


def score(truth: Path, chosen_on: Path, scored_on: Path) -> None:
    """Print F1 by threshold and release, by all settings at a threshold of 0.5, and of the best settings."""
    labels = (BACKGROUND, *KINDS)
    true = read_truth(truth)
    frames = {
        name: {os.path.realpath(p): f for p, f in frames_in(name, labels, HOP)}
        for name in (chosen_on, scored_on)
    }
    rules = [
        (threshold, EventRule(release=release, gap=gap, shortest=shortest))
        for threshold, release, gap, shortest in product(THRESHOLDS, RELEASES, GAPS, SHORTEST)
    ]
    scored = [(f1(frames[chosen_on], true, *rule), rule) for rule in rules]
    for threshold, release in product(THRESHOLDS, RELEASES):
        tell("plain", threshold, EventRule(release=release), frames[scored_on], true)
    for release, gap, shortest in product(RELEASES, GAPS, SHORTEST):
        rule = EventRule(release=release, gap=gap, shortest=shortest)
        tell("default threshold", 0.5, rule, frames[scored_on], true)
    for release in RELEASES:
        own = [(value, rule) for value, rule in scored if rule[1].release == release]
        plain = [(value, rule) for value, rule in own if rule[1].gap == rule[1].shortest == 0]
        for name, choices in (("best threshold", plain), ("best of all", own)):
            _, (threshold, rule) = max(choices, key=lambda choice: choice[0])
            tell(name, threshold, rule, frames[scored_on], true)


def tell(name: str, threshold: float, rule: EventRule, frames: Frames, true: Truth) -> None:
    """Print the scores of a setting."""
    scores = scores_of(frames, true, threshold, rule)
    facts = {"threshold": threshold, "release": rule.release, "gap": rule.gap}
    facts |= {"shortest": rule.shortest, **scores["micro"], "interval": scores["micro_f1_interval"]}
    print(json.dumps({"figure": name, **facts}), flush=True)


def f1(frames: Frames, true: Truth, threshold: float, rule: EventRule) -> float:
    """Return F1 of all events; 0 if nothing is right."""
    return float(scores_of(frames, true, threshold, rule)["micro"]["F1"] or 0.0)


def scores_of(frames: Frames, true: Truth, threshold: float, rule: EventRule) -> dict:
    """Return the scores of the events that a setting finds."""
    labels = (BACKGROUND, *KINDS)
    thresholds = np.full(len(labels), threshold)
    guessed = {path: find_events(own, labels, thresholds, rule) for path, own in frames.items()}
    return event_scores({path: true.get(path, []) for path in frames}, guessed, [*KINDS])


def read_truth(path: Path) -> Truth:
    """Return the true events of each recording."""
    events: Truth = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            event = Event(float(row["start"]), float(row["end"]), row["label"], 1.0)
            events.setdefault(os.path.realpath(row["path"]), []).append(event)
    return events


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
