"""Turn recordings of any length into vectors."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from melpatch.checkpoint import written_aside
from melpatch.commands.base import recordings
from melpatch.commands.predict import finish
from melpatch.data.manifest import Rejected
from melpatch.errors import AudioError, DataError
from melpatch.model import load
from melpatch.nn.pooling import Pooling
from melpatch.progress import track


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to embed, how, and where to write it."""

    run: tyro.conf.Positional[Path]
    """Run folder, pretrained or fine-tuned."""
    recordings: tyro.conf.Positional[tuple[str, ...]]
    """Audio files, or folders of them."""
    out: Path
    """NPZ to write: embeddings (row, dim), path (row), and with --hop start and end (row) in seconds."""
    hop: float | None = None
    """Length of a frame in seconds; without, one vector per recording."""
    pooling: Pooling | None = None
    """Tokens to vector: mean, max, cls or frequency (with --hop mean or frequency); by default the classifier's own, or
    frequency."""
    layer: int | None = None
    """Block whose output to take, -1 being the last; without, the final norm's."""


def run(config: Config) -> None:
    """Write one NPZ; unreadable files are named beside it."""
    model = load(config.run)
    files = recordings(config.recordings)
    rejected: list[Rejected] = []
    rows: list[np.ndarray] = []
    paths: list[str] = []
    times: list[np.ndarray] = []
    for path in track(files, len(files), "embedding"):
        try:
            if config.hop is None:
                vectors = model.embed(path, pooling=config.pooling, layer=config.layer)[None]
            else:
                frames = model.embed(path, pooling=config.pooling, layer=config.layer, hop=config.hop)
                vectors = frames.vectors
                times.append(np.stack([frames.start, frames.end], axis=1))
        except AudioError as error:
            rejected.append(Rejected(str(path), error.reason))
            continue
        rows.append(vectors)
        paths.extend([str(path)] * len(vectors))
    if not rows:
        raise DataError(
            f"none of the {len(files)} files can be read; the first: {rejected[0].path} ({rejected[0].reason})"
        )
    arrays = {"embeddings": np.concatenate(rows), "path": np.array(paths)}
    if times:
        arrays["start"], arrays["end"] = np.concatenate(times).T
    with written_aside(config.out) as aside, aside.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    finish(config.out, len(files), rejected)
