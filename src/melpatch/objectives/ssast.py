"""SSAST: hide patches of a spectrogram; tell each hidden patch from the others, and rebuild it.

Gong, Lai, Chung and Glass 2022, "SSAST: Self-Supervised Audio Spectrogram Transformer" (AAAI 2022, arXiv 2110.09784).
Where paper and published code (commit a1a3eec) differ, the paper is the default and the code is a setting.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder, TokenEncoder
from melpatch.nn import masking
from melpatch.nn.heads import mlp_head
from melpatch.nn.info_nce import Axis, info_nce
from melpatch.objectives.base import Features, Objective, ObjectiveOutput, Picture, Plan
from melpatch.rng import stream


class SSAST(Objective):
    """Masked spectrogram patch modelling, discriminative and generative together (section 2 of the paper)."""

    needs_tokens = True
    encoder: TokenEncoder

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of SSAST."""

        mask_ratio: float = 0.75
        """Share of a clip's patches that is hidden, in (0, 1). The paper hides 400 of 512 (0.78)."""
        num_masked: int | None = None
        """Patches hidden in a clip that fills the window; shorter clips hide the same share. Overrides mask_ratio."""
        mask: Literal["auto", "cluster", "random"] = "auto"
        """Squares of patches, or single patches; auto takes single ones where the grid has one row (frames)."""
        sampler: Literal["uniform", "legacy"] = "uniform"
        """How squares are drawn: every patch equally likely, or as the published code does (low mels often stay
        visible)."""
        cluster_sides: tuple[int, ...] = (3, 4, 5)
        """Sides of the squares, in patches; one is drawn per clip."""
        pretext: Literal["joint", "discriminative", "generative"] = "joint"
        """Which of the two losses are used."""
        generative_weight: float = 10.0
        """Lambda: weight of the generative loss beside the discriminative one."""
        softmax_axis: Axis = "patches"
        """The paper's softmax over patches, or the published code's over predictions."""
        two_pass: bool = False
        """Run the encoder once per loss, each with its own mask, as the published code does. Twice the cost."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            check(0 < self.mask_ratio < 1, "mask_ratio", self.mask_ratio, "between 0 and 1, both excluded")
            check(self.num_masked is None or self.num_masked > 0, "num_masked", self.num_masked, "1 or more")
            check(
                min(self.cluster_sides, default=0) > 0,
                "cluster_sides",
                self.cluster_sides,
                "one or more sides of 1 or more",
            )

    def __init__(
        self, config: Config, front_end: LogMel, encoder: Encoder, labels: tuple[str, ...] = (), seed: int = 0
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.config: SSAST.Config = config
        self.window: int | None = None  # patches of a clip that fills the window; known after begin()
        rows = encoder.grid.rows
        self.clusters = config.mask == "cluster" or (config.mask == "auto" and rows > 1)
        check(
            config.sampler == "uniform" or not self.clusters or front_end.config.padding == "legacy",
            "objective.sampler",
            config.sampler,
            "'uniform', or 'legacy' with --front-end.padding legacy, since it knows no padding",
        )
        pixels = encoder.grid.patch[0] * encoder.grid.patch[1]
        self.mask_embed = nn.Parameter(torch.empty(1, 1, encoder.embed_dim))
        nn.init.xavier_normal_(self.mask_embed)
        if config.pretext != "generative":
            self.discriminative_head = mlp_head(encoder.embed_dim, pixels)
        if config.pretext != "discriminative":
            self.generative_head = mlp_head(encoder.embed_dim, pixels)

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return L = L_d + lambda * L_g, means over the hidden patches of the batch (section 2.3)."""
        features = self.features(batch)
        hidden = self.hide(batch.keys, features, step, "mask")
        tokens = self.encode(features, hidden)
        losses: dict[str, Tensor] = {}
        if self.config.pretext != "generative":
            losses |= self.discriminate(features, hidden, tokens)
        if self.config.two_pass:
            hidden = self.hide(batch.keys, features, step, "second mask")
            tokens = self.encode(features, hidden)
        if self.config.pretext != "discriminative":
            losses |= self.generate(features, hidden, tokens)
        if self.config.pretext == "joint":
            loss = losses["nce"] + self.config.generative_weight * losses["mse"]
        else:
            loss = losses["nce"] if self.config.pretext == "discriminative" else losses["mse"]
        return ObjectiveOutput(loss, hidden.valid.sum().float(), losses)

    def hide(self, keys: Int[Tensor, " clip"], features: Features, step: int, purpose: str) -> masking.Hidden:
        """Choose the hidden patches; padding is never among them (section 2.2)."""
        grid, config = self.encoder.grid, self.config
        width = grid.columns(features.spectrogram.shape[-1])
        if features.valid is None:
            columns = torch.full_like(keys, width)
        else:
            columns = features.valid.view(-1, grid.rows, width)[:, 0].sum(dim=1)
        window = self.window if self.window is not None else grid.rows * width
        counts = masking.amount(columns * grid.rows, ratio=config.mask_ratio, number=config.num_masked, window=window)
        full = torch.tensor([grid.rows * width])
        most = int(masking.amount(full, ratio=config.mask_ratio, number=config.num_masked, window=window))
        states = stream(self.seed, purpose, keys, step)
        if not self.clusters:
            priority = masking.random(states, grid.rows, columns, width)
        elif config.sampler == "uniform":
            ties = stream(self.seed, f"{purpose} ties", keys, step)
            priority = masking.cluster(states, ties, grid.rows, columns, width, config.cluster_sides)
        else:
            priority = masking.cluster_legacy(states, grid.rows, width, most, config.cluster_sides)
        return masking.take(priority, counts, most)

    def encode(self, features: Features, hidden: masking.Hidden) -> Float[Tensor, "clip hidden dim"]:
        """Return the encoder's outputs at the hidden patches, whose inputs are the mask embedding plus their
        position."""
        tokens = self.encoder.tokens(features.spectrogram)
        positions = self.encoder.positions(self.encoder.grid.columns(features.spectrogram.shape[-1]))
        mask = hidden.mask(tokens.shape[1])[..., None]
        tokens = torch.where(mask, (self.mask_embed + positions).to(tokens.dtype), tokens)
        return hidden.gather(self.encoder.run(tokens, features.valid).patches)

    def discriminate(
        self, features: Features, hidden: masking.Hidden, tokens: Float[Tensor, "clip hidden dim"]
    ) -> dict[str, Tensor]:
        """Return the InfoNCE loss (equation 1) and the share of hidden patches that were told from the others."""
        predictions = self.discriminative_head(tokens)
        patches = hidden.gather(self.encoder.grid.split(features.spectrogram))
        with torch.autocast(tokens.device.type, enabled=False):  # dot products of raw patches are large: float32
            loss, hit = info_nce(predictions.to(patches.dtype), patches, hidden.valid, self.config.softmax_axis)
        count = hidden.valid.sum().clamp(min=1)
        return {"nce": loss.sum() / count, "accuracy": hit.sum() / count}

    def generate(
        self, features: Features, hidden: masking.Hidden, tokens: Float[Tensor, "clip hidden dim"]
    ) -> dict[str, Tensor]:
        """Return the mean squared error between hidden patches and their reconstruction (equation 2)."""
        patches = hidden.gather(self.encoder.grid.split(features.spectrogram))
        error = (self.generative_head(tokens).to(patches.dtype) - patches).square().mean(dim=2)
        return {"mse": (error * hidden.valid).sum() / hidden.valid.sum().clamp(min=1)}

    def begin(self, plan: Plan) -> None:
        """Note how many patches the longest segment has.

        Raises:
            ConfigError: patches overlap, or such a segment leaves no patch visible, or none hidden.
        """
        grid, config = self.encoder.grid, self.config
        check(grid.stride == grid.patch, "encoder.stride", grid.stride, f"{grid.patch}; overlaps tell what is hidden")
        frames = self.front_end.frames(round(plan.seconds * self.front_end.sample_rate))
        self.window = grid.count(self.front_end.config.target_frames or frames)
        most = self.window - (3 if config.sampler == "legacy" else 1)
        wanted = self.window * config.mask_ratio if config.num_masked is None else config.num_masked
        check(
            1 <= wanted <= most,
            "objective.num_masked" if config.num_masked else "objective.mask_ratio",
            config.num_masked or config.mask_ratio,
            f"1 to {most} hidden patches, since {plan.seconds:g} s give {grid.rows} x {self.window // grid.rows} = "
            f"{self.window}; hide fewer, or take longer segments or smaller patches",
        )

    def picture(self, batch: Batch, step: int) -> Picture | None:
        """Return the first clip, the same with its hidden patches blank, and with them rebuilt."""
        if self.config.pretext == "discriminative":
            return None
        features = self.features(batch)
        hidden = self.hide(batch.keys, features, step, "mask")
        grid, frames = self.encoder.grid, features.spectrogram.shape[-1]
        rebuilt = self.generative_head(self.encode(features, hidden)).to(features.spectrogram.dtype)
        patches = grid.split(features.spectrogram)
        mask = hidden.mask(patches.shape[1])[..., None]
        index = hidden.tokens[..., None].expand_as(rebuilt)
        filled = torch.where(mask, patches.scatter(1, index, rebuilt), patches)
        stages = (patches, patches.masked_fill(mask, torch.nan), filled)
        clean, seen, rebuilt = (self.front_end.denormalise(grid.join(one, frames))[0].detach() for one in stages)
        return Picture(clean, seen, seen.isnan(), rebuilt)
