"""The published training steps, written plainly: what their own code computes, to be timed beside ours.

Equivalent arithmetic, not that code: a vision transformer whose attention is two products and a softmax, on
spectrograms that are there already. Loops over clips are left out.
"""

import copy
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    cross_entropy,
    gelu,
    interpolate,
    linear,
    log_softmax,
    mse_loss,
    normalize,
    softmax,
    unfold,
)

WIDTHS = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
"""Width and attention heads of an encoder of twelve layers."""
PATCH = 16
MELS = 128


class Block(nn.Module):
    """A pre-norm transformer layer that holds all weights of its attention at once."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.grow, self.shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        clips, tokens, width = x.shape
        q, k, v = (
            self.qkv(self.norm1(x)).reshape(clips, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        weights = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        x = x + self.project((weights @ v).transpose(1, 2).reshape(clips, tokens, width))
        return x + self.shrink(gelu(self.grow(self.norm2(x))))


class Transformer(nn.Module):
    """Patches, special tokens in front, positions, layers and a norm."""

    def __init__(self, size: str, frames: int, specials: int) -> None:
        super().__init__()
        self.width, heads = WIDTHS[size]
        self.patches = nn.Conv2d(1, self.width, PATCH, PATCH)
        self.specials = nn.Parameter(torch.randn(1, specials, self.width) * 0.02)
        self.hidden = nn.Parameter(torch.randn(self.width) * 0.02)
        tokens = specials + MELS // PATCH * (frames // PATCH)
        self.positions = nn.Parameter(torch.randn(1, tokens, self.width) * 0.02)
        self.blocks = nn.Sequential(*(Block(self.width, heads) for _ in range(12)))
        self.norm = nn.LayerNorm(self.width, eps=1e-6)

    def forward(self, spectrograms: Tensor, hidden: Tensor | None = None) -> Tensor:
        x = self.patches(spectrograms[:, None]).flatten(2).transpose(1, 2)
        if hidden is not None:
            x = torch.where(hidden[..., None], self.hidden, x)
        x = torch.cat([self.specials.expand(len(x), -1, -1), x], dim=1) + self.positions
        return self.norm(self.blocks(x))


def mlp(*widths: int, act: Callable[[], nn.Module]) -> nn.Sequential:
    """Linear layers with an activation between any two."""
    layers = [nn.Linear(*pair) for pair in pairwise(widths)]
    parts = [part for layer in layers for part in (layer, act())]
    return nn.Sequential(*parts[:-1])


class SSAST:
    """A step of joint pretraining: a pass for each loss, each with masks of its own, and one update.

    Source: the SSAST release; patches of 16 by 16, 400 of 512 hidden.
    """

    frames = 1024

    def __init__(self, size: str) -> None:
        self.encoder = Transformer(size, self.frames, specials=2)
        width = self.encoder.width
        self.heads = nn.ModuleList(mlp(width, width, PATCH**2, act=nn.ReLU) for _ in range(2))
        weights = [*self.encoder.parameters(), *self.heads.parameters()]
        self.optimizer = torch.optim.Adam(weights, lr=1e-4, betas=(0.95, 0.999), weight_decay=5e-7)

    def step(self, spectrograms: Tensor) -> None:
        self.optimizer.zero_grad()
        (self.contrast(spectrograms) + 10 * self.rebuilding(spectrograms)).backward()
        self.optimizer.step()

    def contrast(self, spectrograms: Tensor) -> Tensor:
        predicted, wanted = self.predict(self.heads[0], spectrograms)
        return cross_entropy(
            (wanted @ predicted.transpose(1, 2)).flatten(0, 1),
            torch.arange(400).repeat(len(wanted)),
        )

    def rebuilding(self, spectrograms: Tensor) -> Tensor:
        return mse_loss(*self.predict(self.heads[1], spectrograms))

    def predict(self, head: nn.Module, spectrograms: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a head makes of 400 hidden patches of each clip, and the patches."""
        patches = unfold(spectrograms[:, None], PATCH, stride=PATCH).transpose(1, 2)
        clips, count, pixels = patches.shape
        chosen = torch.rand(clips, count).argsort(1)[:, :400]
        hidden = torch.zeros(clips, count, dtype=torch.bool).scatter_(1, chosen, True)
        tokens = self.encoder(spectrograms, hidden)[:, 2:]
        return head(tokens[hidden]).view(clips, 400, pixels), patches[hidden].view(
            clips, 400, pixels
        )


