"""No objective: an encoder of other code that is used as it is, for its embeddings.

Nothing trains with it. A run of another objective starts from such an encoder with ``--init``.
"""

from dataclasses import dataclass

from melpatch.data.clip import Batch
from melpatch.errors import ConfigError
from melpatch.objectives.base import Objective, ObjectiveOutput


class EncoderOnly(Objective):
    """A front end and an encoder, without a loss."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """There are no settings."""

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Refuse to train.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("an encoder without an objective has no loss; pretrain with --init of it")
