"""Figures of a prediction in latent space: masks of all views, targets and errors."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from melpatch.audio.logmel import LogMel
from melpatch.errors import MelpatchError
from melpatch.nn.latent import LatentMaps
from melpatch.objectives.base import Picture
from melpatch.plots.base import save, sheet
from melpatch.plots.spectrogram import log_mel, time_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BESIDE = 4  # masks in a row


def prediction_maps(
    path: Path,
    picture: Picture,
    *,
    stride: tuple[int, int],
    seconds_per_frame: float,
    front_end: LogMel.Config | None = None,
    title: str = "",
) -> None:
    """Draw a clip, and over it how far its targets differ and predictions miss them.

    Args:
        path: PNG file to write.
        picture: what the method has to show, with maps of its targets.
        stride: mels and frames from one patch to the next.
        seconds_per_frame: distance of neighbouring frames.
        front_end: what made the spectrogram, for an axis in Hz; without, it counts mel bins.
        title: words above the picture.

    Raises:
        MelpatchError: there are no maps or no number to draw, or matplotlib is missing.
    """
    maps = _maps_of(picture)
    names = ("clean", "target: distance from the clip's mean", "error of the prediction")
    figure, (clean, *panels) = time_panels(picture, names, seconds_per_frame, title, front_end)
    values = picture.clean.numpy(force=True)
    log_mel(clean, values, values)
    for panel, of_patches in zip(panels, (maps.target, maps.error), strict=True):
        rows, columns = of_patches.shape
        begin = picture.start * seconds_per_frame
        end = begin + columns * stride[1] * seconds_per_frame
        image = panel.imshow(
            np.ma.masked_invalid(of_patches.float().numpy(force=True)),
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            extent=(begin, end, 0, rows * stride[0]),
            cmap="viridis",
        )
        figure.colorbar(image, ax=panel, pad=0.015)
    save(figure, path)


def view_masks(path: Path, picture: Picture, *, title: str = "") -> None:
    """Draw the masks of all views of a clip, masked patches dark, with the share of each.

    Args:
        path: PNG file to write.
        picture: what the method has to show, with the masks of its views.
        title: words above the picture.

    Raises:
        MelpatchError: there are no such masks, or matplotlib is missing.
    """
    masked = _maps_of(picture).masked.float().numpy(force=True)
    count = len(masked)
    beside = min(count, _BESIDE)
    below = math.ceil(count / beside)
    figure = sheet(10.0, 0.6 + 1.1 * below, title)
    panels = figure.subplots(below, beside, sharex=True, sharey=True, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for number, (panel, mask) in enumerate(zip(panels.flat, masked, strict=False), start=1):
        _mask(panel, mask, f"view {number} ({mask.mean():.0%})")
    save(figure, path)


def _mask(panel: "Axes", mask: Float[np.ndarray, "row column"], name: str) -> None:
    panel.imshow(
        mask,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="Greys",
        vmin=0.0,
        vmax=1.4,
    )
    panel.set_title(name, fontsize=9, loc="left")


def _maps_of(picture: Picture) -> LatentMaps:
    if picture.latent is None:
        raise MelpatchError(
            "a picture without targets in latent space; give that of a method that predicts a "
            "teacher's tokens"
        )
    return picture.latent
