"""Score a run on labelled sound by named protocols: a classifier by its predictions, an encoder by probes or by
fine-tuning."""

import dataclasses
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table as Grid

from melpatch import registry
from melpatch.config import check, from_dict
from melpatch.data.manifest import load_corpus
from melpatch.data.remote import is_url
from melpatch.data.sources import dataset_name
from melpatch.errors import ConfigError
from melpatch.evaluation.frozen import Frozen
from melpatch.inference.model import Model, load
from melpatch.objectives.classify import Classify
from melpatch.progress import console, notice
from melpatch.protocols.base import EvaluationJob, Probe, Protocol
from melpatch.scoring import refuse_others, score, warn
from melpatch.training.config import build

TOGETHER = True


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to score, how, and on what."""

    run: tyro.conf.Positional[Path]
    """Run folder of a classifier or of a pretrained encoder."""
    data: tuple[str, ...]
    """Labelled folders or CSV files."""
    protocol: tuple[str, ...] = ()
    """Protocols (melpatch list protocols), one after the other; by default knn and linear for an encoder, as_trained
    for a classifier."""
    set: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Settings of the protocols that differ from the named ones, such as k=20; each goes to the protocols that have it,
    and is written beside the scores."""
    split: tuple[str, ...] = ()
    """Splits or folds to score, each in a round of its own; by default test, or else every fold."""
    split_column: str = "split"
    """Column of the CSV that holds the split or fold."""
    label_column: str = "label"
    """Column of the CSV that holds the labels."""
    labels_per_class: int | None = None
    """Learn from so many clips per class only, chosen by the seed."""
    seeds: tuple[int, ...] = ()
    """One repetition each; by default as many as the protocol has, from 0."""
    untrained: bool = False
    """Score the same network at random weights in the place of the run's: what training is worth."""
    batch_size: int = 32
    """Windows at a time."""
    workers: int = 0
    """Decoding processes."""
    out: Path | None = None
    """Folder for the results, one sub-folder per protocol, and another where --set changes its settings; by default
    RUN/evaluation/ and the names of corpus and splits."""
    features: Path | None = None
    """Folder in which the answers of the frozen network are kept for the next time; by default RUN/features. The tokens
    of attentive and prototype are large: 2 bytes for each number of each token of each clip."""
    json: bool = False
    """Print JSON for scripts instead of a table."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(
            self.labels_per_class is None or self.labels_per_class >= 1,
            "labels_per_class",
            self.labels_per_class,
            "1 or more",
        )
        for name in ("protocol", "split", "seeds"):
            given = getattr(self, name)
            check(len({*given}) == len(given), name, given, "each but once")
        check(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        check(self.workers >= 0, "workers", self.workers, "0 or more")


def run(config: Config) -> None:
    """Score; write scores.json, predictions.csv and pictures for each protocol; print the scores."""
    records = scored(config)
    if config.json:
        console().print_json(json.dumps(records))
    else:
        console().print(_grid(config, records))
        notice(f"written to {results(config)}")


def scored(config: Config) -> dict[str, dict[str, Any]]:
    """Score, write what was found, and return the record of each protocol by its name.

    Raises:
        MelpatchError: something cannot be scored as it is asked for; nothing is written then.
    """
    trained = load(config.run)
    chosen = protocols(config.protocol or _default(trained), list(chain.from_iterable(config.set)))
    jobs = _jobs(config, trained, chosen)
    if config.out is not None:  # the default one has a name that tells
        refuse_others(jobs)
    warn(chosen, jobs)
    _check_writable(results(config), "--out")
    if any(isinstance(one, Probe) for one in chosen):
        _check_writable(_features(config), "--features")
    return {
        registry.name_of(type(one)): score(one, job) for one, job in zip(chosen, jobs, strict=True)
    }


def protocols(names: Sequence[str], changes: Sequence[str] = ()) -> list[Protocol]:
    """Return protocols by their names, or by ``package.module:Class``, with some settings changed.

    Args:
        names: of the protocols.
        changes: NAME=VALUE each, VALUE as in TOML; text needs no quotation marks. Each goes to the protocols that have
            such a setting.

    Raises:
        ConfigError: there is no such protocol, none of them has such a setting, or a value is out of range.
    """
    values = dict(_setting(change) for change in changes)
    check(len(values) == len(changes), "set", [*changes], "each setting but once")
    known = {name: _kind(name) for name in names}
    fields = {
        name: [field.name for field in dataclasses.fields(kind)] for name, kind in known.items()
    }
    every = sorted({field for each in fields.values() for field in each})
    for name in values:
        check(
            name in every,
            "set",
            name,
            f"the settings of {', '.join(names)}, which are {', '.join(every) or 'none'}",
        )
    return [
        from_dict(
            kind,
            {key: value for key, value in values.items() if key in fields[name]},
            f"protocol {name}",
        )
        for name, kind in known.items()
    ]


def results(config: Config) -> Path:
    """Return the folder for the results; by default its name tells what was scored apart from other scores of the
    run."""
    return config.out or config.run / "evaluation" / _name(config)


def _name(config: Config) -> str:
    """Return what is scored in one word, that tells it from whatever else may be scored of the run."""
    folders = [is_url(source) or Path(source).is_dir() for source in config.data]
    sources = [
        (dataset_name(source), [] if folder else [Path(source).stem])
        for source, folder in zip(config.data, folders, strict=True)
    ]
    parts = ["+".join("-".join([folder, *stem]) for folder, stem in sources)]
    parts += [
        name
        for name, usual in ((config.split_column, "split"), (config.label_column, "label"))
        if name != usual
    ]
    parts += [
        *config.split,
        *([f"few-{config.labels_per_class}"] if config.labels_per_class else []),
        *["untrained"] * config.untrained,
    ]
    return "-".join(parts).replace("/", "-")


def _jobs(config: Config, trained: Model, chosen: Sequence[Protocol]) -> list[EvaluationJob]:
    """Return what each protocol is to do, over the same corpus, network and features."""
    corpus = load_corpus(
        config.data, split_column=config.split_column, label_column=config.label_column
    )
    if corpus.rejected:
        notice(
            f"{len(corpus.rejected)} files of {corpus.name} cannot be read and are not scored; see scores.json"
        )
    model = Model(trained.config, build(trained.config)) if config.untrained else trained
    windows = {"batch_size": config.batch_size, "workers": config.workers}
    frozen = Frozen(
        model.config, model.objective, _features(config), seconds=model.seconds, **windows
    )
    return [
        EvaluationJob(
            run=config.run,
            model=model,
            corpus=corpus,
            scored=config.split,
            seeds=config.seeds or tuple(range(one.repetitions)),
            labels_per_class=config.labels_per_class,
            frozen=frozen,
            out=results(config) / _place(one),
            name=_name(config),
            untrained=config.untrained,
            **windows,
        )
        for one in chosen
    ]


def _place(protocol: Protocol) -> str:
    """Return the name of a protocol's folder, which tells changed settings apart, so that none undoes others' work."""
    name = registry.name_of(type(protocol)).replace(":", ".")
    if not protocol.changed:
        return name
    said = "-".join(f"{key}-{value}" for key, value in protocol.changed.items())
    short = re.sub(r"[^\w.]+", "-", said, flags=re.ASCII)[:60].strip("-")
    return f"{name}-{short}-{hashlib.blake2b(repr(protocol.changed).encode(), digest_size=4).hexdigest()}"


def _default(model: Model) -> tuple[str, ...]:
    return ("as_trained",) if isinstance(model.objective, Classify) else ("knn", "linear")


def _features(config: Config) -> Path:
    return config.features or config.run / "features"


def _kind(name: str) -> type[Protocol]:
    kind = registry.find("protocols", name)
    if not (isinstance(kind, type) and issubclass(kind, Protocol)):
        raise ConfigError(
            f"{name} is no protocol; name a class derived from melpatch.protocols.base.Protocol"
        )
    return kind


def _setting(change: str) -> tuple[str, Any]:
    name, equals, text = change.partition("=")
    check(bool(equals), "set", change, "NAME=VALUE, such as k=20")
    try:
        return name, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return name, text


def _check_writable(folder: Path, flag: str) -> None:
    """Refuse a folder that cannot be made or written to, before anything is computed."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise ConfigError(
            f"{folder}: cannot be written, since {there} is no folder that you may write to; give {flag}"
        )


