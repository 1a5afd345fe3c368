"""A small collection with an index for tests of the page: low and high tones and noise, in many recordings."""

from contextlib import contextmanager
from pathlib import Path

from journeys.three_sounds import melpatch, settings, write_run, write_sound

from melpatch.page.session import Session
from melpatch.search.build import model_of
from melpatch.search.index import Index
from melpatch.search.label_file import open_labels

KINDS = ("low", "high", "noise")


def write_collection(folder: Path, recordings=24) -> Path:
    """Write a run, recordings of 2 s and an index of windows of 1 s; return the index."""
    run = write_run(folder / "run", settings())
    for number in range(recordings):
        kind = KINDS[number % 3]
        write_sound(folder / "sounds" / f"{kind}-{number}.wav", kind, 2.0, seed=number)
    melpatch("index", run, folder / "sounds", "--out", folder / "index")
    return folder / "index"


@contextmanager
def opened(index: Path, labels: Path):
    """Open a session on an index."""
    found = Index(index)
    with open_labels(labels) as file:
        yield Session(found, file, model_of(found))


def kind_of(card) -> str:
    """Return the kind of sound of a card."""
    return Path(card["path"]).name.split("-")[0]
