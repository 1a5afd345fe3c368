"""The settings of a run: config.toml records them, the command line sets them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from melpatch import registry
from melpatch.audio.files import Channel
from melpatch.audio.logmel import LogMel
from melpatch.config import check, from_toml, owner, piece
from melpatch.data.file_names import is_text, path_text
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.base import Encoder
from melpatch.errors import ConfigError
from melpatch.objectives.base import Objective
from melpatch.rng import seeded
from melpatch.schedules import Schedule
from melpatch.training.size import require_weights_fit
from melpatch.training.unfilled import without_weights


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of the training loop and the optimiser; shares are shares of the run's steps."""

    epochs: float = 10.0
    """Passes over the corpus; ignored when steps is given."""
    steps: int | None = None
    """Optimiser steps; 0 keeps the initial weights, such as those of --init."""
    accumulate: int = 1
    """Batches per process that are accumulated in one step: less memory, the same gradient."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """With several processes, each holds all weights (ddp), or a shard of weights and optimiser
    state (fsdp)."""
    optimizer: Literal["adamw", "adam", "amsgrad"] = "adamw"
    """AdamW with decoupled weight decay; Adam with the decay in the gradient (published SSAST);
    or AMSGrad, which is Adam with the largest second moment so far (published PANNs)."""
    lr: float = 1e-3
    """Base learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of the optimiser's first and second moments."""
    weight_decay: float = 0.05
    """Weight decay; for tokens and position tables with decay_tokens or decay_all, for biases and
    norms with decay_all."""
    weight_decay_end: float | None = None
    """Weight decay at the end of the run, reached along half a cosine; None keeps it constant."""
    decay_tokens: bool = False
    """Decay special tokens, mask embeddings and position tables too (as published DINO and
    ASiT)."""
    decay_all: bool = False
    """Decay every parameter, biases and norms too (as published AST, SSAST and MAE-AST)."""
    grad_clip: float | None = 1.0
    """Largest norm of the gradient; larger gradients are scaled down. None does not clip."""
    grad_clip_by: Literal["global", "tensor"] = "global"
    """What grad_clip limits: the norm of all gradients together, or the norm of each parameter's
    gradient (published DINO and ASiT)."""
    lr_schedule: Schedule = "cosine"
    """Shape of the learning rate after the warm-up; dino is the cosine exactly as published with
    DINO and ASiT."""
    lr_warmup: float = 0.08
    """Share of the run over which the learning rate rises linearly."""
    lr_floor: float = 0.0
    """End of a cosine or linear schedule, as a factor of lr."""
    lr_step_start: float = 0.5
    """Share of the run at which the step schedule first decays."""
    lr_step_every: float = 0.1
    """Share of the run between decays of the step schedule."""
    lr_step_factor: float = 0.5
    """Factor of each decay of the step schedule."""
    layer_decay: float = 1.0
    """Factor of the learning rate per block below the top; 1 trains all blocks alike."""
    head_lr_scale: float = 1.0
    """Factor of the learning rate outside the encoder."""
    average_last: float = 0.0
    """Share of the run, at its end, over whose evaluations the weights are averaged; 0 keeps the
    best or last weights."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """Precision of the encoder; auto is bf16 if the processor supports it. Losses are always
    float32."""
    compile: bool = False
    """Compile the encoder with torch.compile: slow to start, faster on GPUs."""
    log_every: int = 10
    """Steps between lines in metrics.jsonl."""
    save_every: int = 500
    """Steps between checkpoints."""
    keep_last: int = 2
    """Number of newest checkpoints that are kept; with 2 a run survives damage to the newest."""
    keep_every: int | None = None
    """Steps between checkpoints that are kept for good, a multiple of save_every; None keeps only
    the newest."""
    evaluations: int = 10
    """Evaluations in a run, of the validation score or of the embeddings' health."""
    nonfinite_limit: int = 10
    """Skipped steps in a row (no finite loss or gradient) after which the run stops."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        # Length of the run, and how often something happens in it.
        check(self.steps is None or self.steps >= 0, "steps", self.steps, "0 or more")
        check(self.epochs > 0, "epochs", self.epochs, "above 0")
        counts = (
            "accumulate",
            "log_every",
            "save_every",
            "keep_last",
            "evaluations",
            "nonfinite_limit",
        )
        for name in counts:
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        keep = self.keep_every
        multiple = keep is None or (keep >= 1 and keep % self.save_every == 0)
        allowed = f"a multiple of save_every = {self.save_every}, or none"
        check(multiple, "keep_every", keep, allowed)

        # Learning rate and its schedule.
        share = "a share of the run, 0 to below 1"
        check(self.lr > 0, "lr", self.lr, "above 0")
        check(0 <= self.lr_warmup < 1, "lr_warmup", self.lr_warmup, share)
        check(0 <= self.lr_floor <= 1, "lr_floor", self.lr_floor, "0 to 1")
        step_every = self.lr_step_every
        check(step_every > 0, "lr_step_every", step_every, "a share of the run above 0")
        check(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "above 0, at most 1")
        check(self.head_lr_scale > 0, "head_lr_scale", self.head_lr_scale, "above 0")

        # The optimiser, and the average of the weights.
        betas_fit = all(0 <= beta < 1 for beta in self.betas)
        check(betas_fit, "betas", self.betas, "two numbers, 0 to below 1")
        check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        end = self.weight_decay_end
        check(end is None or end >= 0, "weight_decay_end", end, "0 or more, or none")
        limit = self.grad_clip
        check(limit is None or limit > 0, "grad_clip", limit, "above 0, or none")
        check(0 <= self.average_last < 1, "average_last", self.average_last, share)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of a whole run: data, front end, encoder, objective and training."""

    data: tuple[str, ...] = ()
    """Folders of audio, CSV files with the header path,label,split, shards (melpatch pack), local
    or by URL, and Parquet, WebDataset and manifests of Kaldi, Lhotse, NeMo and AST
    (docs/data.md)."""
    split_column: str = "split"
    """Column of the CSV that holds the split or fold."""
    label_column: str = "label"
    """Column of the CSV that holds the labels, separated by ';'."""
    channel: Channel = "mean"
    """Of several channels: their mean, the left or right one, or the loudest of each file."""
    group_column: str = "group"
    """Column of the CSV that holds the recording, speaker or patient of a clip."""
    seed: int = 0
    """Seed of everything random in the run."""
    labels: tuple[str, ...] = ()
    """The classes in the order of the model's outputs; taken from the data if empty."""
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
        # config.toml is UTF-8, which not all names of folders are.
        data = tuple(source if is_text(source) else path_text(Path(source)) for source in self.data)
        object.__setattr__(self, "data", data)
        front = self.front_end
        if front.target_frames is not None:
            longest = (front.overhead + front.target_frames * front.hop_length) / front.sample_rate
            allowed = (
                f"up to {longest:.3f} s, the length of front_end.target_frames = "
                f"{front.target_frames}; raise that too"
            )
            check(self.loader.seconds <= longest, "seconds", self.loader.seconds, allowed)


