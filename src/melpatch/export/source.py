"""The run that is exported."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from melpatch.config import check
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
        licence: of the weights, by the Hub's name for it; None if it is not known.
    """

    folder: Path
    model: Model
    pooling: str | None = None
    quantize: Literal["int8"] | None = None
    sounds: tuple[str, ...] = ()
    licence: str | None = None

    def __post_init__(self) -> None:
        """Check the licence."""
        fits = self.licence is None or re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.licence)
        check(
            bool(fits),
            "licence",
            self.licence,
            "a name of the Hub's, such as apache-2.0, cc-by-4.0",
        )

    @property
    def classifier(self) -> Classify | None:
        """The objective if it predicts labels; None for an encoder."""
        objective = self.model.objective
        return objective if isinstance(objective, Classify) else None
