"""How many answers a made-up listener gives until the calls of a rare class are found.

    OMP_NUM_THREADS=1 python benchmarks/simulated_listener.py esc50 RUN DATA/esc50/manifest.csv
    OMP_NUM_THREADS=1 python benchmarks/simulated_listener.py scenes RUN [--no-mirrors]
    OMP_NUM_THREADS=1 python benchmarks/simulated_listener.py readable RUN
    python benchmarks/simulated_listener.py draw LINES... --out found.png

The clips that come next are chosen by the code of the page, twelve at a time as there; the listener
starts from one call that is known and gives a share of wrong answers. A call is found when a clip
with it is answered by yes. Prints a JSON line per trial: the answers given when each call was found.

Of ESC-50, a class is made rare by leaving out all but a few of its clips. The made-up scenes are
recordings of a minute with an event every four seconds, most of them of common classes. Each line
says how many of the first clips that are offered have the rare class, its mirror image, another
class, or none. "Readable" is what a head can tell at all: taught with all labels of half of the recordings, its area
under the curve on the other half, for the rare class against everything and against its mirror image.
"""

import csv
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import tyro
from sklearn.metrics import roc_auc_score

from melpatch.datasets.scenes import CARD, long_scene
from melpatch.datasets.synthesis import SAMPLE_RATE
from melpatch.inference.jobs import RecordingsConfig
from melpatch.page.session import Session
from melpatch.page.split import groups_of, kept_for_tests
from melpatch.plots.base import save, sheet
from melpatch.search.build import add_recordings, model_of
from melpatch.search.index import Index
from melpatch.search.label_file import open_labels
from melpatch.search.segment import PLACE, write_segment
from melpatch.search.teach import teach

AT_ONCE = 12  # clips that the page shows
EARLY = 48  # clips, of which it is said what they have
WHO = "listener"
RARE = "rare"  # the label that is asked for
LEARNING = ("likely", "unsure", "far")
CONTENTS = ("rare", "mirror", "other", "none")
MIRRORS = {
    "sweep_up": "sweep_down",
    "notes_down": "notes_up",
    "clicks_faster": "clicks_slower",
    "noise_swell": "noise_fade",
    "tone_noise": "noise_tone",
}
RARE_SCENES = tuple(MIRRORS)
# Wong 2011 (Nature Methods 8, 441), and line styles for print in black and white.
LOOKS = {
    "random": ("#000000", ":", "random"),
    "alike": ("#e69f00", "--", "scores alone: most like the known call"),
    "far": ("#56b4e9", "-.", "learning, farthest from the answered"),
    "unsure": ("#009e73", (0, (5, 1, 1, 1)), "learning, least sure"),
    "likely": ("#0072b2", "-", "learning, most likely"),
}


