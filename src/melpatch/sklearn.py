"""A trained encoder as a transformer of scikit-learn: from recordings to one vector each.

>>> from melpatch.sklearn import Embedder
>>> pipeline = make_pipeline(Embedder("runs/a"), StandardScaler(), LogisticRegression())
>>> pipeline.fit(paths, labels).predict(["dawn.flac"])
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_array
from sklearn.utils.validation import check_is_fitted

from melpatch.config import check
from melpatch.errors import CheckpointError, ConfigError
from melpatch.inference.fitted import hash_of_weights
from melpatch.inference.model import FilePath, Model, load
from melpatch.inference.network import Precision
from melpatch.training.config import require_run

Recordings = Any
"""A list or array of file names; an array (recording, sample); or a list of recordings of any
lengths, each as a file name, an array or a tensor, see :data:`melpatch.inference.samples.Audio`."""


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """One vector per recording, from the frozen encoder of a run.

    Nothing is learnt in :meth:`fit`, which notes the weights. The estimator itself stays small: a
    pickle or a clone names the run folder, and needs it to be there and unchanged. One network at a
    time stays loaded in each process.

    Args:
        run: folder of the run, or what ``melpatch.pretrain`` returned.
        sample_rate: rate of samples in Hz; files state their own.
        pooling: tokens to vector, see :meth:`melpatch.Model.embed`.
        layer: layer whose output is pooled, see :meth:`melpatch.Model.embed`.
        device: where to compute; a GPU if there is one.
        precision: arithmetic of the network.
        batch_size: windows at a time; by default 8, and 64 on a GPU.
        workers: processes that decode, for a list of files; by default none, and up to 8 per GPU.
        trust_code: whether the run may name code outside melpatch, which is then run.

    Attributes:
        pooling_: the pooling, spelled out.
        weights_: hash of the run's weights; other weights are refused until the next fit.
    """

    def __init__(
        self,
        run: FilePath,
        *,
        sample_rate: int | None = None,
        pooling: str | None = None,
        layer: int | None = None,
        device: str | None = None,
        precision: Precision = "32-true",
        batch_size: int | None = None,
        workers: int | None = None,
        trust_code: bool = False,
    ) -> None:
        self.run = run
        self.sample_rate = sample_rate
        self.pooling = pooling
        self.layer = layer
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.workers = workers
        self.trust_code = trust_code

    def fit(self, X: Recordings, y: object = None) -> "Embedder":  # noqa: N803 - scikit-learn's names
        """Check the settings and the kind of the recordings, of which none is read.

        Args:
            X: the recordings.
            y: not used.

        Raises:
            ConfigError: the run cannot be opened, or has no such pooling.
            ValueError: these are no recordings.
        """
        recordings_of(X)
        opened = self._opened()
        # As long as it takes to know the length of a vector.
        silence = np.zeros(1, np.float32)
        vector = opened.model.embed(
            silence, opened.model.sample_rate, pooling=self.pooling, layer=self.layer
        )
        self.pooling_ = self._spelled(opened.model)
        self.weights_ = opened.weights
        self._n_features_out = len(vector)
        return self

    def transform(self, X: Recordings) -> Float[np.ndarray, "recording dim"]:  # noqa: N803
        """Return one vector per recording, in float32.

        Args:
            X: the recordings; lengths may differ from those in :meth:`fit`.

        Raises:
            AudioError: a file cannot be read.
            CheckpointError: the run's weights or its fitted pooling are others than in :meth:`fit`.
            ConfigError: samples are no audio, or their rate is not given.
            ValueError: these are no recordings.
        """
        check_is_fitted(self)
        recordings = recordings_of(X)
        opened = self._opened()
        if (opened.weights, self._spelled(opened.model)) != (self.weights_, self.pooling_):
            raise CheckpointError(
                f"{self.run}: its weights or pooling have changed since fit; fit again"
            )
        if all(isinstance(recording, str | PathLike) for recording in recordings):
            vectors = self._of_files(opened.model, recordings)
        else:
            vectors = opened.model.embed_each(
                recordings,
                self.sample_rate,
                pooling=self.pooling,
                layer=self.layer,
                batch_size=self.batch_size,
            )
        return np.stack([*vectors])

    def __sklearn_tags__(self) -> Tags:
        """Return what scikit-learn may expect of the input and output."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _spelled(self, model: Model) -> str:
        return str(model.network.resolve_pooling(self.pooling, self.layer))

    def _of_files(self, model: Model, files: Sequence[FilePath]) -> Iterable[Any]:
        embeddings = model.embed_many(
            files,
            pooling=self.pooling,
            layer=self.layer,
            batch_size=self.batch_size,
            workers=self.workers,
        )
        return (vector for _, vector in embeddings)

    def _opened(self) -> "_Opened":
        is_path = isinstance(self.run, str | PathLike)
        check(
            is_path, "run", self.run, "the folder of a run, so that copies and pickles stay small"
        )
        require_run(Path(self.run))
        folder = Path(self.run).resolve()
        state = tuple(_state(folder / name) for name in ("config.toml", "model.safetensors"))
        return _open(folder, state, self.device, self.precision, self.trust_code)


def recordings_of(given: Recordings) -> list[Any]:
    """Return the recordings of what scikit-learn calls X: file names, or samples.

    Raises:
        ValueError: an array is no array of recordings; the words are those of scikit-learn.
        ConfigError: it is a single file, or there is no recording.
    """
    if isinstance(given, str | PathLike):
        raise ConfigError(f"X = {str(given)!r}; allowed: a list of files, such as [{str(given)!r}]")
    if isinstance(given, list | tuple) and not _is_flat(given):
        recordings = [*given]
    else:
        array = given if hasattr(given, "toarray") else np.asarray(given)
        if getattr(array, "dtype", None) is not None and array.dtype.kind in "OUST":
            recordings = _column(array)
        else:
            # Each row is a recording, or (channel, sample) of one.
            recordings = [*check_array(array, dtype="numeric", allow_nd=True)]
    if not recordings:
        raise ConfigError("X: there is no recording; give at least one")
    return recordings


def _is_flat(given: Sequence[Any]) -> bool:
    """Return whether a list holds nothing but numbers: the samples of a single recording."""
    return bool(given) and all(isinstance(value, int | float | np.number) for value in given)


def _column(array: np.ndarray) -> list[Any]:
    """Return the entries of an array of objects or of a table of one column; of others the rows."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 1:
        return [*array]
    return [*check_array(array, dtype="numeric")]


class _Opened(NamedTuple):
    """A loaded model."""

    model: Model
    weights: str
    """Hash of its weights."""


@lru_cache(maxsize=1)
def _open(
    folder: Path,
    state: tuple[tuple[int, int] | None, ...],
    device: str | None,
    precision: Precision,
    trust_code: bool,
) -> _Opened:
    """Return the model of a run, which stays loaded as long as its files have this state.

    The estimators of a cross-validation share it.
    """
    model = load(folder, device, precision, trust_code=trust_code)
    return _Opened(model, hash_of_weights(folder))


def _state(path: Path) -> tuple[int, int] | None:
    """Return time and size of a file; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        # What is missing is said once the run is loaded.
        return None
    return status.st_mtime_ns, status.st_size