class ASiT:
    """A step of pixels, patches and clips at once: two views, corrupted for the student and clean for its teacher.

    Source: the ASiT release of 2023; views of 5.9 s, one class token, a head's trunk shared by patches and class token.
    """

    frames = 592

    def __init__(self, size: str) -> None:
        self.student = Student(size)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=5e-4, weight_decay=0.04)
        self.centres = torch.zeros(8192), torch.zeros(1024)

    def step(self, spectrograms: Tensor) -> None:
        views = torch.cat([spectrograms, spectrograms.flip(0)])
        hidden = (torch.rand(len(views), 1, MELS // 8, self.frames // 8) < 0.46).float()
        hidden = interpolate(hidden, scale_factor=8)[:, 0]
        with torch.no_grad():
            wanted_clip, wanted_patch = self.teacher.scores(self.teacher.encoder(views))
        tokens = self.student.encoder(views * (1 - hidden))
        clip, patch = self.student.scores(tokens)
        rebuilt = self.student.spectrograms(tokens)
        loss = 2 * ((rebuilt - views).abs() * hidden).sum() / hidden.sum()
        loss = loss + distilled(clip, wanted_clip.roll(len(spectrograms), 0), self.centres[0])
        loss = loss + distilled(patch, wanted_patch, self.centres[1])
        self.optimizer.zero_grad()
        loss.backward()
        for weight in self.student.parameters():
            torch.nn.utils.clip_grad_norm_(weight, 3.0)
        self.optimizer.step()
        with torch.no_grad():
            for centre, teacher in zip(self.centres, (wanted_clip, wanted_patch), strict=True):
                centre.lerp_(teacher.float().flatten(0, -2).mean(0), 0.1)
            for mean, weight in zip(
                self.teacher.parameters(), self.student.parameters(), strict=True
            ):
                mean.mul_(0.996).add_(weight, alpha=0.004)


class Student(nn.Module):
    """An encoder, the head of classes and the one of pixels."""

    def __init__(self, size: str) -> None:
        super().__init__()
        self.encoder = Transformer(size, ASiT.frames, specials=1)
        self.trunk = mlp(self.encoder.width, 2048, 2048, 256, act=nn.GELU)
        self.clip, self.patch = (nn.Linear(256, classes, bias=False) for classes in (8192, 1024))
        self.grow = nn.Sequential(mlp(self.encoder.width, 768, 768, 128, act=nn.GELU), nn.GELU())
        self.paint = nn.ConvTranspose2d(128, 1, PATCH, PATCH)

    def scores(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return a score per class of the clips and of the patches."""
        embeddings = normalize(self.trunk(tokens), dim=-1)
        clip, patch = (normalize(layer.weight, dim=-1) for layer in (self.clip, self.patch))
        return linear(embeddings[:, 0], clip), linear(embeddings[:, 1:], patch)

    def spectrograms(self, tokens: Tensor) -> Tensor:
        grown = self.grow(tokens[:, 1:]).transpose(1, 2)
        return self.paint(grown.unflatten(2, (MELS // PATCH, -1)))[:, 0]


def distilled(student: Tensor, wanted: Tensor, centre: Tensor) -> Tensor:
    """Return the cross-entropy of a student's scores against its teacher's."""
    return -(softmax((wanted - centre) / 0.04, -1) * log_softmax(student / 0.1, -1)).sum(-1).mean()
