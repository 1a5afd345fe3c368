"""How unlike the training clips a clip is, from the vector that a classifier's head takes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

NONE_OF_THESE = "none of these"
"""What is said of a clip that is too unlike the training clips."""
FALSE_ALARMS = 0.05
"""Share of clips like the training ones that are called so, unless told otherwise."""
_PREFIX = "novelty."
_SHORTEST = 1e-9
"""The least squared length, in case that it is 0 or less by rounding."""
_ROUNDING = 1e-6
"""By how much a share in float32 may be off."""


def is_novel(
    ranks: Float[np.ndarray, "*clip"] | float, false_alarms: float = FALSE_ALARMS
) -> Bool[np.ndarray, "*clip"]:
    """Return whether clips are none of the classes.

    Args:
        ranks: how novel they are, see :meth:`Novelty.ranks`.
        false_alarms: share of clips like the training ones that may be called so; 0: none is.
    """
    return np.asarray((false_alarms > 0) & (np.asarray(ranks) >= 1 - false_alarms - _ROUNDING))


def clips_needed(false_alarms: float) -> int:
    """Return the least number of validation clips with which any clip can be novel."""
    return ceil(1 / false_alarms - _ROUNDING) - 1


@dataclass(frozen=True)
class Novelty:
    """A distance from training clips, and how large it is for validation clips.

    With z the standardised vector, V the main directions of the training clips and a_i their
    variances, two squared lengths are::

        sum_i (V_i z)^2 / a_i     along the main directions (Mahalanobis)
        |z|^2 - |V z|^2           across them

    The distance is how far their logarithms are from those of validation clips, in standard
    deviations, squared. So it is large also for what is nearer to the mean than any clip is, such
    as silence.

    Attributes:
        mean: mean of the training clips' vectors.
        scale: their standard deviations.
        directions: V divided by the square roots of the variances.
        variances: a.
        centre: mean of the two logarithms over validation clips.
        whitening: what makes them uncorrelated, with a deviation of 1.
        held_out: the distances of validation clips, ascending.
    """

    mean: Float[np.ndarray, " dim"]
    scale: Float[np.ndarray, " dim"]
    directions: Float[np.ndarray, "dim direction"]
    variances: Float[np.ndarray, " direction"]
    centre: Float[np.ndarray, "2"]
    whitening: Float[np.ndarray, "2 2"]
    held_out: Float[np.ndarray, " clip"]

    def log_lengths(self, vectors: Float[np.ndarray, "clip dim"]) -> Float[np.ndarray, "clip 2"]:
        """Return the logarithms of the two squared lengths."""
        standardised = (vectors.astype(np.float64) - self.mean) / self.scale
        along = (standardised @ self.directions) ** 2
        across = (standardised**2).sum(axis=1) - along @ self.variances
        lengths = np.stack([along.sum(axis=1), across], axis=1)
        logarithms: np.ndarray = np.log(np.maximum(lengths, _SHORTEST))
        return logarithms

    def distances(self, vectors: Float[np.ndarray, "clip dim"]) -> Float[np.ndarray, " clip"]:
        """Return how unlike the training clips vectors are; validation clips have 2 on average."""
        deviations = (self.log_lengths(vectors) - self.centre) @ self.whitening
        distances: np.ndarray = (deviations**2).sum(axis=1)
        return distances

    def ranks(self, vectors: Float[np.ndarray, "clip dim"]) -> Float[np.ndarray, " clip"]:
        """Return the share of validation clips, and the clip itself, to which the clip is unlike more.

        A clip that is like the validation clips has more than 1 - a in at most a share of a of all
        cases (a conformal p-value of at most a).
        """
        nearer = np.searchsorted(self.held_out, self.distances(vectors), side="left")
        ranks: np.ndarray = nearer / (len(self.held_out) + 1)
        return ranks

    def rank_vector(
        self, values: Float[np.ndarray, " value_and_dim"]
    ) -> Float[np.ndarray, " value_and_novelty"]:
        """Return values of a recording whose last ones are its vector, with its rank instead."""
        dim = len(self.mean)
        rank = self.ranks(values[None, -dim:])
        return np.concatenate([values[:-dim], rank.astype(values.dtype)])

    def digest(self) -> str:
        """Return a hash of everything, by which another novelty is noticed."""
        hashed = hashlib.blake2b(digest_size=8)
        for value in self.state().values():
            hashed.update(value.numpy().tobytes())
        return hashed.hexdigest()

    def state(self) -> dict[str, Tensor]:
        """Return everything as tensors by name."""
        return {
            _PREFIX + name: torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32))
            for name, value in vars(self).items()
        }

    @staticmethod
    def from_state(state: Mapping[str, Tensor], dim: int) -> "Novelty | None":
        """Return what :meth:`state` returned, among other tensors; None if it is not there.

        Args:
            state: tensors by name.
            dim: length of the vectors.

        Raises:
            KeyError: a part of it is missing.
            ValueError: a part has another shape.
        """
        if not any(name.startswith(_PREFIX) for name in state):
            return None
        names = tuple(Novelty.__annotations__)
        values = {name: state[_PREFIX + name].double().numpy() for name in names}
        number = values["variances"].size
        held_out = values["held_out"].size
        shapes = [(dim,), (dim,), (dim, number), (number,), (2,), (2, 2), (held_out,)]
        for name, shape in zip(names, shapes, strict=True):
            if values[name].shape != shape:
                raise ValueError(f"{_PREFIX}{name} of shape {values[name].shape}, not {shape}")
        if not values["scale"].all():
            raise ValueError("a scale of 0")
        return Novelty(**values)
