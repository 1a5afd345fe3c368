"""Which part of an encoder is trained: all of it, its last layers, or none."""

from collections.abc import Sequence

from torch import nn

from melpatch.config import check
from melpatch.encoders.base import Encoder


class TrainedPart:
    """The part of an encoder that is trained; the rest has no gradients and stays as it is.

    Args:
        encoder: the encoder.
        frozen: whether nothing is trained.
        layers: number of last layers to train, with the final norm; None for all.

    Raises:
        ConfigError: the encoder has no such number of layers, or is frozen.
    """

    def __init__(self, encoder: Encoder, frozen: bool, layers: int | None) -> None:
        most = encoder.num_layers
        fits = layers is None or 1 <= layers <= most
        check(fits, "objective.trained_layers", layers, f"1 to {most} in this encoder, or none")
        fits = layers is None or not frozen
        check(fits, "objective.trained_layers", layers, "none where the encoder is frozen")
        self.encoder = encoder
        self.modules: Sequence[nn.Module] = [encoder]
        if frozen:
            self.modules = []
        elif layers is not None:
            self.modules = [*encoder.ordered_layers()[-layers:], *encoder.final_layers()]
        encoder.requires_grad_(False)
        for module in self.modules:
            module.requires_grad_(True)

    def train(self, mode: bool) -> None:
        """Set training mode; the rest, dropout and running statistics too, is in evaluation."""
        self.encoder.train(False)
        for module in self.modules:
            module.train(mode)
