"""What the tests of protocols that fine-tune share: trainings of a few steps, and what they leave."""

import json
from pathlib import Path
from typing import Any

import pytest
from journeys.three_sounds import SHORT, melpatch

from melpatch.evaluation import report

FLAGS = (*SHORT, "--log-every", "1", "--save-every", "2", "--lr", "3e-3")
"""Flags of a training that is over in a second, and whose weights do change."""


def words(protocol: str, run: Path, corpus: Path, out: Path, flags: str) -> list[str]:
    """Return the command that scores a run by a protocol."""
    asked = ["evaluate", str(run), "--data", str(corpus), "--out", str(out), "--protocol", protocol]
    return [*asked, "--set", f"flags={' '.join(FLAGS)} {flags}"]


def evaluate(
    protocol: str, run: Path, corpus: Path, out: Path, flags: str, *more: str
) -> dict[str, Any]:
    """Score a run by a protocol, and return the record that was written; its settings may be among the other words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_draw", lambda *_: None)  # pictures take longer than such a training
        melpatch(*words(protocol, run, corpus, out, flags), *more)
    record: dict[str, Any] = json.loads((results(out) / "scores.json").read_text(encoding="utf-8"))
    return record


def results(out: Path) -> Path:
    """Return the folder of the one protocol that was scored under one choice of settings."""
    (found,) = (path for path in out.iterdir() if (path / "runs").exists())
    return found


def measured(run: Path, name: str) -> dict[int, float]:
    """Return what a training measured under a name, by step."""
    lines = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return {line["step"]: line[name] for line in lines if name in line}
