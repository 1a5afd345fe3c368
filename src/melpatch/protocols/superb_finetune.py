"""SUPERB's head with the encoder trained too, as SSAST, MAE-AST and ASiT report it; not what the leaderboard ranks."""

from dataclasses import dataclass, replace
from typing import ClassVar

from melpatch.evaluation.rounds import Choice
from melpatch.protocols.base import EvaluationJob
from melpatch.protocols.finetune import FineTune
from melpatch.training.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class SuperbFinetune(FineTune):
    """The whole network fine-tuned under SUPERB's head: a learned mix of all layers, a projection, the mean over time.

    A score of it stands beside the "SUPERB" columns of those papers, never beside the leaderboard's, where the encoder
    is frozen (``superb_frozen``). Recipes for speakers and emotions are ``ssast_speakers`` and ``ssast_emotion``.

    Source: Gong et al. 2022 (arXiv 2110.09784), table 2, and the published scripts for s3prl; the weights of the
    best development score are those that are tested. *Differs:* the fifth that chooses where there is no split ``val``,
    as of emotions, is of each class and of whole speakers (s3prl draws it clip by clip); all layers are mixed for every
    task, where MAE-AST takes the last one for keywords and emotions (``--set "flags=--objective.layers last"``).
    """

    version: ClassVar[int] = 2  # 1 held out a tenth, without regard to groups
    choice: ClassVar[Choice] = "held out"
    held_out: ClassVar[float] = (
        0.2  # as of emotions, the one task of SUPERB's without clips to choose by
    )
    selection: ClassVar[str] = (
        "the weights of the best validation score; the encoder is trained too, so this is no SUPERB of the leaderboard"
    )

    recipe: str = "ssast_keywords"
    """A recipe that learns from labels (melpatch list recipes); its head is replaced by SUPERB's."""

    def starting(self, job: EvaluationJob) -> RunConfig:
        """See :meth:`melpatch.protocols.finetune.FineTune.starting`; with SUPERB's head."""
        settings = super().starting(job)
        return replace(
            settings,
            objective=replace(settings.objective, layers="mix", projection=256, pooling="mean"),
        )