def require_run(folder: Path) -> None:
    """Raise ConfigError unless a folder is a run; a model of other code is none."""
    if not (folder / "config.toml").is_file():
        raise ConfigError(
            f"{folder}: holds no config.toml; give a run folder (melpatch import makes one of a "
            "model of other code)"
        )


def read_settings(folder: Path, *, trust_code: bool = False) -> RunConfig:
    """Return the settings of a run folder.

    Args:
        folder: the run folder.
        trust_code: whether the run may name code outside melpatch, which is then run.

    Raises:
        ConfigError: config.toml is missing or damaged, or lacks a table.
    """
    path = folder / "config.toml"
    config = from_toml(RunConfig, path, trust_code=trust_code)
    for name in ("encoder", "objective"):
        if getattr(config, name) is None:
            raise ConfigError(f"{path}: has no table [{name}]; take the file from another run")
    return config


def build(config: RunConfig) -> Objective:
    """Build the objective of a config, with initial weights drawn from its seed.

    Raises:
        ConfigError: it has more weights than the memory holds, or settings do not go together.
    """

    require_weights_fit(partial(_built, config))
    return _built(config)


def build_unfilled(config: RunConfig) -> Objective:
    """Build the objective of a config without weights, which are then loaded.

    See :mod:`melpatch.training.unfilled`. What is loaded must hold all of its weights. An encoder or
    objective outside melpatch is built as by :func:`build`, since it may compute with the weights
    that it draws.

    Raises:
        ConfigError: see :func:`build`.
    """
    pieces = (owner(config.encoder), owner(config.objective))
    if not all(piece.__module__.startswith("melpatch.") for piece in pieces):
        return build(config)
    require_weights_fit(partial(_built, config))
    with without_weights():
        return _built(config)


def _built(config: RunConfig) -> Objective:
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
