"""Decode folders, CSV files or a public dataset, report what is there, and write a corpus file."""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.table import Table

from melpatch import registry
from melpatch.atomic import clear_partial
from melpatch.config import check, check_workers
from melpatch.counted import agreeing, counted
from melpatch.data.clip import Clip
from melpatch.data.decoding import Decoding
from melpatch.data.folds import describe_folds, describe_groups, with_folds
from melpatch.data.leaks import find_leaks, warn_of_shared_groups
from melpatch.data.manifest import (
    REJECTED_HEADER,
    Corpus,
    Rejected,
    corpus_from_rows,
    is_own_corpus,
    load_with_rates,
    write_corpus,
    write_rejected,
    write_table,
)
from melpatch.data.quality import Finding, corpus_notices, file_findings
from melpatch.data.remote import is_url
from melpatch.data.row import Row
from melpatch.data.shards import INDEX
from melpatch.data.sources import manifests_of
from melpatch.data.split_roles import role_of
from melpatch.data.splits import describe_untrained
from melpatch.data.tables import ENDINGS
from melpatch.datasets.base import Card
from melpatch.datasets.made_up import is_free
from melpatch.only_writer import only_writer
from melpatch.outputs import check_output, list_beside
from melpatch.progress import console, notice

_SHOWN = 12  # labels listed by name


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to scan, and where to write the corpus."""

    sources: tyro.conf.Positional[tuple[str, ...]]
    """Folders (sub-folders are labels), CSV files (columns path, label, split, start, duration,
    group), shards (melpatch pack) or their URLs, Parquet and manifests of others (docs/data.md);
    or the name of a public dataset (melpatch datasets)."""
    root: Path | None = None
    """Folder of the public dataset. A made-up one, such as scenes, is written there if the folder
    does not exist or is empty."""
    subset: str = ""
    """Variant of the public dataset; by default its first."""
    out: Path | None = None
    """CSV file to write; by default corpus.csv, or the name of the dataset. Files that cannot be
    used are listed beside it in .rejected.csv, files that a dataset lacks in .missing.csv."""
    split_column: str = "split"
    """Column of the CSV files that holds the split or fold."""
    label_column: str = "label"
    """Column of the CSV files that holds the labels, separated by semicolons."""
    group_column: str = "group"
    """Column of the CSV files that holds the recording, speaker or patient of a clip."""
    folds: int | None = None
    """Draw this many folds for cross-validation instead of the given splits but test: groups whole,
    classes spread evenly. evaluate then scores each of them."""
    seed: int = 0
    """Seed of the folds."""
    workers: int = 2
    """Worker processes that read files; 0 reads them in this one."""
    headers_only: bool = False
    """Read only headers: quick, but damage is not found, and lengths are as stated."""
    overwrite: bool = False
    """Replace a file in --out that this command did not make; an input is never replaced."""
    salvage: bool = False
    """Keep stretches of 1 s or more of damaged files; .salvaged.csv lists what is left out."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_workers(self.workers)
        check(self.folds is None or self.folds >= 2, "folds", self.folds, "2 or more")
        ending = "" if self.out is None else self.out.suffix.lower()
        # A table of another ending would be read as another format.
        check(ending not in ENDINGS[1:], "out", str(self.out), "a name that ends in .csv")
        whole = not (self.salvage and self.headers_only)
        check(whole, "salvage", self.salvage, "without headers_only, which does not find damage")


def run(config: Config) -> None:
    """Scan the sources, print a summary, and write the corpus."""
    card = _card(config)
    out = config.out or _default_out(card, config.subset)
    if card and config.root:
        _make_if_absent(card, config.root, config, out)
    with only_writer(out):
        _prepare(config, card, out)
    console().print(f"written: {out}")


def _make_if_absent(card: Card, root: Path, config: Config, out: Path) -> None:
    """Write a made-up dataset where its folder does not exist or is empty."""
    if card.make is None or not is_free(root):
        return
    # Making a dataset takes minutes, so what can be refused is refused before it.
    card.require_subset(config.subset)
    _check_output(config, out, None)
    notice(f"{root}: making {card.name}: {card.size}")
    card.make(root)


