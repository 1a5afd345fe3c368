"""A decoder of convolutions over the grid of patches, for a predictor without attention.

Source: data2vec 2.0 (Baevski et al. 2022, arXiv 2212.07525), section 3, and EAT (Chen et al. 2024,
arXiv 2401.03497), published code.

>>> decoder = ConvDecoder(ConvDecoder.Config(depth=2, groups=4), dim=64)
>>> decoder(torch.zeros(3, 40, 64), size=(8, 5)).shape  # (clip, token, dim)
torch.Size([3, 40, 64])
"""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from melpatch.config import check


class ConvDecoder(nn.Module):
    """Grouped convolutions with LayerNorm, GELU and residuals, and a linear layer per token.

    *Differs*: padding is zero before every convolution, so that it cannot be seen.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of the decoder."""

        depth: int = 6
        """Number of convolutions."""
        kernel: int = 3
        """Side of a kernel, in patches; odd."""
        groups: int = 16
        """Groups of channels; must divide the encoder's channels."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            check(self.depth >= 1, "depth", self.depth, "1 or more")
            check(self.kernel >= 1 and self.kernel % 2 == 1, "kernel", self.kernel, "an odd number")
            check(self.groups >= 1, "groups", self.groups, "1 or more")

    def __init__(self, config: Config, dim: int) -> None:
        """Build the decoder.

        Args:
            config: its settings.
            dim: channels of a token.

        Raises:
            ConfigError: the groups do not divide the channels.
        """
        super().__init__()
        allowed = f"a divisor of {dim}, the encoder's channels"
        check(dim % config.groups == 0, "objective.decoder.groups", config.groups, allowed)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(dim, dim, config.kernel, padding=config.kernel // 2, groups=config.groups)
            for _ in range(config.depth)
        )
        self.head = nn.Linear(dim, dim)

    def least_values(self, tokens: int) -> int:
        """Return how many numbers a clip with ``tokens`` patches keeps at least for the backward pass."""
        # Of every convolution: its input, its output before the norm, and after it.
        return 3 * len(self.convolutions) * tokens * self.head.in_features

    def forward(
        self,
        tokens: Float[Tensor, "clip token dim"],
        size: tuple[int, int],
        valid: Bool[Tensor, "clip token"] | None = None,
    ) -> Float[Tensor, "clip token dim"]:
        """Return a token for every patch.

        Args:
            tokens: of every patch, numbered row by row.
            size: rows and columns of the grid.
            valid: False for padding, whose tokens are void; None if there is none.
        """
        dim = tokens.shape[2]
        image = tokens.transpose(1, 2).unflatten(2, size)  # type: ignore[no-untyped-call]
        inside = None
        if valid is not None:
            inside = valid.view(-1, 1, *size)
            image = image.where(inside, 0.0)
        for convolution in self.convolutions:
            convolved = convolution(image).movedim(1, -1)
            activated = F.gelu(F.layer_norm(convolved, (dim,))).movedim(-1, 1)
            image = image + activated
            if inside is not None:
                image = image.where(inside, 0.0)
        decoded: Tensor = self.head(image.flatten(2).transpose(1, 2))
        return decoded