class Call(NamedTuple):
    """A stretch with the rare class, which is to be found."""

    path: str
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to simulate."""

    kind: tyro.conf.Positional[str]
    """esc50, scenes, readable or draw."""
    sources: tyro.conf.Positional[tuple[Path, ...]]
    """A run and, of esc50, its manifest; files of lines to draw."""
    calls: int = 12
    """Calls of the rare class; of those a fifth is in recordings kept to test, and never found."""
    classes: int = 10
    """Classes of ESC-50 that are made rare in turn, the first by a drawing."""
    seeds: int = 5
    """Trials of a class: other clips, another known call and other errors."""
    errors: float = 0.05
    """Share of answers that are wrong."""
    most: int = 240
    """Answers after which a learning order is given up."""
    minutes: int = 60
    """Length of the made-up scenes, with as many recordings."""
    mirrors: bool = True
    """Of made-up scenes, keep the windows with the mirror image of the rare class."""
    out: Path | None = None
    """Picture to draw."""


def main(config: Config) -> None:
    """Simulate, or draw what was simulated."""
    if config.kind == "draw":
        assert config.out is not None
        draw(config.sources, config.out)
        return
    with tempfile.TemporaryDirectory() as scratch:
        simulate = {"esc50": esc50, "scenes": scenes, "readable": readable}[config.kind]
        for trial in simulate(config, Path(scratch)):
            print(
                json.dumps({"sound": config.kind, "run": config.sources[0].name, **trial}),
                flush=True,
            )


def esc50(config: Config, scratch: Path) -> Iterator[dict[str, object]]:
    """Yield the trials on ESC-50, a class made rare at a time."""
    run, manifest = config.sources
    index = index_of(run, [manifest], scratch / "index", window=5.0, hop=5.0)
    with manifest.open(encoding="utf-8") as file:
        labels = {
            str((manifest.parent / row["path"]).absolute()): row["label"]
            for row in csv.DictReader(file)
        }
    names = np.array([labels[index.recordings[n].path] for n in index.rows["recording"]])
    drawing = np.random.default_rng(0)
    for label in drawing.permutation(sorted(set(names)))[: config.classes].tolist():
        own = np.flatnonzero(names == label)
        for seed in range(config.seeds):
            kept = np.random.default_rng((1, seed)).permutation(own)[: config.calls]
            rows = np.sort(np.concatenate([np.flatnonzero(names != label), kept]))
            part = part_of(index, rows, scratch / f"{label}-{seed}")
            places = [index.rows[row] for row in kept]
            calls = [
                Call(index.recordings[p["recording"]].path, p["start"], p["end"]) for p in places
            ]
            yield from trials(part, calls, config, {"label": label, "seed": seed})


def scenes(config: Config, scratch: Path) -> Iterator[dict[str, object]]:
    """Yield the trials on made-up scenes, in which five classes are rare."""
    events = write_scenes(scratch / "scenes", config.minutes, config.calls)
    index = index_of(config.sources[0], [scratch / "scenes"], scratch / "index", 2.0, 1.0)
    for label in RARE_SCENES:
        calls = [call for name, call in events if name == label]
        contents = contents_of(index, events, label)
        folder = index.folder
        if not config.mirrors:
            rows = np.flatnonzero(contents != "mirror")
            folder = part_of(index, rows, scratch / label)
            contents = contents[rows]
        facts = {"label": label, "mirrors": config.mirrors}
        for seed in range(config.seeds):
            yield from trials(folder, calls, config, facts | {"seed": seed}, contents)


def readable(config: Config, scratch: Path) -> Iterator[dict[str, object]]:
    """Yield what heads tell of the rare classes of made-up scenes."""
    events = write_scenes(scratch / "scenes", config.minutes, config.calls)
    index = index_of(config.sources[0], [scratch / "scenes"], scratch / "index", 2.0, 1.0)
    half = index.rows["recording"] % 2 == 0
    for label in RARE_SCENES:
        contents = contents_of(index, events, label)
        rare = contents == "rare"
        areas = {}
        for against, own in (("all", rare | True), ("mirror", rare | (contents == "mirror"))):
            taught = np.flatnonzero(own & half)
            scored = np.flatnonzero(own & ~half)
            head = teach(index, taught, rare[taught])
            assert head is not None
            areas[against] = roc_auc_score(rare[scored], head.logits_of(index, scored))
        shares = {kind: int((contents == kind).sum()) for kind in CONTENTS}
        yield {"label": label, "rows": shares, "area_against": areas}


def contents_of(index: Index, events: Sequence[tuple[str, Call]], label: str) -> np.ndarray:
    """Return what each row has: the rare class, its mirror image, another class, or none."""
    contents = np.full(len(index), "none", dtype="U6")
    for kind in ("other", "mirror", "rare"):
        for name, call in events:
            own = {label: "rare", MIRRORS[label]: "mirror"}.get(name, "other")
            if own == kind:
                contents[index.rows_within(*call)] = kind
    return contents


def write_scenes(folder: Path, recordings: int, calls: int) -> list[tuple[str, Call]]:
    """Write recordings of a minute, and return their events with the label of each."""
    folder.mkdir()
    random = np.random.default_rng(0)
    common = [label for label in CARD.labels if label not in RARE_SCENES]
    per_recording = 15
    labels = random.choice(common, recordings * per_recording)
    # Rare events take the places of common ones, anywhere.
    places = random.permutation(len(labels))[: calls * len(RARE_SCENES)]
    labels[places] = np.repeat(RARE_SCENES, calls)
    events = []
    for number, own in enumerate(labels.reshape(recordings, per_recording)):
        path = folder / f"{number:03}.flac"
        wave, stretches = long_scene(0, number, 60.0, own.tolist())
        soundfile.write(path, wave, SAMPLE_RATE)
        events += [(s.label, Call(str(path.absolute()), s.start, s.end)) for s in stretches]
    return events


def index_of(run: Path, sources: Sequence[Path], out: Path, window: float, hop: float) -> Index:
    """Index recordings by the run."""
    recordings = tuple(map(str, sources))
    settings = RecordingsConfig(run=run, recordings=recordings, out=out)
    add_recordings(settings, window=window, hop=hop, pooling="rows+mean+std+delta")
    return Index(out)


def part_of(index: Index, rows: np.ndarray, folder: Path) -> Path:
    """Write an index of some rows of another, and return its folder."""
    names = PLACE.names or ()
    kinds = np.dtype([*((n, PLACE[n]) for n in names), ("values", "<f4", (index.dim,))])
    chunk = np.zeros(len(rows), kinds)
    for name in names:
        chunk[name] = index.rows[name][rows]
    chunk["values"] = index.vectors(rows)
    folder.mkdir()
    write_segment(
        folder / "000001",
        lambda: iter([chunk]),
        identity=index.identity,
        recordings=index.recordings,
        scale=index.scale,
    )
    return folder


def trials(
    folder: Path,
    calls: Sequence[Call],
    config: Config,
    facts: dict[str, object],
    contents: np.ndarray | None = None,
) -> Iterator[dict[str, object]]:
    """Yield what each order finds of the calls, all from the same known one."""
    for order in ("random", "alike", *LEARNING):
        random = np.random.default_rng((2, int(str(facts["seed"]))))
        labels = folder / f"{facts['label']}-{facts['seed']}-{order}.csv"
        with open_labels(labels) as file:
            index = Index(folder)
            listener = Listener(Session(index, file, model_of(index)), calls, config, random)
            answers_until = listener.listen(order)
        facts_of_order: dict[str, object] = {
            "order": order,
            "calls": len(listener.reachable),
            "rows": len(index),
        }
        if contents is not None:
            offered = contents[listener.offered[:EARLY]]
            counts = {kind: int((offered == kind).sum()) for kind in CONTENTS}
            facts_of_order["offered"] = counts
        yield {**facts, **facts_of_order, "found_after": answers_until}


class Listener:
    """Somebody who knows one call and answers for others.

    Args:
        session: the page.
        calls: what is to be found.
        config: the errors, and when to stop.
        random: draws the known call and the errors.
    """

    def __init__(
        self, session: Session, calls: Sequence[Call], config: Config, random: np.random.Generator
    ) -> None:
        self._session = session
        self._config = config
        self._random = random
        index = session.index
        test = kept_for_tests(groups_of(index))
        rows = [index.rows_within(*call) for call in calls]
        rows = [own for own in rows if len(own) and not test[own].any()]
        self.reachable = [set(own.tolist()) for own in rows]
        """The rows of each call that can be found; the known one comes first."""
        random.shuffle(self.reachable)
        best = [index.nearest_row(*call) for call in calls]
        self._known = next(row for row in best if row in self.reachable[0])
        self._searched = np.flatnonzero(~test)
        self.offered: list[int] = []
        """The rows that were answered."""

    def listen(self, order: str) -> list[int]:
        """Return the number of answers at which each further call was found."""
        self._session.answer(self._known, RARE, "yes", WHO)
        missing = self.reachable[1:]
        answers_until = []
        most = len(self._searched) if order == "random" else self._config.most
        for count, row in enumerate(self._rows(order), start=1):
            self.offered.append(row)
            has = any(row in own for own in self.reachable)
            says = has != (self._random.random() < self._config.errors)
            if order in LEARNING:
                self._session.answer(row, RARE, "yes" if says else "no", WHO)
            if has and says:
                new = [own for own in missing if row in own]
                missing = [own for own in missing if row not in own]
                answers_until += [count] * len(new)
            if count == most or not missing:
                break
        return answers_until

    def _rows(self, order: str) -> Iterator[int]:
        """Yield the rows that are answered, in their order."""
        if order == "random":
            yield from self._random.permutation(self._searched).tolist()
        elif order == "alike":
            cards = self._session.like_row(self._known, self._config.most)
            yield from (card.row for card in cards)
        else:
            while True:
                _, cards = self._session.next(RARE, order, AT_ONCE, WHO)
                if not cards:
                    return
                yield from (card.row for card in cards)


def draw(sources: Sequence[Path], out: Path) -> None:
    """Draw the share of calls found against answers, and print a table of medians."""
    lines = [json.loads(line) for source in sources for line in source.read_text().splitlines()]
    panels = list(dict.fromkeys((line["sound"], line["run"]) for line in lines))
    figure = sheet(4.6 * len(panels), 4.4)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(all_axes, panels, strict=True):
        own = [line for line in lines if (line["sound"], line["run"]) == panel]
        learnt = [line["found_after"] for line in own if line["order"] != "random"]
        longest = max(chain.from_iterable(learnt))
        answers = np.arange(longest + 1)
        for order, (colour, style, name) in LOOKS.items():
            trials_of = [trial for trial in own if trial["order"] == order]
            shares = np.array([share(trial, answers) for trial in trials_of])
            low, high = interval(trials_of, shares, lambda drawn: drawn.mean(axis=0))
            axes.plot(answers, shares.mean(axis=0), color=colour, linestyle=style, label=name)
            axes.fill_between(answers, low, high, color=colour, alpha=0.15, linewidth=0)
            print(json.dumps(summary(panel, order, trials_of)))
        axes.set(title=", ".join(panel), xlabel="answers given", xlim=(0, longest), ylim=(0, 1))
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel("share of the rare calls found")
    all_axes[0].legend(loc="upper left", fontsize=8)
    save(figure, out)


def share(trial: dict[str, list[int] | int], answers: np.ndarray) -> np.ndarray:
    """Return the share of the further calls that were found after each number of answers."""
    calls = np.searchsorted(np.array(trial["found_after"]), answers, side="right")
    shares: np.ndarray = calls / (np.array(trial["calls"]) - 1)
    return shares


def summary(panel: tuple[str, str], order: str, own: Sequence[dict]) -> dict[str, object]:
    """Return the median answers until half of the calls are found, with a 95 % interval."""
    figures: dict[str, object] = {"sound": panel[0], "run": panel[1], "order": order}
    figures |= {"trials": len(own)}
    for part in (0.25, 0.5, 0.75):
        needed = np.array([needed_for(trial, part) for trial in own])
        low, high = interval(own, needed, lambda drawn: np.median(drawn, axis=0))
        figures[f"answers_until_{part:.0%}"] = [float(np.median(needed)), float(low), float(high)]
        figures[f"not_reached_{part:.0%}"] = int(np.isinf(needed).sum())
    return figures


def needed_for(trial: dict, part: float) -> float:
    """Return the answers until a part of the further calls is found; infinite if it is not."""
    answers_until = trial["found_after"]
    number = int(np.ceil(part * (trial["calls"] - 1)))
    return float(answers_until[number - 1]) if len(answers_until) >= number else np.inf


def interval(
    own: Sequence[dict], values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % bootstrap interval of a statistic; trials of a class are drawn together."""
    labels = np.array([trial["label"] for trial in own])
    groups = [values[labels == label] for label in dict.fromkeys(labels.tolist())]
    random = np.random.default_rng(0)
    drawn = [
        statistic(np.concatenate([groups[n] for n in random.integers(0, len(groups), len(groups))]))
        for _ in range(1000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0, method="nearest")
    return low, high


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
