"""Heads: small networks between an encoder's tokens and the loss.

>>> tokens = torch.zeros(4, 10, 192)  # (clip, token, dim)
>>> mlp_head(192, 256)(tokens).shape  # predicted pixels of 16 x 16 patches
torch.Size([4, 10, 256])
>>> heads = DistillationHeads(
...     192, 2048, 256, {"global": 8192, "local": 1024}, shared="trunk", train_gain=False
... )
>>> logits = F.linear(heads.project(tokens, "local"), heads.prototypes_for("local"))
>>> logits.shape
torch.Size([4, 10, 1024])
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from melpatch.nn.transformer import init_linear

Sharing = Literal["trunk", "none", "all"]


def mlp_head(in_dim: int, out_dim: int) -> nn.Sequential:
    """Return Linear, ReLU, Linear with a hidden layer as wide as its input.

    Source: the prediction heads of SSAST (Gong et al. 2022, section 2.3, and the published code).
    """
    return nn.Sequential(nn.Linear(in_dim, in_dim), nn.ReLU(), nn.Linear(in_dim, out_dim))


def linear_head(in_dim: int, out_dim: int, norm_eps: float = 1e-5) -> nn.Sequential:
    """Return LayerNorm, Linear: the classification head of AST and SSAST, as published."""
    return nn.Sequential(nn.LayerNorm(in_dim, eps=norm_eps), nn.Linear(in_dim, out_dim))


def gelu_mlp(widths: tuple[int, ...], *, last: bool) -> nn.Sequential:
    """Return an MLP of these widths, the input's first, with a GELU between its layers.

    With ``last`` a GELU follows the last layer too. Weights start truncated-normal with standard
    deviation 0.02 and biases at 0, as in the published DINO and ASiT.
    """
    layers: list[nn.Module] = []
    for ins, outs in pairwise(widths):
        layers += [nn.Linear(ins, outs), nn.GELU()]
    if not last:
        layers = layers[:-1]
    return nn.Sequential(*layers).apply(init_linear)


class Standardise(nn.Module):
    """Subtracts means and divides by deviations, which are given and not learned.

    Attributes:
        mean: of each channel over the training clips.
        scale: deviation of each channel over them, above 0.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self, vectors: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Return the standardised vectors."""
        return (vectors - self.mean) / self.scale


def standardised_head(in_dim: int, out_dim: int) -> nn.Sequential:
    """Return Standardise, Linear: a linear probe."""
    return nn.Sequential(Standardise(in_dim), nn.Linear(in_dim, out_dim))


class PatchDecoder(nn.Module):
    """Tokens to pixels: an MLP and a transposed convolution.

    The stride of the convolution is its kernel, so it is one matrix product per token.

    Source: ASiT (Atito et al. 2022, arXiv 2211.13189), section III-A, and the published code.
    """

    def __init__(
        self, in_dim: int, widths: tuple[int, ...], pixels: int, *, last_gelu: bool
    ) -> None:
        super().__init__()
        self.mlp = gelu_mlp((in_dim, *widths), last=last_gelu)
        self.unpatch = nn.Linear((in_dim, *widths)[-1], pixels, bias=False)
        # A convolution with one output channel has one bias.
        self.bias = nn.Parameter(torch.empty(1))
        # As torch initialises a transposed convolution: uniform in +- 1 / sqrt(pixels).
        limit = pixels**-0.5
        for parameter in (self.unpatch.weight, self.bias):
            nn.init.uniform_(parameter, -limit, limit)

    def forward(self, tokens: Float[Tensor, "*token dim"]) -> Float[Tensor, "*token pixel"]:
        """Return the pixels of each patch, row-major (mel, frame)."""
        pixels: Tensor = self.unpatch(self.mlp(tokens)) + self.bias
        return pixels


class Prototypes(nn.Module):
    """Prototypes of unit length times a gain: a weight-normalised linear layer without bias.

    Directions start as torch initialises a linear layer. The gain is fixed at 1 unless
    ``train_gain``.

    Source: Caron et al. 2021 (arXiv 2104.14294), appendix C, and the published code
    (``norm_last_layer``).
    """

    def __init__(self, dim: int, classes: int, *, train_gain: bool) -> None:
        super().__init__()
        self.direction = nn.Parameter(nn.Linear(dim, classes, bias=False).weight.detach())
        self.gain = None
        if train_gain:
            self.gain = nn.Parameter(torch.ones(classes, 1))

    def forward(self) -> Float[Tensor, "class dim"]:
        """Return the weight of the layer."""
        unit = F.normalize(self.direction, dim=-1)
        if self.gain is None:
            return unit
        return unit * self.gain


class DistillationHeads(nn.Module):
    """Heads of self-distillation: a trunk maps tokens to unit vectors, prototypes give the logits.

    Sources: Caron et al. 2021, appendix C: Linear, GELU, Linear, GELU, Linear to the bottleneck, L2
    norm, prototypes; ASiT (Atito et al. 2022), section III-B, has them for class tokens ("global")
    and for patch tokens ("local").
    """

    def __init__(
        self,
        in_dim: int,
        hidden: int,
        bottleneck: int,
        classes: Mapping[str, int],
        *,
        shared: Sharing,
        train_gain: bool,
    ) -> None:
        """Build the heads.

        Args:
            in_dim: channels of the tokens.
            hidden: width of the trunk.
            bottleneck: length of the unit vectors.
            classes: number of prototypes of each loss, by its name.
            shared: what the losses share: the ``trunk``, ``none``, or ``all`` (trunk and
                prototypes).
            train_gain: see :class:`Prototypes`.
        """
        super().__init__()
        self.trunk_of = dict.fromkeys(classes, "shared")
        if shared == "none":
            self.trunk_of = {name: name for name in classes}
        self.prototypes_of = {name: name for name in classes}
        if shared == "all":
            self.prototypes_of = dict.fromkeys(classes, "shared")
        widths = (in_dim, hidden, hidden, bottleneck)
        trunks = dict.fromkeys(self.trunk_of.values())
        self.trunks = nn.ModuleDict({name: gelu_mlp(widths, last=False) for name in trunks})
        sizes = {self.prototypes_of[name]: count for name, count in classes.items()}
        self.prototypes = nn.ModuleDict()
        for name, size in sizes.items():
            self.prototypes[name] = Prototypes(bottleneck, size, train_gain=train_gain)

    def project(
        self, tokens: Float[Tensor, "*token dim"], name: str
    ) -> Float[Tensor, "*token bottleneck"]:
        """Return the unit vectors of tokens, in float32 at least."""
        projected: Tensor = self.trunks[self.trunk_of[name]](tokens)
        # A norm needs float32.
        wide = projected.to(torch.promote_types(projected.dtype, torch.float32))
        return F.normalize(wide, dim=-1)

    def prototypes_for(self, name: str) -> Float[Tensor, "class bottleneck"]:
        """Return the prototypes; their products with the unit vectors are the logits."""
        weight: Tensor = self.prototypes[self.prototypes_of[name]]()
        return weight
