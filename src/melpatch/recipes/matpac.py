"""MATPAC and MATPAC++ as published, and MATPAC for short own clips."""

from dataclasses import replace

from melpatch.audio import front_ends
from melpatch.nn.distillation_settings import Classification
from melpatch.nn.hypotheses import Hypotheses
from melpatch.recipes.m2d import m2d, m2d_short
from melpatch.training.config import RunConfig


def matpac(size: str) -> RunConfig:
    """MATPAC as published: M2D's prediction and a classification of patches, each half of the loss.

    Source: Quelennec et al. 2025 (arXiv 2502.12031), section 3, and the published settings: 2048
    classes, heads with a momentum from 0.998 to 1, teacher temperature from 0.04 to 0.07 over 9,827
    of 294,816 steps of 2048 clips, 3e-4, warm-up over 19,654, norm of the gradient at most 3;
    otherwise :func:`melpatch.recipes.m2d.m2d`. *Differs*: classes are centred by the mean logits,
    as in DINO; there by the mean probabilities (``--objective.classification.centre
    probabilities``). Shorter clips are padded, not left out; epsilon of the optimiser is 1e-8,
    there 1e-6; the teachers move after the optimiser's step, there before it.
    """
    base = m2d(size)
    objective = replace(
        base.objective,
        standardise=False,
        classification=Classification(
            weight=0.5, momentum=0.998, temperature_warmup=9_827 / 294_816
        ),
    )
    return replace(
        base,
        # AudioSet's mean and std under this front end.
        front_end=replace(front_ends.m2d(), centred=False, mean=-7.056, std=4.193),
        objective=objective,
        # 608 frames
        loader=replace(base.loader, seconds=6.095),
        train=replace(
            base.train,
            steps=294_816,
            lr=3e-4,
            lr_warmup=19_654 / 294_816,
            accumulate=8,  # on one GPU; it stands for the eight
        ),
    )


def matpac_plusplus(size: str) -> RunConfig:
    """MATPAC++ as published: MATPAC with five hypotheses per patch (seven tasks, linear: 75.7 %).

    Source: Quelennec et al. 2025 (arXiv 2508.12709) and the published settings: temperature 0.1
    times 0.99997 per step down to 1e-4, which it reaches after 230,255 of 294,816 steps; then the
    best hypothesis alone. *Differs*: as :func:`matpac`.
    """
    base = matpac(size)
    hypotheses = Hypotheses(count=5, temperature=(0.1, 1e-4), share=230_255 / 294_816)
    return replace(base, objective=replace(base.objective, hypotheses=hypotheses))


def matpac_short(size: str) -> RunConfig:
    """MATPAC for your own short clips and few hours: any length, narrow heads, 256 classes.

    Source: :func:`melpatch.recipes.m2d.m2d_short` with the losses of :func:`matpac`; the heads are
    as much narrower as the encoder is, and their momentum follows batch size and length of the run.
    """
    base = m2d_short(size)
    width = base.encoder.embed_dim
    heads = Classification(
        weight=0.5,
        hidden_dim=2 * width,
        bottleneck_dim=max(32, width // 3),
        prototypes=256,
        temperature_warmup=0.1,
    )
    objective = replace(base.objective, standardise=False, classification=heads)
    return replace(base, objective=objective)
