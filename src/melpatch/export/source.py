"""The run that is exported."""

from dataclasses import dataclass
from pathlib import Path

from melpatch.inference.model import Model
from melpatch.objectives.classify import Classify


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        folder: the run folder.
        model: the trained model, on the CPU in float32.
    """

    folder: Path
    model: Model

    @property
    def classifier(self) -> Classify | None:
        """The objective if it predicts labels; None for an encoder."""
        objective = self.model.objective
        return objective if isinstance(objective, Classify) else None