def _grid(config: Config, records: dict[str, dict[str, Any]]) -> Grid:
    first = next(iter(records.values()))
    weights = " at random weights" if config.untrained else ""
    splits = ", ".join(one["scored"] for one in first["rounds"])
    grid = Grid(title=f"{config.run}{weights} on {first['corpus']} ({splits}): {first['n']} clips")
    for column in (
        "protocol",
        "metric",
        "value",
        "95 %",
        "seeds",
        "balanced accuracy",
        "macro F1",
        "mAP",
        "mAUC",
    ):
        grid.add_column(column)
    grid.add_column("s (embedding)")
    left_out: dict[str, None] = {}
    for name, found in records.items():
        bounds, metrics = found["interval_95"], found["metrics"]
        interval = f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else "-"
        spread = f"{len(found['seeds'])}" + (
            f" (±{found['seed_std']:.3f})" if found["seed_std"] is not None else ""
        )
        numbers = (metrics.get(key) for key in ("balanced_accuracy", "macro_f1", "mAP", "mAUC"))
        cells = ["-" if value is None else f"{value:.3f}" for value in (found["value"], *numbers)]
        version = f"{name} {found['version']}" + (" *" if found["settings_changed"] else "")
        seconds = "-" if found["seconds"] is None else f"{found['seconds']:.1f}"
        if found["embedding_seconds"] is not None:
            seconds += f" ({found['embedding_seconds']:.1f})"
        grid.add_row(version, found["metric"], cells[0], interval, spread, *cells[1:], seconds)
        for kind in ("classes_without_positives", "classes_without_negatives"):
            if found[kind]:
                left_out[
                    f"{kind.replace('_', ' ')}: {', '.join(found[kind])}; left out of mAP and mAUC"
                ] = None
    for sentence in left_out:
        notice(sentence)
    if any(found["settings_changed"] for found in records.values()):
        grid.caption = "* with settings other than the protocol's"
    return grid
