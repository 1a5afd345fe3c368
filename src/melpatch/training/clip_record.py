"""Which clips a run was trained on: they are the same, and recognised, wherever they lie now."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melpatch.atomic import written_aside
from melpatch.counted import counted
from melpatch.data.clip_columns import contents_of, used_labels
from melpatch.data.corpus import Corpus
from melpatch.data.fingerprints import as_array, content_identities
from melpatch.data.sources import dataset_name
from melpatch.errors import CheckpointError
from melpatch.opening import read_json, reading

ABOUT = "corpus.json"
CLIPS = "clips.npy"
_RESTORE = "restore it from a backup"


def summary(corpus: Corpus) -> dict[str, Any]:
    """Return the number of clips, and a hash of their keys, lengths and labels in any order."""
    contents = sorted(contents_of(corpus.clips))
    sha256 = hashlib.sha256(repr(contents).encode()).hexdigest()
    return {"clips": len(contents), "sha256": sha256}


def note_clips(
    folder: Path, corpus: Corpus, data: Sequence[str | Path], labels: Sequence[str]
) -> None:
    """Record the training clips of a run, or check that they are those that were recorded.

    Args:
        folder: the run folder.
        corpus: the training clips.
        data: their sources.
        labels: the classes of the run.

    Raises:
        CheckpointError: other clips were recorded.
    """
    path = folder / ABOUT
    now = summary(corpus)
    if not path.exists():
        identities = [identity for clip in corpus.clips for identity in clip.identities]
        contents = as_array(content_identities(corpus.clips))
        known = np.concatenate([np.array(identities, dtype=np.int64), contents])
        with written_aside(folder / CLIPS) as aside, aside.open("wb") as file:
            np.save(file, np.unique(known))
        learnt = used_labels(corpus.clips)
        more = {
            "datasets": [dataset_name(source) for source in data],
            "untrained_labels": [label for label in labels if label not in learnt],
        }
        with written_aside(path) as aside:
            aside.write_text(json.dumps(now | more), encoding="utf-8")
    with reading(path, f"{_RESTORE}, or start a new run with another --out"):
        record = read_json(path)
        before = {name: record[name] for name in now}
    if before != now:
        raise CheckpointError(
            f"{folder}: was started on other clips, or other lengths or labels of them "
            f"({counted(before['clips'], 'clip')} then, {now['clips']:,} now); "
            "restore the corpus, or start a new run with another --out"
        )


def dataset_names(folder: Path, sources: Sequence[str | Path]) -> list[str] | None:
    """Return the names that the keys of a run's clips were made from; None if they are unknown.

    With them, clips that moved to another folder keep their keys.

    Args:
        folder: the run folder.
        sources: the sources that are read now, in the order of the run's.
    """
    names = _texts(folder, "datasets")
    if len(names) != len(sources):
        return None
    return names


def untrained_labels(folder: Path) -> list[str]:
    """Return the classes of a run of which it was trained on no clip, as far as it is known."""
    return _texts(folder, "untrained_labels")


def _texts(folder: Path, name: str) -> list[str]:
    """Return a list of the record; empty if there is none, as before the first step.

    Raises:
        CheckpointError: the record is damaged.
    """
    path = folder / ABOUT
    if not path.exists():
        return []
    with reading(path, f"{_RESTORE}, or delete it"):
        texts = read_json(path).get(name, [])
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{name} is no list of texts")
    return texts
