"""A custom encoder written against the contract alone: convolutions in each patch, then attention.

None of its names are those of a ViT: its layers are called ``mixers``, its special tokens
``registers``, and its learned positions are the sum of a code per row and a code per column.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melpatch.config import check
from melpatch.encoders.base import Encoded, Encoder, EncoderConfig, TokenEncoder
from melpatch.errors import ConfigError
from melpatch.nn.grid import PatchGrid, Places
from melpatch.nn.pooling import LayerOutputs
from melpatch.nn.transformer import Block

WIDTHS = {"nano": 24, "mini": 48, "tiny": 96, "small": 192, "base": 384, "large": 768}


class ToyHybrid(TokenEncoder):
    """Two 3 x 3 convolutions in each patch, then attention blocks on patches and two registers."""

    @dataclass(frozen=True, kw_only=True)
    class Config(EncoderConfig):
        """Settings of the toy encoder."""

        width: int = 24
        """Channels of a token; a multiple of 3, the number of attention heads."""
        mixers: int = 2
        """Number of layers."""
        patch: tuple[int, int] = (8, 8)
        """Patch size (mels, frames)."""
        horizon: int = 64
        """Number of patches along time that have a learned code."""

        def __post_init__(self) -> None:
            check(self.width % 3 == 0, "width", self.width, "a multiple of 3")

        @classmethod
        def of_size(cls, size: str, **settings: Any) -> "ToyHybrid.Config":
            """Return the settings of a named size."""
            check(size in WIDTHS, "size", size, ", ".join(WIDTHS))
            return cls(**{"width": WIDTHS[size], **settings})

        def grid(self, n_mels: int) -> PatchGrid:
            """Return the grid, without overlap."""
            return PatchGrid(n_mels=n_mels, patch=self.patch, stride=self.patch)

        def fit_positions(self, n_mels: int, frames: int) -> "ToyHybrid.Config":
            """Return the settings with a code for each column of a spectrogram of these frames."""
            return replace(self, horizon=self.grid(n_mels).columns(frames))

    def __init__(
        self, config: Config | None = None, n_mels: int = 128, *, size: str | None = None
    ) -> None:
        super().__init__()
        config = self.resolve(config, size)
        self.config = config
        self.grid = config.grid(n_mels)
        self.embed_dim = config.width
        self.num_layers = config.mixers
        self.num_cls_tokens = 2
        self.texture = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 4, 3, padding=1), nn.GELU()
        )
        self.fold = nn.Linear(4 * self.grid.pixels, config.width)
        self.pitch_code = nn.Parameter(0.02 * torch.randn(self.grid.rows, config.width))
        self.time_code = nn.Parameter(0.02 * torch.randn(config.horizon, config.width))
        self.registers = nn.Parameter(0.02 * torch.randn(2, config.width))
        self.mixers = nn.ModuleList(Block(config.width, 3) for _ in range(config.mixers))
        self.calm = nn.LayerNorm(config.width)

    def ordered_layers(self) -> Sequence[nn.Module]:
        """Return the mixers."""
        return [*self.mixers]

    def final_layers(self) -> Sequence[nn.Module]:
        """Return the last norm."""
        return [self.calm]

    def learned_tokens(self) -> Set[str]:
        """Return the names of the codes and registers."""
        return {"pitch_code", "time_code", "registers"}

    def match_geometry(self, target: Encoder, how: str | None = None) -> None:
        """Cut the time code, or repeat its last column, to the length of the target."""
        if isinstance(target, ToyHybrid):
            missing = target.config.horizon - self.config.horizon
            code = self.time_code.detach()[: target.config.horizon]
            last = code[-1:].expand(max(missing, 0), -1)
            self.time_code = nn.Parameter(torch.cat([code, last]))
            self.config = replace(self.config, horizon=target.config.horizon)

    def embed(self, spectrogram: Tensor) -> Tensor:
        """Return the embedded patches; the convolutions do not cross patch borders."""
        patches = self.grid.split(spectrogram)
        textured = self.texture(patches.reshape(-1, 1, *self.grid.patch))
        return self.fold(textured.flatten(1)).view(*patches.shape[:2], -1)

    def positions(self, columns: int) -> Tensor:
        """Return the sum of both codes for each patch."""
        if columns > len(self.time_code):
            raise ConfigError(f"columns = {columns}; allowed: up to {len(self.time_code)}")
        return (self.pitch_code[:, None] + self.time_code[:columns]).flatten(0, 1)

    def encode_tokens(
        self,
        tokens: Tensor,
        valid: Tensor | None = None,
        layers: LayerOutputs = False,
        places: Places | None = None,
    ) -> Encoded:
        """Return the encoded tokens and registers; the registers come first in the sequence."""
        registers = self.registers.to(tokens.dtype).expand(len(tokens), -1, -1)
        x = torch.cat([registers, tokens], dim=1)
        mask = None if valid is None else F.pad(valid, (2, 0), value=True)[:, None, None]
        outputs = []
        for mixer in self.mixers:
            x = mixer(x, mask)
            outputs.append(x)
        x = self.calm(x)
        return Encoded(x[:, 2:], x[:, :2], tuple(outputs) if layers else ())
