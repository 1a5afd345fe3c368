"""Fine-tune on AudioSet as AST publishes it, average the last weights, and score mAP.

Nothing is selected.
"""

from dataclasses import dataclass
from typing import ClassVar

from melpatch.errors import DataError
from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.splits import EvaluationSplit, ValidationSource
from melpatch.protocols.finetune import FineTune


@dataclass(frozen=True, kw_only=True)
class AudioSetMAP(FineTune):
    """AST's fine-tuning on clips with several labels: mAP, with mAUC and d' beside it.

    Source: Gong, Chung and Glass 2021 (arXiv 2104.01778), section 3.1, and the published code: the
        weights of epochs 6
    to 25 (balanced part) or of all 5 (whole set, recipe ``ast_audioset``) are averaged, and the
    test set is scored once. Clips of a split ``val`` are not used.
    """

    version: ClassVar[int] = 1
    validation: ClassVar[ValidationSource] = "none"
    selection_rule: ClassVar[str] = (
        "nothing is selected: the last epochs' weights averaged as the recipe says, or the last weights"
    )
    every_epoch: ClassVar[bool] = True

    recipe: str = "ast_audioset_20k"
    """A recipe that learns from labels (melpatch list recipes), such as ast_audioset or ssast_audioset_20k."""

    def metric(self, multi_label: bool) -> str:
        """Return mAP."""
        return "mAP"

    def splits(self, job: EvaluationJob) -> list[EvaluationSplit]:
        """See :meth:`melpatch.protocols.finetune.FineTune.splits`.

        Raises:
            DataError: no clip has several labels.
        """
        if not job.corpus.multi_label:
            raise DataError(
                f"{job.corpus.shown_name}: no clip has several labels, which audioset_map needs; "
                "give --protocol finetune"
            )
        return super().splits(job)
