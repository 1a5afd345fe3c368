"""Pretrain an encoder on unlabelled audio."""

from melpatch.commands.base import read_pretrain_flags
from melpatch.workflows.pretrain import PretrainConfig as Config
from melpatch.workflows.pretrain import pretrain

TOGETHER = True


def parse(arguments: list[str]) -> Config:
    """Return the config that the arguments spell; the first word is the recipe."""
    return read_pretrain_flags(arguments, __doc__ or "")


def run(config: Config) -> None:
    """Pretrain, and leave a run folder."""
    pretrain(config)
