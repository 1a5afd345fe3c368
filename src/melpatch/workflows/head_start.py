"""What the head of a network starts from: random weights, or the linear probe of its encoder.

Source: LP-FT (Kumar et al. 2022, arXiv 2202.10054). *Differs*: the head keeps the probe's pooling
and standardisation, and the weights at the start are one of those that validation chooses from.
"""

from collections import Counter
from dataclasses import replace
from statistics import median
from typing import Literal

from melpatch.config import check
from melpatch.data.corpus import Corpus
from melpatch.evaluation.select import linear_probe
from melpatch.recipes.base import recipe_settings
from melpatch.training.config import RunConfig
from melpatch.training.start import plan
from melpatch.workflows.frozen_probe import too_much_for_a_probe
from melpatch.workflows.initialize import SCRATCH

HeadStart = Literal["auto", "random", "probe"]
OWN_DATA = "finetune"
"""The recipe whose head may start from a probe unasked; those of papers start as published."""
FEW_LABELS = 20
"""Training clips per class (median) up to which a linear probe is usually as good as fine-tuning
from a random head, see lab/head-start.md."""
_OF_THE_HEAD = ("head", "pooling", "layers", "projection")


def starts_from_probe(
    asked: HeadStart,
    recipe: str,
    training: RunConfig,
    init: str,
    train: Corpus,
    val: Corpus | None,
) -> bool:
    """Return whether the head of a trained network starts from the linear probe of its encoder.

    ``auto`` does so for own data wherever the encoder is trained already, the head is the recipe's
    and the probe takes little beside the training, see lab/head-start.md. The same settings and
    clips always give the same answer, so that a resumed run has the head that it began with.

    Args:
        asked: what the user asks for.
        recipe: name of the recipe.
        training: settings of the classifier.
        init: what its encoder starts from.
        train: the training clips.
        val: the validation clips, if any.
    """
    if asked != "auto":
        return asked == "probe"
    if recipe != OWN_DATA or init == SCRATCH:
        return False
    usual = recipe_settings(recipe, "tiny", None, with_labels=True).objective
    if any(getattr(training.objective, name) != getattr(usual, name) for name in _OF_THE_HEAD):
        return False
    return too_much_for_a_probe(training, train, val, plan(training, train)) is None


def with_head_of_probe(training: RunConfig) -> RunConfig:
    """Return the settings of a classifier whose head can start from the linear probe.

    Raises:
        ConfigError: its head is of another kind.
    """
    objective = training.objective
    fits = objective.layers == "last" and not objective.projection
    check(fits, "head_start", "probe", "random where layers are mixed or tokens projected")
    pooling = linear_probe().pooling
    return replace(training, objective=replace(objective, head="standardised", pooling=pooling))


def describe_few_labels(train: Corpus) -> str | None:
    """Return a sentence if there are fewer labels than a random head can learn from."""
    counts = Counter(label for clip in train.clips for label in clip.labels)
    typical = median(counts.values())
    if typical > FEW_LABELS:
        return None
    return (
        f"{typical:g} training clips per class (median) are few for training a whole network from "
        "a random head; a linear probe is better, and takes seconds: --head linear, or train on from "
        "it with --head-start probe"
    )
