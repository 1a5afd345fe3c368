"""Look through folders, CSV files or a public dataset once: report what is there, and write it as a corpus."""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.table import Table

from melpatch import registry
from melpatch.config import check
from melpatch.data.clip import Clip
from melpatch.data.leaks import find_leaks, warn_of_shared_groups
from melpatch.data.manifest import (
    Corpus,
    Rejected,
    corpus_from_rows,
    load_with_rates,
    write_corpus,
    write_rejected,
)
from melpatch.data.sources import Row
from melpatch.datasets.base import Card
from melpatch.progress import console, notice

_SHOWN = 12  # labels listed by name


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to look through, and where to write what was found."""

    sources: tyro.conf.Positional[tuple[str, ...]]
    """Folders (the first sub-folder is the label), CSV files (columns path, label, split, start, duration, group), and
    shards (melpatch pack) here or by their URL; or the name of a public dataset (melpatch datasets)."""
    root: Path | None = None
    """Folder that holds the public dataset."""
    subset: str = ""
    """Variant of the public dataset; by default its first."""
    out: Path | None = None
    """CSV file to write, by default corpus.csv, or NAME.csv or NAME-SUBSET.csv for a dataset; files that are no good
    are listed beside it, in corpus.rejected.csv, and those that a dataset lacks in corpus.missing.csv."""
    split_column: str = "split"
    """Column of the CSV files that holds the split or fold."""
    label_column: str = "label"
    """Column of the CSV files that holds the label; several are parted by semicolons."""
    workers: int = 2
    """Processes that look at files; 0 looks at them in this one."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self.workers >= 0, "workers", self.workers, "0 or more")


def run(config: Config) -> None:
    """Scan the sources, print what was found, and write the corpus."""
    card = _card(config)
    corpus, rates, missing, labels = _survey(config, card)
    table = Table(title=corpus.name, title_justify="left", show_header=False, box=None)
    for name, value in _findings(corpus, rates):
        table.add_row(name, value)
    if card:
        table.add_row("missing", f"{len(missing):,} of {_listed(corpus, missing):,}")
        table.add_row("licence", card.licence)
    console().print(table)
    out = config.out or Path(
        "-".join(filter(None, [card.name if card else "corpus", config.subset])) + ".csv"
    )
    write_corpus(corpus, out)
    _list(corpus.rejected, out.with_suffix(".rejected.csv"), "files are left out")
    lacking = [Rejected(str(row.path), "does not exist") for row in missing]
    _list(
        lacking,
        out.with_suffix(".missing.csv"),
        f"of {_listed(corpus, missing):,} clips are missing",
    )
    _warn_of_lost_labels(corpus, labels)
    if (
        card is None
    ):  # the splits of a public dataset are given, and two million files are too many to compare
        _warn_of_leaks(find_leaks(corpus))
    warn_of_shared_groups(*(corpus.select([split]) for split in corpus.splits))
    console().print(f"written: {out}")


def _survey(config: Config, card: Card | None) -> tuple[Corpus, Counter[int], list[Row], set[str]]:
    """Return the corpus, the number of files of each sampling rate, and of a public dataset what is missing and the
    labels of all clips that it lists."""
    if card is None or config.root is None:
        columns = {"split_column": config.split_column, "label_column": config.label_column}
        return *load_with_rates(config.sources, **columns, workers=config.workers), [], set()
    there, missing = card.look_up(config.root, config.subset)
    labels = {label for row in (*there, *missing) for label in row.labels}
    return *corpus_from_rows(card.name, config.root, there, workers=config.workers), missing, labels


def _list(files: Sequence[Rejected], path: Path, what: str) -> None:
    if files:
        write_rejected(files, path)
        notice(f"{len(files):,} {what}, listed in {path}")
    else:
        path.unlink(missing_ok=True)  # of an earlier look, when some were


def _listed(corpus: Corpus, missing: Sequence[Row]) -> int:
    """Return how many clips a public dataset has, there or not."""
    return len(corpus.clips) + len(corpus.rejected) + len(missing)


def _card(config: Config) -> Card | None:
    """Return the card of the public dataset that is named, None where folders or CSV files are."""
    given = " ".join(config.sources)
    name = given.replace("-", "_").lower()
    known = name in registry.names("datasets")
    if config.root is None and (not known or Path(given).exists()):
        check(
            not config.subset,
            "subset",
            config.subset,
            "with --root and the name of a public dataset only",
        )
        return None
    check(
        known, "sources", name, f"with --root one name of {', '.join(registry.names('datasets'))}"
    )
    card: Card = registry.find("datasets", name)
    check(config.root is not None, "root", None, f"the folder that holds {name}; {card.download}")
    return card


def _findings(corpus: Corpus, rates: Counter[int]) -> Iterator[tuple[str, str]]:
    durations = [clip.duration for clip in corpus.clips]
    middle = statistics.median(durations)
    yield "clips", str(len(corpus.clips))
    yield "hours", f"{sum(durations) / 3600:.3f}"
    yield (
        "seconds",
        f"{min(durations):.2f} shortest, {middle:.2f} median, {max(durations):.2f} longest",
    )
    yield (
        "sampling rates",
        _counts([(f"{rate} Hz", count) for rate, count in rates.most_common()]) or "not looked at",
    )
    yield "splits", _counts([(split or "(none)", count) for split, count in corpus.splits.items()])
    labels = Counter(label for clip in corpus.clips for label in clip.labels).most_common()
    several = ", several to a clip" if corpus.multi_label else ""
    yield "labels", f"{len(labels)}{several}" if labels else "none"
    if labels:
        yield "clips of each", _counts(labels)
        yield "unlabelled", str(sum(not clip.labels for clip in corpus.clips))
    yield "rejected", str(len(corpus.rejected))


def _counts(items: Sequence[tuple[str, int]]) -> str:
    """Return names with their counts; of a long list the beginning and the last."""
    texts = [f"{name}: {count}" for name, count in items]
    if len(texts) > _SHOWN:
        texts = [*texts[: _SHOWN - 1], "...", texts[-1]]
    return ", ".join(texts)


def _warn_of_lost_labels(corpus: Corpus, listed: set[str]) -> None:
    """Name the labels that only missing or bad files have: the corpus does not know that they exist."""
    lost = sorted(listed.difference(corpus.labels))
    if lost:
        named = "; ".join(lost[:_SHOWN]) + ("; ..." if len(lost) > _SHOWN else "")
        notice(
            f"{len(lost)} of {len(listed)} labels have no clip here and cannot be learnt or scored: {named}"
        )


def _warn_of_leaks(groups: Sequence[tuple[Clip, ...]]) -> None:
    if groups:
        one, other = (
            groups[0][0],
            next(clip for clip in groups[0] if clip.split != groups[0][0].split),
        )
        example = (
            f"{one.location} ({one.split or 'none'}) and {other.location} ({other.split or 'none'})"
        )
        notice(
            f"{len(groups)} recordings stand in more than one split, such as {example}; scores would be too good"
        )
