"""Fine-tune on ESC-50 as AST does, with the epoch that is best on a fold that is not scored."""

from dataclasses import dataclass
from typing import ClassVar

from melpatch.evaluation.splits import ValidationSource
from melpatch.protocols.finetune import FineTune


@dataclass(frozen=True, kw_only=True)
class ESC50Clean(FineTune):
    """AST's fine-tuning on five folds with an honest choice of the epoch.

    Source: the settings of :func:`melpatch.recipes.ast.ast_esc50` and the split of HEAR 2021
        (Turian et al. 2022, arXiv
    2203.03022): each fold is scored once, the one after it validates, the others train. That is a
    quarter fewer training clips than ``esc50_ast`` has.
    """

    version: ClassVar[int] = 1
    validation: ClassVar[ValidationSource] = "next fold"
    selection_rule: ClassVar[str] = (
        "the epoch that is best on the fold after the scored one, which does not train"
    )
    every_epoch: ClassVar[bool] = True

    recipe: str = "ast_esc50"
    """A recipe that learns from labels (melpatch list recipes), such as ssast_esc50 or asit_esc50."""
