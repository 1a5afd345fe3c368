"""Fit short embeddings of a run to unlabelled audio."""

from melpatch.workflows.fit_embedding import FitEmbeddingConfig as Config
from melpatch.workflows.fit_embedding import fit_embedding


def run(config: Config) -> None:
    """Leave what is fitted in the run folder, for ``--pooling fitted``."""
    fit_embedding(config)
