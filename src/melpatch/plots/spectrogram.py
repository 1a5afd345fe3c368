"""A figure of a masked spectrogram: clean, as the network sees it, and reconstructed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from melpatch.errors import MelpatchError
from melpatch.objectives.base import Picture
from melpatch.plots.base import save, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_HIDDEN = "0.65"  # a grey, which the colour map does not hold
_PERCENTILES = (
    0.5,
    99.9,
)  # a few digital zeros, at the log's floor, must not take up the whole scale


def reconstruction(
    path: Path, picture: Picture, *, seconds_per_frame: float, title: str = ""
) -> None:
    """Draw the clean, masked and reconstructed log-mel spectrogram of a clip in one colour scale.

    Masked patches are grey. A method that replaces them by other values gets a panel of the
    corrupted spectrogram and a panel of the mask. Without a reconstruction, its panel is left out.
    Panels stand side by side; those of long clips, above each other.

    Args:
        path: PNG file to write.
        picture: what the method has to show.
        seconds_per_frame: distance of neighbouring frames.
        title: words above the picture.

    Raises:
        MelpatchError: there is no number to draw, or matplotlib is missing.
    """
    clean, seen, hidden = (
        stage.numpy(force=True) for stage in (picture.clean, picture.input, picture.masked)
    )
    share = f"({hidden.mean():.0%})"
    blank = np.where(hidden, np.nan, 0)
    if picture.masked_is_blank:
        stages = {"clean": clean, f"masked {share}": seen}
    else:
        stages = {"clean": clean, "corrupted": seen, f"mask {share}": blank}
    if picture.reconstruction is not None:
        stages["reconstruction"] = picture.reconstruction.numpy(force=True)
    figure, panels = time_panels(picture, tuple(stages), seconds_per_frame, title)
    for panel, values in zip(panels, stages.values(), strict=True):
        if values is blank:
            _image(panel, values, "Greys", 0.0, 1.0)
        else:
            image = log_mel(panel, values, clean)
    slender = 7 * figure.get_figheight()  # a bar of one width, however tall the picture
    figure.colorbar(
        image,
        ax=panels,
        label="log-mel value",
        extend="both",
        extendfrac=0.02,
        pad=0.015,
        aspect=slender,
    )
    save(figure, path)


def time_panels(
    picture: Picture, names: Sequence[str], seconds_per_frame: float, title: str
) -> tuple["Figure", list["Axes"]]:
    """Return a figure with one named panel of seconds and mels each, which spans what the picture shows of its clip.

    Raises:
        MelpatchError: matplotlib is missing.
    """
    mels, frames = picture.clean.shape
    beside = frames <= 2 * mels
    count = len(names)
    figure = sheet(10.0, 3.6 if beside else 0.5 + 2 * count, title)
    grid = figure.subplots(
        *(1, count) if beside else (count, 1), sharex=True, sharey=True, squeeze=False
    )
    panels = [*grid.flat]
    panels[0].set_xlim(
        picture.start * seconds_per_frame, (picture.start + frames) * seconds_per_frame
    )
    panels[0].set_ylim(0, mels)
    for panel, name in zip(panels, names, strict=True):
        panel.set_title(name, fontsize=10, loc="left")
        if beside or panel is panels[-1]:
            panel.set_xlabel("time (s)")
        if not beside or panel is panels[0]:
            panel.set_ylabel("mel bin")
    return figure, panels


def log_mel(
    panel: "Axes", values: Float[np.ndarray, "mel frame"], clean: Float[np.ndarray, "mel _frame"]
) -> "AxesImage":
    """Fill a panel with a log-mel spectrogram in the colour scale of the clean one, and return the image.

    Raises:
        MelpatchError: the clean one holds no finite number.
    """
    finite = clean[np.isfinite(clean)]
    if not finite.size:
        raise MelpatchError(
            f"the clean spectrogram {clean.shape} holds no finite number; there is nothing to draw"
        )
    low, high = np.percentile(finite, _PERCENTILES)
    return _image(panel, values, "magma", low, high)


def _image(
    panel: "Axes", values: Float[np.ndarray, "mel frame"], cmap: str, low: float, high: float
) -> "AxesImage":
    """Fill a panel with values, low mels below; those that are no numbers are grey."""
    image = panel.imshow(
        np.ma.masked_invalid(values),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(*panel.get_xlim(), *panel.get_ylim()),
        cmap=cmap,
        vmin=low,
        vmax=high,
    )
    image.set_cmap(image.get_cmap().with_extremes(bad=_HIDDEN))
    return image
