"""Search an index for the stretches that sound like a file, a stretch of one, or a label."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro
from rich.table import Table

from melpatch.config import check
from melpatch.data.manifest import write_table
from melpatch.inference.sources import list_recordings
from melpatch.outputs import check_output
from melpatch.progress import console, notice, show_json
from melpatch.search.approximate import opened
from melpatch.search.build import model_of
from melpatch.search.index import LABELS, Index
from melpatch.search.nearest import Hit, best_rows
from melpatch.search.query import Stretch, label_vectors, parse_query, query_vectors
from melpatch.unchanged import is_unchanged

_HEADER = ("path", "start", "end", "score")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to search for, and where."""

    index: tyro.conf.Positional[Path]
    """Folder of melpatch index."""
    query: tyro.conf.Positional[str]
    """A sound file, a stretch of one as FILE@START-END in seconds, or a label of --labels."""
    labels: Path | None = None
    """File of labels, for a query by label; by default the labels.csv in the index."""
    count: int = 20
    """Stretches to find."""
    per_recording: int | None = None
    """Stretches of one recording at most; without, any number."""
    approximate: bool = False
    """Compare only vectors that the graphs of melpatch index --approximate propose: for millions of
    vectors, at the recall that is printed."""
    out: Path | None = None
    """CSV to write them to: path, start, end and score; any --data reads it."""
    json: bool = False
    """Print JSON for scripts."""
    run: Path | None = None
    """The run of the index, if it was moved since."""
    overwrite: bool = False
    """Replace a file in --out that this command did not make."""
    trust_code: bool = False
    """Allow the run to name code outside melpatch, such as your own encoder; that code is run."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self.count >= 1, "count", self.count, "1 or more")
        fits = self.per_recording is None or self.per_recording >= 1
        check(fits, "per_recording", self.per_recording, "1 or more")


def run(config: Config) -> None:
    """Print the nearest stretches, best first, and write them on request."""
    index = Index(config.index)
    if config.out is not None:
        check_output(
            config.out,
            inputs=[config.index],
            is_own=lambda path: is_unchanged(path) is True,
            overwrite=config.overwrite,
        )
    approximate = opened(index) if config.approximate else None
    by_label = _stretches(config.labels or config.index / LABELS)
    query = parse_query(config.query, sorted(by_label))
    model = partial(model_of, index, run=config.run, trust_code=config.trust_code)
    if isinstance(query, Stretch):
        stretches = [query]
        vectors = query_vectors(model(), index.identity, stretches)
    else:
        stretches = by_label[query]
        vectors = label_vectors(index, model, stretches)
    if approximate is not None:
        hits = approximate.best(
            vectors, config.count, per_recording=config.per_recording, without=stretches
        )
    else:
        scores = index.similarity(vectors)
        hits = best_rows(
            index, scores, config.count, per_recording=config.per_recording, without=stretches
        )
    _show(config, hits)
    if config.out is not None:
        lines = [(hit.path, *_numbers(hit)) for hit in hits]
        write_table(config.out, _HEADER, lines, noted=True)
        notice(f"written to {config.out}")


def _stretches(path: Path) -> dict[str, list[Stretch]]:
    """Return the stretches of each label of a file of labels, if there is one."""
    by_label: dict[str, list[Stretch]] = {}
    if not path.exists():
        return by_label
    for clip in list_recordings([str(path)]):
        for label in clip.labels:
            stretch = Stretch(clip.path, clip.start, clip.start + clip.duration)
            by_label.setdefault(label, []).append(stretch)
    return by_label


def _show(config: Config, hits: list[Hit]) -> None:
    if config.json:
        show_json([{name: getattr(hit, name) for name in _HEADER} for hit in hits])
        return
    table = Table(title=f"{config.query} in {config.index}")
    for name in _HEADER:
        table.add_column(name, justify="left" if name == "path" else "right")
    for hit in hits:
        table.add_row(hit.path, *_numbers(hit))
    console().print(table)


def _numbers(hit: Hit) -> tuple[str, str, str]:
    return f"{hit.start:.3f}", f"{hit.end:.3f}", f"{hit.score:.4f}"
