"""Show what a run is and how it went, or what a recording looks like to it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

from melpatch.config import from_toml, owner
from melpatch.errors import CheckpointError
from melpatch.plots.curve import curve
from melpatch.progress import console, notice
from melpatch.training.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which run to show."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    json: bool = False
    """Print JSON for scripts."""
    curve: Path | None = None
    """PNG to draw the curves of metrics.jsonl to."""


def run(config: Config) -> None:
    """Print the run's settings and last metrics; draw its curves if asked."""
    settings = from_toml(RunConfig, config.run / "config.toml")
    summary = _summary(config.run, settings)
    if config.json:
        console().print_json(json.dumps(summary))
    else:
        table = Table(title=str(config.run), show_header=False)
        for name, value in summary.items():
            table.add_row(name, value if isinstance(value, str) else json.dumps(value))
        console().print(table)
    if config.curve is not None:
        curve(config.curve, config.run / "metrics.jsonl")
        notice(f"drawn to {config.curve}")


def _summary(folder: Path, settings: RunConfig) -> dict[str, Any]:
    metrics = folder / "metrics.jsonl"
    if not metrics.exists():
        raise CheckpointError(f"{folder}: has no metrics.jsonl; it was started, but did no step")
    records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    latest: dict[str, Any] = {}
    for record in records:
        latest |= record
    encoder, front = settings.encoder, settings.front_end
    return {
        "objective": owner(settings.objective).__name__,
        "encoder": f"{owner(encoder).__name__} {encoder}",
        "front end": f"{front.sample_rate} Hz, {front.n_mels} mels, mean {front.mean:g}, std {front.std:g}",
        "data": ", ".join(settings.data),
        "labels": ", ".join(settings.labels) or "none",
        "segment": f"{settings.loader.seconds:g} s",
        "weights": "complete" if (folder / "model.safetensors").exists() else "none yet",
        "latest": latest,
    }
