"""The predictions of one scored split under one seed, and their file, so that no trial runs twice."""

import json
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from melpatch.atomic import written_aside
from melpatch.data.clip import Clip
from melpatch.errors import CheckpointError
from melpatch.evaluation.splits import EvaluationSplit
from melpatch.faults import let_pass


@dataclass(frozen=True)
class TrialResult:
    """The predictions for the test clips of one split under one seed.

    Attributes:
        split: name of the scored split or fold.
        seed: seed of everything random in the protocol.
        clips: the scored clips.
        probabilities: one score per clip and label.
        details: what was selected on the way, and what it cost, as plain values.
        novelty: how unlike the training clips each clip is, see
            :meth:`melpatch.inference.novelty.Novelty.ranks`; None where that is not known.
    """

    split: str
    seed: int
    clips: tuple[Clip, ...]
    probabilities: Float[np.ndarray, "clip label"]
    details: dict[str, Any] = field(default_factory=dict)
    novelty: Float[np.ndarray, " clip"] | None = None


def save_trial(trial: TrialResult, path: Path, fingerprint: str) -> None:
    """Write a finished trial, with the fingerprint of everything its predictions depend on."""
    arrays: dict[str, Any] = {"probabilities": trial.probabilities}
    if trial.novelty is not None:
        arrays["novelty"] = trial.novelty
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(
            file,
            fingerprint=fingerprint,
            keys=np.array([clip.key for clip in trial.clips]),
            details=json.dumps(trial.details),
            **arrays,
        )


def load_trial(
    path: Path, fingerprint: str, split: EvaluationSplit, seed: int
) -> TrialResult | None:
    """Return a finished trial; None if there is none, or if its fingerprint differs.

    The file of a trial with another fingerprint is removed: whatever else that trial left is about
    to be overwritten.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with np.load(path) as saved:
            if str(saved["fingerprint"]) != fingerprint:
                path.unlink()
                return None
            clip_of_key = {clip.key: clip for clip in split.test.clips}
            return TrialResult(
                split.name,
                seed,
                tuple(clip_of_key[key] for key in saved["keys"].tolist()),
                saved["probabilities"],
                json.loads(str(saved["details"])),
                saved.get("novelty"),
            )
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        let_pass(error)
        raise CheckpointError(
            f"{path}: a finished trial that cannot be read ({error}); delete the file"
        ) from error
