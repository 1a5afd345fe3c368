"""Train SUPERB's head and the encoder too, as SSAST, MAE-AST and ASiT report it.

The public leaderboard of SUPERB ranks frozen encoders only.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.splits import ValidationSource
from melpatch.protocols.finetune import FineTune
from melpatch.training.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class SuperbFinetune(FineTune):
    """The whole network fine-tuned under SUPERB's head: a learned mix of all layers, a projection, the mean over time.

    Compare its scores with the "SUPERB" columns of those papers, never with the leaderboard's,
    where the encoder is frozen (``superb_frozen``). Recipes for speakers and emotions are
    ``ssast_speakers`` and ``ssast_emotion``.

    Source: Gong et al. 2022 (arXiv 2110.09784), table 2, and the published scripts for s3prl; the
        weights with the
    best development score are tested. *Differs:* the fifth that validates where there is no split
    ``val``, as for emotions, is drawn per class and in whole speakers (s3prl draws it clip by
    clip); all layers are mixed for every task, where MAE-AST takes the last one for keywords and
    emotions (``--set "flags=--objective.layers last"``).
    """

    # Version 1 held out a tenth, without regard to groups.
    version: ClassVar[int] = 2
    validation: ClassVar[ValidationSource] = "held out"
    # As for emotions, the one task of SUPERB without validation clips.
    held_out_share: ClassVar[float] = 0.2
    selection_rule: ClassVar[str] = (
        "the weights with the best validation score; the encoder is trained too, unlike on the SUPERB leaderboard"
    )

    recipe: str = "ssast_keywords"
    """A recipe that learns from labels (melpatch list recipes); its head is replaced by SUPERB's."""

    def base_settings(self, job: EvaluationJob) -> RunConfig:
        """See :meth:`melpatch.protocols.finetune.FineTune.base_settings`; with SUPERB's head."""
        settings = super().base_settings(job)
        return replace(
            settings,
            objective=replace(settings.objective, layers="mix", projection=256, pooling="mean"),
        )
