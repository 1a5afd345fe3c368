"""The run that is exported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from melpatch.inference.model import Model
from melpatch.objectives.classify import Classify


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        folder: the run folder.
        model: the trained model, on the CPU in float32.
        pooling: how tokens become a vector; None for the model's default.
        quantize: how weights are rounded; None for not at all.
        sounds: recordings on which the rounded network is compared with the run.
    """

    folder: Path
    model: Model
    pooling: str | None = None
    quantize: Literal["int8"] | None = None
    sounds: tuple[str, ...] = ()

    @property
    def classifier(self) -> Classify | None:
        """The objective if it predicts labels; None for an encoder."""
        objective = self.model.objective
        return objective if isinstance(objective, Classify) else None
