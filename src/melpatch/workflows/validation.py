"""The scores of a classifier on validation clips during training."""

from dataclasses import dataclass

from melpatch.data.corpus import Corpus, label_matrix
from melpatch.errors import DataError
from melpatch.evaluation.metrics import validation_scores
from melpatch.inference.corpus import ClipTable, infer_clips
from melpatch.objectives.base import Objective
from melpatch.objectives.classify import Classify
from melpatch.training.config import RunConfig
from melpatch.training.start import plan


@dataclass(frozen=True)
class Validation:
    """The scores of a classifier on validation clips during training.

    Attributes:
        corpus: the validation clips.
        config: the run's settings.
        metric: a metric of :func:`melpatch.evaluation.metrics.validation_scores`.
        name: prefix of the metrics' names in the log.
    """

    corpus: Corpus
    config: RunConfig
    metric: str
    name: str = "val"

    def __call__(self, objective: Objective, step: int) -> dict[str, float]:
        """Return the metrics under their prefixed names, such as ``val_accuracy``.

        Raises:
            DataError: the metric is not defined on these clips.
        """
        scores = self.scores(self.table(objective))
        return {f"{self.name}_{metric}": value for metric, value in scores.items()}

    def scores(self, table: ClipTable) -> dict[str, float]:
        """Return the metric, and those beside it, of the probabilities that :meth:`table` returned.

        Raises:
            DataError: the metric is not defined on these clips.
        """
        labels = self.config.labels
        targets = label_matrix(table.clips, labels)
        multi_label = self.config.objective.multi_label
        scores = validation_scores(table.rows, targets, labels, multi_label, self.metric)
        if scores[self.metric] is None:
            raise DataError(
                f"{self.corpus.shown_name}: no class has validation clips both with and without it, "
                f"so {self.metric} is not defined; validate on more clips, or on another --val-fold"
            )
        return {metric: value for metric, value in scores.items() if value is not None}

    def table(self, objective: Objective) -> ClipTable:
        """Return the probability of each label for each readable clip.

        Raises:
            TypeError: the objective is not a classifier.
        """
        if not isinstance(objective, Classify):
            raise TypeError("validation takes a classifier")
        # The micro-batches of training, so that validation needs no more memory.
        device = next(objective.parameters()).device
        return infer_clips(
            lambda batch: objective.probabilities(batch.to(device)),
            self.corpus.clips,
            sample_rate=objective.front_end.sample_rate,
            seconds=self.config.loader.seconds,
            batch_size=plan(self.config, self.corpus).micro_batch_size,
        )
