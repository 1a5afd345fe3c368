"""A figure of a clip and the views of it that an objective compares."""

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from melpatch.errors import MelpatchError
from melpatch.plots.base import save, sheet
from melpatch.plots.spectrogram import log_mel


def clip_views(
    path: Path,
    views: Mapping[str, Float[Tensor, "mel _frame"]],
    *,
    seconds_per_frame: float,
    title: str = "",
) -> None:
    """Draw log-mel spectrograms side by side, or long ones above each other, in one colour scale.

    Args:
        path: PNG file to write.
        views: log-mel spectrograms by name, the clip first, which gives the scale; they may be of
            different lengths. NaN is grey.
        seconds_per_frame: distance of neighbouring frames.
        title: words above the picture.

    Raises:
        MelpatchError: there is no spectrogram or no number to draw, or matplotlib is missing.
    """
    if not views:
        raise MelpatchError(
            "no views to draw; give those of a method that compares views of a clip"
        )
    pictures = {name: view.float().numpy(force=True) for name, view in views.items()}
    clean = next(iter(pictures.values()))
    mels, frames = clean.shape
    count = len(pictures)
    beside = frames <= 2 * mels
    figure = sheet(10.0, 3.6 if beside else 0.5 + 2 * count, title)
    grid = figure.subplots(*(1, count) if beside else (count, 1), squeeze=False)
    for panel, (name, values) in zip(grid.flat, pictures.items(), strict=True):
        panel.set_xlim(0, values.shape[1] * seconds_per_frame)
        panel.set_ylim(0, mels)
        image = log_mel(panel, values, clean)
        panel.set_title(name, fontsize=10, loc="left")
        panel.set_xlabel("time (s)")
        panel.set_ylabel("mel bin")
    figure.colorbar(image, ax=grid, label="log-mel value", extend="both", pad=0.015)
    save(figure, path)
