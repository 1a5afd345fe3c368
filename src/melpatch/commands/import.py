# ruff: noqa: N999 - the command is called so, and found by its name
"""Make a run of a published classifier or encoder: AST, SSAST, PANNs, BEATs, M2D, EAT and others."""

from melpatch.workflows.import_weights import ImportConfig as Config
from melpatch.workflows.import_weights import import_weights


def run(config: Config) -> None:
    """Write the run folder, and say what the file did not."""
    import_weights(config)
