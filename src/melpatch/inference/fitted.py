"""Short vectors: a pooling whose vectors are standardised and turned onto their principal axes.

A pooling that keeps deviation and differences of every row is long, and its numbers are correlated
and on different scales. ``melpatch fit-embedding`` learns from unlabelled clips the mean and
deviation of each number and the principal axes of what remains, and keeps them in the run folder;
the pooling ``fitted`` then gives vectors of few numbers, of nearly equal variance where they are
whitened.
"""

import hashlib
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from melpatch.checkpoint import load_weights, save_weights
from melpatch.errors import CheckpointError, ConfigError, SettingError
from melpatch.nn.pooling import Pooling

FITTED = "fitted"
"""The spelling of the pooling that is kept with a run."""
FILE = "embedding.safetensors"
"""Its file in the run folder."""
_AGAIN = "run melpatch fit-embedding again"


@dataclass(frozen=True)
class FittedPooling(Pooling):
    """A pooling with a linear map of its vectors.

    Attributes:
        mean: mean of each number of a vector over the clips that it was fitted on.
        axes: (number, dim), what the rest is multiplied with.
    """

    mean: Tensor = field(kw_only=True, repr=False, compare=False)
    axes: Tensor = field(kw_only=True, repr=False, compare=False)
    digest: str = field(kw_only=True)
    """Hash of both, so that vectors of another fit are told apart."""

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.axes.shape[1]

    @property
    def pooled(self) -> Pooling:
        """The pooling without the map."""
        return Pooling(**{own.name: getattr(self, own.name) for own in fields(Pooling)})

    def finish(self, vector: Float[Tensor, "*clip number"]) -> Float[Tensor, "*clip dim"]:
        """Return the mapped vector, in the arithmetic of the given one.

        Raises:
            ConfigError: it is not of the encoder that the map was fitted on.
        """
        if vector.shape[-1] != len(self.mean):
            raise ConfigError(
                f"{FILE} is for vectors of {len(self.mean)} numbers, and {self.pooled} has "
                f"{vector.shape[-1]} here; {_AGAIN}"
            )
        return (vector - self.mean.to(vector)) @ self.axes.to(vector)

    def __str__(self) -> str:
        """Return the name, what is mapped, the length, and the hash."""
        return f"{FITTED} ({self.pooled} to {self.dim}, {self.digest})"


def fitted_pooling(
    pooling: Pooling, mean: Float[Tensor, " number"], axes: Float[Tensor, "number dim"]
) -> FittedPooling:
    """Return a pooling with a map of its vectors."""
    digest = hashlib.blake2b(str(pooling).encode(), digest_size=4)
    for values in (mean, axes):
        digest.update(values.float().contiguous().numpy().tobytes())
    own = {own.name: getattr(pooling, own.name) for own in fields(Pooling)}
    return FittedPooling(**own, mean=mean, axes=axes, digest=digest.hexdigest())


def write_fitted(path: Path, pooling: FittedPooling, weights: str) -> None:
    """Write a fitted pooling, with a hash of the weights whose vectors it is of."""
    about = {"pooling": str(pooling.pooled), "weights": weights}
    save_weights(path, {"mean": pooling.mean, "axes": pooling.axes}, about)


def fitted_of_run(run: Path) -> FittedPooling:
    """Return the fitted pooling of a run.

    Raises:
        CheckpointError: the file is damaged, or was fitted on other weights.
        ConfigError: there is none.
    """
    if not (run / FILE).exists():
        raise ConfigError(
            f"pooling = {FITTED!r}: {run} has none; fit it with "
            f"melpatch fit-embedding {run} --data ..."
        )
    return read_fitted(run / FILE, hash_of_weights(run), _AGAIN)


def read_fitted(path: Path, weights: str, remedy: str) -> FittedPooling:
    """Return the fitted pooling that a file holds.

    Args:
        path: the file.
        weights: hash of the weights whose vectors it is to be of.
        remedy: what to do about one that cannot be used.

    Raises:
        CheckpointError: the file is damaged, or was fitted on other weights.
    """
    state = load_weights(path)
    with safe_open(path, "pt") as file:
        about = file.metadata() or {}
    if about.get("weights") != weights:
        raise CheckpointError(f"{path}: was fitted on other weights than the run's; {remedy}")
    mean = state.get("mean", torch.empty(0)).float()
    axes = state.get("axes", torch.empty(0)).float()
    if mean.ndim != 1 or axes.ndim != 2 or len(mean) != len(axes):
        raise CheckpointError(f"{path}: holds no mean with its axes; {remedy}")
    return fitted_pooling(Pooling.parse(about.get("pooling")), mean, axes)


def require_spelling(pooling: object) -> None:
    """Raise ConfigError unless a text is the name of a fitted pooling, or spells another one."""
    if pooling == FITTED:
        return
    try:
        Pooling.parse(pooling)
    except SettingError as error:
        allowed = f"{error.allowed}; or {FITTED}, after melpatch fit-embedding"
        raise SettingError(error.field, pooling, allowed) from error


def hash_of_weights(folder: Path) -> str:
    """Return a hash of the weights of a run.

    Raises:
        OSError: there are none, or they cannot be read.
    """
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