def _prepare(config: Config, card: Card | None, out: Path) -> None:
    # Before and after the files are read, which may take long: only then are they known.
    _check_output(config, out, None)
    decoding = None if config.headers_only else Decoding(salvage=config.salvage)
    corpus, rates, missing, labels = _survey(config, card, decoding)
    if config.folds is not None:
        corpus = _in_folds(corpus, config.folds, config.seed)
    table = Table(title=corpus.shown_name, title_justify="left", show_header=False, box=None)
    for name, value in _findings(corpus, rates):
        table.add_row(name, value)
    remote = sum(bool(clip.url) for clip in corpus.clips)
    table.add_row("read", _what_was_read(decoding, remote, len(corpus.clips)))
    if card:
        table.add_row("missing", f"{len(missing):,} of {_listed(corpus, missing):,}")
        table.add_row("licence", card.licence)
    console().print(table)
    _check_output(config, out, corpus)
    write_corpus(corpus, out, noted=True)
    rejected = counted(len(corpus.rejected), "clip")
    verb = agreeing(len(corpus.rejected), "is", "are")
    _list(corpus.rejected, _beside(config, out, "rejected"), f"{rejected} {verb} left out")
    lacking = [Rejected(str(row.path), _why_lacking(row.path)) for row in missing]
    among = f"{len(missing):,} of {counted(_listed(corpus, missing), 'clip')}"
    verb = agreeing(len(missing), "is", "are")
    _list(lacking, _beside(config, out, "missing"), f"{among} {verb} missing")
    if decoding is None:
        notice("only headers were read: damage is not found, and lengths are as stated")
    else:
        if remote:
            notice(
                f"{counted(remote, 'clip')} of remote shards {agreeing(remote, 'was', 'were')} not "
                "fetched and decoded: lengths are as packed, and damage shows when they are used"
            )
        salvaged = _beside(config, out, "salvaged")
        damaged = counted(len(decoding.salvaged), "damaged file")
        verb = agreeing(len(decoding.salvaged), "is", "are")
        _list(decoding.salvaged, salvaged, f"{damaged} {verb} kept in part")
        quality = _beside(config, out, "quality", ",".join(Finding._fields))
        _report_quality(decoding, quality)
    for text in corpus_notices(corpus):
        notice(text)
    _warn_of_lost_labels(corpus, labels)
    trains = [split for split in corpus.splits if role_of(split) == "train"]
    untrained = describe_untrained(corpus.select(trains), corpus.labels) if trains else None
    if untrained is not None:
        notice(untrained)
    # The splits of a public dataset are given, and its files may be too many to compare.
    if card is None:
        _warn_of_leaks(find_leaks(corpus))
    warn_of_shared_groups(*(corpus.select([split]) for split in corpus.splits))


def _in_folds(corpus: Corpus, folds: int, seed: int) -> Corpus:
    """Return the corpus in folds, and say which splits these replace and what is odd about them."""
    check(bool(corpus.labels), "folds", folds, "nothing, since no clip has a label; leave it out")
    dealt = with_folds(corpus, folds, seed)
    replaced = {name: n for name, n in corpus.splits.items() if name and role_of(name) != "test"}
    if replaced:
        notice(f"splits {_counts([*replaced.items()])} are replaced by {counted(folds, 'fold')}")
    for sentence in describe_folds(dealt):
        notice(sentence)
    return dealt


def _what_was_read(decoding: Decoding | None, remote: int, clips: int) -> str:
    """Return in words what of the files was read, of which some may be in remote shards."""
    if decoding is None:
        return "headers only"
    if remote == clips:
        return "the index of remote shards only"
    return (
        f"whole files, but of {counted(remote, 'clip')} the index only" if remote else "whole files"
    )


def _check_output(config: Config, out: Path, corpus: Corpus | None) -> None:
    """Raise ConfigError if the corpus file may not be written, which is None before it is known."""
    inputs: list[str | Path] = [*config.sources]
    folders = [Path(source) for source in config.sources if not is_url(source)]
    tables = [path for folder in folders for path in (folder / INDEX, *manifests_of(folder))]
    # A table that melpatch wrote on top of a folder is not read with it.
    inputs += [path for path in tables if path.is_file() and not is_own_corpus(path, None)]
    if corpus is not None:
        inputs += [clip.path for clip in corpus.clips if clip.path.name == out.name]
    check_output(
        out,
        inputs=inputs,
        is_own=lambda path: is_own_corpus(path, corpus),
        overwrite=config.overwrite,
    )


def _beside(config: Config, out: Path, kind: str, header: str = REJECTED_HEADER) -> Path:
    """Return the path of a list beside the output, without what a crash left of it."""
    path = list_beside(out, kind, header, config.sources)
    clear_partial(path.parent, path.name)
    return path


def _why_lacking(path: Path) -> str:
    """Return why a file of a public dataset is missing."""
    if path.exists():
        return "exists, but by its name it is hidden or no sound"
    return "does not exist"


def _default_out(card: Card | None, subset: str) -> Path:
    if card is None:
        return Path("corpus.csv")
    return Path(f"{card.name}-{subset}.csv" if subset else f"{card.name}.csv")


