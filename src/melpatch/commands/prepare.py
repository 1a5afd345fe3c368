"""Look through folders or CSV files of sound once: report what is there, and write it as a corpus for training."""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.table import Table

from melpatch.config import check
from melpatch.data.clip import Clip
from melpatch.data.leaks import leaks
from melpatch.data.manifest import Corpus, survey, write_corpus, write_rejected
from melpatch.progress import console, notice

_SHOWN = 12  # labels listed by name


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to look through, and where to write what was found."""

    sources: tyro.conf.Positional[tuple[str, ...]]
    """Folders (the first sub-folder is the label) and CSV files (columns path, label, split, start, duration)."""
    out: Path = Path("corpus.csv")
    """CSV file to write; files that are no good are listed in rejected.csv beside it."""
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
    corpus, rates = survey(
        config.sources,
        split_column=config.split_column,
        label_column=config.label_column,
        workers=config.workers,
    )
    table = Table(title=corpus.name, title_justify="left", show_header=False, box=None)
    for name, value in _findings(corpus, rates):
        table.add_row(name, value)
    console().print(table)
    write_corpus(corpus, config.out)
    if corpus.rejected:
        beside = config.out.with_name("rejected.csv")
        write_rejected(corpus.rejected, beside)
        notice(f"{len(corpus.rejected)} files are left out; {beside} says why")
    _warn_of_leaks(leaks(corpus))
    console().print(f"written: {config.out}")


def _findings(corpus: Corpus, rates: Counter[int]) -> Iterator[tuple[str, str]]:
    durations = [clip.duration for clip in corpus.clips]
    middle = statistics.median(durations)
    yield "clips", str(len(corpus.clips))
    yield "hours", f"{sum(durations) / 3600:.3f}"
    yield "seconds", f"{min(durations):.2f} shortest, {middle:.2f} median, {max(durations):.2f} longest"
    yield "sampling rates", _counts([(f"{rate} Hz", count) for rate, count in rates.most_common()]) or "not looked at"
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


def _warn_of_leaks(groups: Sequence[tuple[Clip, ...]]) -> None:
    if groups:
        one, other = groups[0][0], next(clip for clip in groups[0] if clip.split != groups[0][0].split)
        example = f"{one.path} ({one.split or 'none'}) and {other.path} ({other.split or 'none'})"
        notice(f"{len(groups)} recordings stand in more than one split, such as {example}; scores would be too good")
