"""Embedding health: whether clips' embeddings still differ, and in how many directions."""

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
from melpatch.objectives.latent import LatentObjective
from melpatch.progress import notice
from melpatch.training.config import RunConfig
from melpatch.training.rank import effective_rank
from melpatch.training.start import plan
from melpatch.training.target_health import PlacedTargets, sample, target_health, target_warning

# Clips that are embedded at every evaluation.
_CLIPS = 256


def health(embeddings: Float[Tensor, "clip dim"]) -> dict[str, float]:
    """Return ``embedding_std`` (std over clips, mean over dimensions) and ``effective_rank``."""
    return {
        "embedding_std": float(embeddings.double().std(dim=0).mean()),
        "effective_rank": effective_rank(embeddings),
    }


def collapse_warning(now: dict[str, float], start: dict[str, float]) -> str | None:
    """Return a warning if the embeddings have collapsed since the start of the run, else None."""
    # Either all clips come together in one point, or they come to lie on one line.
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
    """Spread and rank of the embeddings of a fixed set of training clips, and of a teacher's targets.

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
        """Return std and effective rank of the exported encoder, and what differs in the targets.

        Prints a notice on collapse.
        """
        now = self._measure(objective, objective.export_encoder())
        if now is None:
            return {}
        if not now or not self.start:
            return now
        warnings = [collapse_warning(now, self.start)]
        if "target_rank" in now.keys() & self.start.keys():
            warnings.append(target_warning(now, self.start))
        for warning in filter(None, warnings):
            notice(f"step {step}: {warning}")
        return now

    def _measure(self, objective: Objective, encoder: Encoder) -> dict[str, float] | None:
        """Return the numbers of all gauges; nothing if fewer than two clips can be read.

        None if all clips can be read but the embeddings are no finite numbers.

        A collective call.
        """
        device = next(encoder.parameters()).device
        # Each rank embeds its shard of the clips; then every rank has all embeddings.
        own_clips = distributed.shard_of_rank(self.clips)
        sample_rate = objective.front_end.sample_rate
        own: list[Tensor] = []
        own_targets: list[PlacedTargets] = []
        for loaded in evaluation_batches(own_clips, sample_rate, batch_size=self.batch_size):
            if loaded.batch is None:
                continue
            batch = loaded.batch.to(device)
            if isinstance(objective, LatentObjective):
                own_targets.append(sample(objective.masked_targets(batch, 0)))
            spectrogram, valid = objective.features(batch)
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
        targets = list(chain.from_iterable(distributed.all_gather_objects(own_targets)))
        return health(together) | target_health(targets)
