"""The settings of a run: what config.toml records and the command line sets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from melpatch import registry
from melpatch.audio.logmel import LogMel
from melpatch.config import check, owner, piece
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.base import Encoder
from melpatch.objectives.base import Objective
from melpatch.rng import seeded
from melpatch.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of the training loop and the optimiser; shares are shares of the run's steps."""

    epochs: float = 10.0
    """Passes over the corpus; ignored when steps is given."""
    steps: int | None = None
    """Optimiser steps; 0 keeps the initial weights, such as those of --init."""
    accumulate: int = 1
    """Batches per process that are accumulated to one step, to save memory; the step stays the same."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """With several processes, each holds all weights (ddp), or a shard of weights and optimiser state (fsdp)."""
    optimizer: Literal["adamw", "adam", "amsgrad"] = "adamw"
    """Decoupled weight decay, or Adam with the decay in the gradient (as published SSAST), or that with the largest
    second moment so far (as published PANNs)."""
    lr: float = 1e-3
    """Base learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of the optimiser's first and second moments."""
    weight_decay: float = 0.05
    """Weight decay; biases and norms have none, tokens and position tables only with decay_tokens."""
    weight_decay_end: float | None = None
    """Weight decay at the end of the run, reached along half a cosine; None keeps it constant."""
    decay_tokens: bool = False
    """Decay special tokens, mask embeddings and position tables too (as published DINO and ASiT)."""
    grad_clip: float | None = 1.0
    """Largest norm of the gradient; larger gradients are scaled down. None does not clip."""
    grad_clip_by: Literal["global", "tensor"] = "global"
    """What grad_clip limits: the norm of all gradients together, or that of each parameter's own (as published DINO and
    ASiT)."""
    lr_schedule: Schedule = "cosine"
    """Shape of the learning rate after the warm-up; dino is the cosine exactly as DINO and ASiT published it."""
    lr_warmup: float = 0.08
    """Share of the run over which the learning rate rises linearly."""
    lr_floor: float = 0.0
    """End of a cosine or linear schedule, as a factor of lr."""
    lr_step_start: float = 0.5
    """Share of the run at which the step schedule decays first."""
    lr_step_every: float = 0.1
    """Share of the run between decays of the step schedule."""
    lr_step_factor: float = 0.5
    """Factor of each decay of the step schedule."""
    layer_decay: float = 1.0
    """Factor of the learning rate per block below the top; 1 trains all blocks alike."""
    head_lr_scale: float = 1.0
    """Factor of the learning rate outside the encoder."""
    average_last: float = 0.0
    """Average the weights after the evaluations in this last share of the run; 0 keeps the best or last weights."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """Precision of the encoder; auto is bf16 if the processor supports it. Losses are always float32."""
    compile: bool = False
    """Compile the encoder with torch.compile: slow to start, faster on GPUs."""
    log_every: int = 10
    """Steps between lines in metrics.jsonl."""
    save_every: int = 500
    """Steps between checkpoints."""
    keep_last: int = 2
    """Number of newest checkpoints that are kept; a second one replaces a newest one that is damaged."""
    keep_every: int | None = None
    """Steps between checkpoints that are kept for good, a multiple of save_every; None keeps only the newest."""
    evaluations: int = 10
    """Evaluations in a run, of the validation score or of the embeddings' health."""
    nonfinite_limit: int = 10
    """Steps in a row without a finite loss or gradient (skipped and counted) after which the run stops."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self.steps is None or self.steps >= 0, "steps", self.steps, "0 or more")
        check(self.epochs > 0, "epochs", self.epochs, "above 0")
        for name in (
            "accumulate",
            "log_every",
            "save_every",
            "keep_last",
            "evaluations",
            "nonfinite_limit",
        ):
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        multiple = self.keep_every is None or (
            self.keep_every >= 1 and self.keep_every % self.save_every == 0
        )
        check(
            multiple,
            "keep_every",
            self.keep_every,
            f"a multiple of save_every = {self.save_every}, or none",
        )
        check(self.lr > 0, "lr", self.lr, "above 0")
        check(
            0 <= self.lr_warmup < 1, "lr_warmup", self.lr_warmup, "a share of the run, 0 to below 1"
        )
        check(
            all(0 <= beta < 1 for beta in self.betas),
            "betas",
            self.betas,
            "two numbers, 0 to below 1",
        )
        check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        end = self.weight_decay_end
        check(end is None or end >= 0, "weight_decay_end", end, "0 or more, or none")
        check(0 <= self.lr_floor <= 1, "lr_floor", self.lr_floor, "0 to 1")
        check(self.head_lr_scale > 0, "head_lr_scale", self.head_lr_scale, "above 0")
        check(
            self.lr_step_every > 0,
            "lr_step_every",
            self.lr_step_every,
            "a share of the run above 0",
        )
        check(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "above 0, at most 1")
        check(
            0 <= self.average_last < 1,
            "average_last",
            self.average_last,
            "a share of the run, 0 to below 1",
        )
        check(
            self.grad_clip is None or self.grad_clip > 0,
            "grad_clip",
            self.grad_clip,
            "above 0, or none",
        )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of a whole run: data, front end, encoder, objective and training."""

    data: tuple[str, ...] = ()
    """Folders of audio, CSV files with the header path,label,split, and shards (melpatch pack) here or by their URL."""
    split_column: str = "split"
    """Column of the CSV that holds the split or fold."""
    label_column: str = "label"
    """Column of the CSV that holds the labels, separated by ';'."""
    seed: int = 0
    """Everything random is a function of this number."""
    labels: tuple[str, ...] = ()
    """The classes, in the order of the model's outputs; taken from the data."""
    front_end: LogMel.Config = field(default_factory=LogMel.Config)
    """Waveform to spectrogram."""
    encoder: Annotated[Any, tyro.conf.arg(prefix_name=True)] = field(
        default=None, metadata=piece("encoders")
    )
    """Spectrogram to tokens."""
    objective: Annotated[Any, tyro.conf.arg(prefix_name=True)] = field(
        default=None, metadata=piece("objectives")
    )
    """Tokens to loss."""
    loader: Annotated[LoaderConfig, tyro.conf.arg(name="")] = field(default_factory=LoaderConfig)
    """Clips to batches."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    """Batches to weights."""

    def __post_init__(self) -> None:
        """Check that a front end of fixed length takes whole segments."""
        front = self.front_end
        if front.target_frames is not None:
            longest = (front.overhead + front.target_frames * front.hop_length) / front.sample_rate
            allowed = (
                f"up to {longest:.3f} s, the length of front_end.target_frames = "
                f"{front.target_frames}; raise that too"
            )
            check(self.loader.seconds <= longest, "seconds", self.loader.seconds, allowed)


def build(config: RunConfig) -> Objective:
    """Build the objective of a config, with initial weights drawn from its seed."""
    with seeded(config.seed, "weights"):
        front_end = LogMel(config.front_end)
        encoder: Encoder = owner(config.encoder)(config.encoder, config.front_end.n_mels)
        objective: Objective = owner(config.objective)(
            config.objective, front_end, encoder, config.labels, config.seed
        )
    return objective


def objective_names(*, with_labels: bool) -> Sequence[str]:
    """Return the names of the registered objectives that do, or do not, learn from labels."""
    return [
        name
        for name in registry.names("objectives")
        if registry.find("objectives", name).needs_labels == with_labels
    ]
