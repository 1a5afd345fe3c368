"""Fit a linear probe on k clips per class, drawn again under every seed."""

from dataclasses import dataclass
from typing import ClassVar

from melpatch.config import check
from melpatch.protocols.linear import Linear


@dataclass(frozen=True, kw_only=True)
class FewShot(Linear):
    """The linear probe on k clips per class; the score is the mean over draws."""

    num_seeds: ClassVar[int] = 5

    k: int = 10
    """Training clips per class; classes that have fewer give all they have."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check(self.k >= 1, "k", self.k, "1 or more")

    @property
    def most_labels_per_class(self) -> int:
        """See :attr:`melpatch.evaluation.protocol.Protocol.most_labels_per_class`."""
        return self.k
