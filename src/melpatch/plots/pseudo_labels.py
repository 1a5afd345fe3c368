"""A figure of the classes that a teacher assigns to the patches of a spectrogram."""

from pathlib import Path

import torch

from melpatch.audio.logmel import LogMel
from melpatch.colours import class_colours
from melpatch.errors import MelpatchError
from melpatch.objectives.base import Picture
from melpatch.plots.base import save
from melpatch.plots.spectrogram import log_mel, time_panels

_NAMED = 12  # classes that the legend has room for


def pseudo_labels(
    path: Path,
    picture: Picture,
    *,
    stride: tuple[int, int],
    seconds_per_frame: float,
    front_end: LogMel.Config | None = None,
    title: str = "",
) -> None:
    """Draw a clip's log-mel spectrogram, and over the same seconds and mels the class of every patch.

    A class has the same colour in every picture. Those with the most patches are named, with how
    many they have.

    Args:
        path: PNG file to write.
        picture: what the method has to show, with classes.
        stride: mels and frames from one patch to the next.
        seconds_per_frame: distance of neighbouring frames.
        front_end: what made the spectrogram, for an axis in Hz; without, it counts mel bins.
        title: words above the picture.

    Raises:
        MelpatchError: there are no classes or no number to draw, or matplotlib is missing.
    """
    if picture.pseudo_labels is None:
        raise MelpatchError(
            "a picture without classes; give that of a method whose teacher assigns classes to patches"
        )
    rows, columns = picture.pseudo_labels.shape
    numbers, counts = torch.unique(picture.pseudo_labels, return_counts=True)
    names = ("clean", f"the teacher's classes: {len(numbers)} in {rows * columns} patches")
    figure, (clean, classes) = time_panels(picture, names, seconds_per_frame, title, front_end)
    values = picture.clean.numpy(force=True)
    log_mel(clean, values, values)
    begin = picture.start * seconds_per_frame
    classes.imshow(
        class_colours(picture.pseudo_labels).numpy(force=True),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(begin, begin + columns * stride[1] * seconds_per_frame, 0, rows * stride[0]),
    )
    most = counts.argsort(descending=True, stable=True)[:_NAMED]
    for number, count, colour in zip(
        numbers[most], counts[most], class_colours(numbers[most]), strict=True
    ):
        classes.fill([], [], color=colour.tolist(), label=f"{number}: {count}")
    others = len(numbers) - len(most)
    if others:
        classes.plot(
            [], [], linestyle="", label=f"{others} more: {counts.sum() - counts[most].sum()}"
        )
    figure.legend(loc="outside right upper", title="class: patches", frameon=False, handlelength=1)
    save(figure, path)
