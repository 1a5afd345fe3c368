"""Embedding health: whether clips' embeddings still differ, and in how many directions."""

import math
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from melpatch import distributed
from melpatch.data.corpus import Corpus
from melpatch.data.loader import evaluation_batches
from melpatch.data.segments import crop
from melpatch.encoders.base import Encoder
from melpatch.errors import MelpatchError
from melpatch.nn.pooling import pool
from melpatch.objectives.base import Objective
from melpatch.progress import notice
from melpatch.training.config import RunConfig
from melpatch.training.start import plan

# Clips that are embedded at every evaluation.
_CLIPS = 256


def effective_rank(embeddings: Float[Tensor, "clip dim"]) -> float:
    """Return the effective rank of the centred embeddings; 0 if they do not vary.

    NaN if an embedding is not finite.

    Source: Roy and Vetterli 2007, "The effective rank"; used as a measure of collapse in Garrido et
    al. 2023, "RankMe".
    """
    centred = embeddings.double() - embeddings.double().mean(dim=0)
    if not centred.isfinite().all():
        return math.nan
    singular = torch.linalg.svdvals(centred)
    if singular.sum() < 1e-12:
        return 0.0
    # exp(-sum of p_k log p_k), the exponential of the entropy of p_k = s_k / sum of s.
    share = singular / singular.sum()
    return float(torch.exp(-(share * torch.log(share.clamp(min=1e-12))).sum()))


def health(embeddings: Float[Tensor, "clip dim"]) -> dict[str, float]:
    """Return ``embedding_std`` (std over clips, mean over dimensions) and ``effective_rank``."""
    return {
        "embedding_std": float(embeddings.double().std(dim=0).mean()),
        "effective_rank": effective_rank(embeddings),
    }


def collapse_warning(now: dict[str, float], start: dict[str, float]) -> str | None:
    """Return a warning if the embeddings have collapsed since the start of the run, else None."""
    if now["embedding_std"] < 0.01 * start["embedding_std"]:
        change = f"their std fell from {start['embedding_std']:.3g} to {now['embedding_std']:.3g}"
    elif now["effective_rank"] < min(1.5, 0.5 * start["effective_rank"]):
        change = (
            f"their effective rank fell from {start['effective_rank']:.1f} "
            f"to {now['effective_rank']:.1f}"
        )
    else:
        return None
    return (
        f"the clips' embeddings collapse: {change}; lower --lr, lengthen --lr-warmup, "
        "or look at the corpus for silent clips"
    )


class EmbeddingHealth:
    """Spread and rank of the embeddings of a fixed set of training clips.

    An ``evaluate`` for :func:`melpatch.training.loop.fit`. Build it before ``fit``: the values at
    the start of the run are measured at once.

    Args:
        corpus: the training clips; the 256 with the lowest keys are measured.
        config: the settings of the run.
        objective: what will be trained, before its first step.

    Attributes:
        clips: the measured segments, each as long as the encoder's input.
        start: the values before the first step; empty if fewer than two clips can be read.
    """

    def __init__(self, corpus: Corpus, config: RunConfig, objective: Objective) -> None:
        chosen = sorted(corpus.clips, key=lambda clip: clip.key)[:_CLIPS]
        seconds = objective.input_seconds(config.objective, config.loader.seconds)
        self.clips = [crop(clip, seconds, config.seed, 0) for clip in chosen]
        self.batch_size = plan(config, corpus).micro_batch_size
        # A teacher starts as a copy of this encoder, so the values at the start hold for both.
        with torch.no_grad():
            self.start = self._measure(objective.eval(), objective.encoder)
        if self.start is None:
            raise MelpatchError(
                "the embeddings are no finite numbers before the first step; give other weights "
                "with --init, or look at the corpus for samples far beyond [-1, 1]"
            )

    def __call__(self, objective: Objective, step: int) -> dict[str, float]:
        """Return std and effective rank of the exported encoder; print a notice on collapse."""
        now = self._measure(objective, objective.export_encoder())
        if now is None:
            return {}
        if now and self.start:
            warning = collapse_warning(now, self.start)
            if warning:
                notice(f"step {step}: {warning}")
        return now

    def _measure(self, objective: Objective, encoder: Encoder) -> dict[str, float] | None:
        """Return std and effective rank; nothing if fewer than two clips can be read.

        None if all clips can be read but the embeddings are no finite numbers.

        A collective call.
        """
        device = next(encoder.parameters()).device
        # Each rank embeds its shard of the clips; then every rank has all embeddings.
        own_clips = distributed.shard_of_rank(self.clips)
        sample_rate = objective.front_end.sample_rate
        own: list[Tensor] = []
        for loaded in evaluation_batches(own_clips, sample_rate, batch_size=self.batch_size):
            if loaded.batch is None:
                continue
            spectrogram, valid = objective.features(loaded.batch.to(device))
            encoded = encoder(spectrogram, valid)
            pooled = pool(encoded.patches, encoded.cls, valid, encoder.grid.rows, "mean")
            own.append(pooled.float().cpu())
        embeddings = list(chain.from_iterable(distributed.all_gather_objects(own)))
        if sum(map(len, embeddings)) < 2:
            return {}
        together = torch.cat(embeddings)
        together = together[together.isfinite().all(dim=1)]
        if len(together) < 2:
            return None
        return health(together)
