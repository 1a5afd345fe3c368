"""Fit short vectors to unlabelled clips, and keep them with a run as the pooling ``fitted``."""

from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np
import tyro

from melpatch.audio.files import Channel
from melpatch.config import check, check_batch_size, check_workers
from melpatch.counted import counted
from melpatch.data.corpus import Corpus
from melpatch.errors import ConfigError
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.inference.components import RIDGE, fit
from melpatch.inference.fitted import FILE, FITTED, FittedPooling, hash_of_weights, write_fitted
from melpatch.inference.model import load
from melpatch.nn.pooling import DEFAULT_POOLING
from melpatch.only_writer import only_writer
from melpatch.progress import notice
from melpatch.training.config import RunConfig
from melpatch.weight_files import require_run_folder
from melpatch.workflows.corpus import read_corpus, without_splits


@dataclass(frozen=True, kw_only=True)
class FitEmbeddingConfig:
    """Which run's vectors to make short, and on which clips that is learnt."""

    run: tyro.conf.Positional[Path]
    """Run folder, which takes what is fitted."""
    data: tuple[str, ...]
    """Folders of audio or shards, or CSV files; labels are not used."""
    split_column: str = "split"
    """Column of the CSV files that holds the split or fold."""
    exclude_splits: tuple[str, ...] | None = None
    """Splits or folds that are left out; by default val and test, where they exist."""
    pooling: str = DEFAULT_POOLING
    """The vectors that are made short, spelled as for melpatch embed."""
    dim: int = 256
    """Length of the short vectors; fewer than there are clips."""
    whiten: bool = True
    """Give each number of a short vector the same variance."""
    ridge: float = RIDGE
    """What whitening adds to the variance of each principal component, in mean variances of one, so
    that components that are mostly chance stay small; 0 for variances of exactly 1."""
    clips: int | None = 20_000
    """Most clips to learn from, drawn at random."""
    seed: int = 0
    """Seed of this draw."""
    batch_size: int = 32
    """Windows at a time."""
    workers: int = 0
    """Processes that decode."""
    overwrite: bool = False
    """Replace what was fitted before."""
    trust_code: bool = False
    """Allow the run to name code outside melpatch, such as your own encoder; that code is run."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self.dim >= 1, "dim", self.dim, "1 or more")
        check(self.clips is None or self.clips >= 2, "clips", self.clips, "2 or more")
        check(0 <= self.ridge < inf, "ridge", self.ridge, "0 or more")
        check(self.pooling != FITTED, "pooling", self.pooling, "a pooling to start from")
        check_batch_size(self.batch_size)
        check_workers(self.workers)


def fit_embedding(config: FitEmbeddingConfig) -> FittedPooling:
    """Embed clips without their labels, fit, and write ``embedding.safetensors`` into the run.

    Raises:
        ConfigError: there is one already, the clips are too few, or the encoder has no such
            vectors.
        DataError: a source does not exist, or no clip can be read.
    """
    require_run_folder(config.run, "short embeddings")
    model = load(config.run, trust_code=config.trust_code)
    path = config.run / FILE
    if path.exists() and not config.overwrite:
        raise ConfigError(f"{path}: exists; give --overwrite to replace it")
    corpus = _clips(config, model.config.channel)
    features = FrozenFeatures.of_model(
        model, config.run / "features", batch_size=config.batch_size, workers=config.workers
    )
    with only_writer(path):
        pooling = features.source.resolve_pooling(config.pooling)
        vectors = features.vectors(corpus, str(pooling)).vectors
        fitted = fit(
            np.asarray(vectors), pooling, config.dim, whiten=config.whiten, ridge=config.ridge
        )
        write_fitted(path, fitted, hash_of_weights(config.run))
    notice(
        f"{path}: {pooling} with {counted(vectors.shape[1], 'number')}, fitted on "
        f"{counted(len(vectors), 'clip')} to {fitted.dim}; use it with "
        f"--pooling {FITTED}, or --set pooling={FITTED} in melpatch evaluate"
    )
    return fitted


def _clips(config: FitEmbeddingConfig, channel: Channel) -> Corpus:
    """Return the clips to fit on, without those of validation and test."""
    settings = RunConfig(data=config.data, split_column=config.split_column, channel=channel)
    corpus = without_splits(read_corpus(settings), config.exclude_splits)
    if config.clips is None or len(corpus.clips) <= config.clips:
        return corpus
    drawn = np.random.default_rng(config.seed).permutation(len(corpus.clips))[: config.clips]
    return replace(corpus, clips=tuple(corpus.clips[number] for number in sorted(drawn)))