def _survey(
    config: Config, card: Card | None, decoding: Decoding | None
) -> tuple[Corpus, Counter[int], list[Row], set[str]]:
    """Return the corpus and the number of files of each sampling rate.

    For a public dataset, also return the rows that are missing and all labels that it lists.
    """
    if card is None or config.root is None:
        loaded = load_with_rates(
            config.sources,
            split_column=config.split_column,
            label_column=config.label_column,
            group_column=config.group_column,
            workers=config.workers,
            decoding=decoding,
        )
        return *loaded, [], set()
    there, missing = card.look_up(config.root, config.subset)
    labels = {label for row in (*there, *missing) for label in row.labels}
    loaded = corpus_from_rows(
        card.name, config.root, there, workers=config.workers, decoding=decoding
    )
    return *loaded, missing, labels


def _list(files: Sequence[Rejected], path: Path, what: str) -> None:
    if files:
        write_rejected(files, path)
        notice(f"{what}, listed in {path}")
    else:
        path.unlink(missing_ok=True)  # left by an earlier scan


def _report_quality(decoding: Decoding, path: Path) -> None:
    """Write what is odd about files as a CSV file, and say how many there are of each kind."""
    findings = file_findings(decoding.surveys)
    if not findings:
        path.unlink(missing_ok=True)
        return
    write_table(path, Finding._fields, findings)
    counts = Counter(finding.kind for finding in findings)
    examples = {finding.kind: finding for finding in reversed(findings)}
    for kind, count in counts.items():
        example = examples[kind]
        files = f"{counted(count, 'file')} {agreeing(count, 'is', 'are')}"
        notice(f"{files} {kind}, such as {example.path} ({example.detail})")
    notice(f"listed in {path}")


def _listed(corpus: Corpus, missing: Sequence[Row]) -> int:
    """Return the number of clips that a public dataset lists, present or not."""
    return len(corpus.clips) + len(corpus.rejected) + len(missing)


def _card(config: Config) -> Card | None:
    """Return the card of the public dataset that is named; None for folders and CSV files."""
    given = " ".join(config.sources)
    if config.root is not None and ":" in given:  # a card of one's own, package.module:name
        own: Card = registry.find("datasets", given)
        return own
    name = given.replace("-", "_").lower()
    known = name in registry.all_names("datasets")
    if config.root is None and (not known or Path(given).exists()):
        check(
            not config.subset,
            "subset",
            config.subset,
            "with --root and the name of a public dataset only",
        )
        return None
    names = ", ".join(registry.all_names("datasets"))
    check(known, "sources", name, f"with --root one name of {names}")
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
        _counts([(f"{rate} Hz", count) for rate, count in rates.most_common()]) or "not read",
    )
    yield "splits", _counts([(split or "(none)", count) for split, count in corpus.splits.items()])
    labels = Counter(label for clip in corpus.clips for label in clip.labels).most_common()
    several = ", several to a clip" if corpus.multi_label else ""
    yield "labels", f"{len(labels)}{several}" if labels else "none"
    if labels:
        yield "clips of each", _counts(labels)
        yield "unlabelled", counted(sum(not clip.labels for clip in corpus.clips), "clip")
    yield "groups", describe_groups(corpus)
    yield "rejected", counted(len(corpus.rejected), "clip")


def _counts(items: Sequence[tuple[str, int]]) -> str:
    """Return names with their counts; a long list is shortened in the middle."""
    texts = [f"{name}: {count}" for name, count in items]
    if len(texts) > _SHOWN:
        texts = [*texts[: _SHOWN - 1], "...", texts[-1]]
    return ", ".join(texts)


def _warn_of_lost_labels(corpus: Corpus, listed: set[str]) -> None:
    """Name the labels of the dataset of which the corpus has no clip."""
    lost = sorted(listed.difference(corpus.labels))
    if lost:
        shown = lost[:_SHOWN]
        if len(lost) > _SHOWN:
            shown.append("...")
        notice(
            f"{len(lost)} of {counted(len(listed), 'label')} {agreeing(len(lost), 'has', 'have')} no "
            "clip here and cannot be learnt or scored: " + "; ".join(shown)
        )


def _warn_of_leaks(groups: Sequence[tuple[Clip, ...]]) -> None:
    if groups:
        clip = groups[0][0]
        other = next(twin for twin in groups[0] if twin.split != clip.split)
        example = f"{clip.location} ({clip.split or 'none'}) and {other.location} ({other.split or 'none'})"
        notice(
            f"{counted(len(groups), 'recording')} {agreeing(len(groups), 'is', 'are')} in more than one "
            f"split, such as {example}; scores would be too good"
        )
