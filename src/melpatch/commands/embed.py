"""Turn recordings of any length into vectors."""

from dataclasses import dataclass
from pathlib import Path

from melpatch.inference.fitted import FITTED, FittedPooling
from melpatch.inference.jobs import InferenceConfig, hash_of_run, inference_job
from melpatch.inference.model import load
from melpatch.inference.tables import Column
from melpatch.inference.tasks import embedding_pooling
from melpatch.inference.writing import write_output

TOGETHER = True


@dataclass(frozen=True, kw_only=True)
class Config(InferenceConfig):
    """What to embed, how, and where to write it."""

    out: Path
    """NPZ to write: embeddings (row, dim), path (row), and with --hop start and end (row) in
    seconds; clips of a CSV file or of shards have key, start and end always. A name that ends in
    .csv or .parquet is written as such."""
    hop: float | None = None
    """Length of a frame in seconds; without, one vector per recording."""
    pooling: str | None = None
    """Tokens to vector: mean, std, delta, max, cls, rows, segments=N, layers=A,B, normed-layers=A,B
    and layer-mean=A,B, joined by + as in rows+mean+std (with --hop mean or rows, with or without
    layers), or fitted after melpatch fit-embedding; by default a classifier's own, or the one that
    probes have."""
    layer: int | None = None
    """Layer whose output to take, from 0 or, from the end, from -1; without, the final norm's."""


def run(config: Config) -> None:
    """Write one table; unreadable files are listed beside it, and damaged ones have no row.

    With ``--salvage`` they have those of the sound before the damage.
    """
    model = load(config.run, precision=config.precision, trust_code=config.trust_code)
    task = model.embedding_task(
        pooling=config.pooling, layer=config.layer, hop=config.hop, salvage=config.salvage
    )
    pooling = embedding_pooling(model.network, config.pooling, config.layer, config.hop)
    spelling = FITTED if isinstance(pooling, FittedPooling) else str(pooling)
    job = inference_job(
        config,
        model,
        task,
        [Column("embeddings", lambda rows: rows["values"], ".9g")],
        default_ending=".npz",
        about={
            "command": "embed",
            # Calibration changes no vector.
            "model": hash_of_run(config.run, model, with_calibration=False),
            "hop": config.hop,
            "pooling": str(pooling),
            "layer": config.layer,
            "salvage": config.salvage,
        },
        more_about=lambda numbers: {"spelling": spelling, "dim": numbers},
        timed=config.hop is not None,
        keep=config.salvage,
    )
    write_output(job)
