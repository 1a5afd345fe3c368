"""The settings of AST's published scripts as rows of numbers, and the row of a recipe."""

from typing import NamedTuple

from melpatch.audio.logmel import LogMel
from melpatch.schedules import lr_factor
from melpatch.training.loop import evaluation_steps
from melpatch.training.start import fitted

# Mean and standard deviation of each corpus.
AUDIOSET = (-4.2677393, 4.5689974)
ESC50 = (-6.6268077, 5.358466)
COMMANDS = (-6.845978, 5.5654526)


class Script(NamedTuple):
    """The settings of a run; every run uses Adam with betas 0.95 and 0.999 and a decay of 5e-7."""

    frames: int
    statistics: tuple[float, float]
    batch: int
    lr: float
    epochs: int
    falls: tuple[int, ...]
    """Epochs after which the learning rate falls."""
    by: float = 1.0
    """Factor of the learning rate at each fall."""
    balanced: bool = False
    mixup: float = 0.0
    masks: tuple[int, int] = (0, 0)
    """Widths of SpecAugment's masks in mels and frames."""
    noise: float = 0.0
    loss: str = "auto"
    """The loss; sigmoid if clips of a single label use it too."""
    averaged: int = 0
    """Number of last epochs whose weights are averaged."""
    warmup: int = 0
    """Steps of the warm-up, rounded to hundreds."""


def script(config, steps):
    """Return the row of a recipe in a run of this many steps."""
    train = config.train
    augment = config.objective.augment
    assert (train.optimizer, train.betas, train.weight_decay, train.grad_clip) == (
        "adam",
        (0.95, 0.999),
        5e-7,
        None,
    )
    assert fitted(config) == config
    assert (augment.mixup_alpha, augment.masks, augment.gain_db, augment.noise_snr_db) == (
        10,
        1,
        0.0,
        None,
    )
    frames = LogMel(config.front_end).frames(round(config.loader.seconds * 16000))
    assert (config.front_end.padding, config.front_end.target_frames, config.front_end.scale) == (
        "legacy",
        frames,
        2.0,
    )
    epochs = int(train.epochs)
    keys = ("schedule", "warmup", "floor", "step_start", "step_every", "step_factor")
    course = {key: getattr(train, f"lr_{key}") for key in keys}
    rates = [lr_factor(100 * epoch + 99, 100 * epochs, **course) for epoch in range(epochs)]
    falls = tuple(epoch for epoch in range(1, epochs) if rates[epoch] < rates[epoch - 1])
    evaluated = evaluation_steps(train, 100 * epochs)
    assert evaluated == {100 * (epoch + 1) for epoch in range(epochs)}
    averaged = 0
    if train.average_last:
        first = (1 - train.average_last) * 100 * epochs
        averaged = sum(step > first for step in evaluated)
    assert max(rates) == 1
    return Script(
        frames=frames,
        statistics=(config.front_end.mean, config.front_end.std),
        batch=config.loader.batch_size,
        lr=train.lr,
        epochs=epochs,
        falls=falls,
        by=round(rates[-1] ** (1 / len(falls)), 9) if falls else 1.0,
        balanced=config.loader.balanced_sampling,
        mixup=augment.mixup_rate,
        masks=(augment.freq_mask, augment.time_mask),
        noise=augment.pixel_noise,
        loss=config.objective.loss,
        averaged=averaged,
        warmup=round(train.lr_warmup * steps, -2),
    )
