"""A figure of a masked spectrogram: clean, as the network sees it, and reconstructed."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from melpatch.audio.logmel import LogMel
from melpatch.audio.mel import mel_position
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
_OCTAVES = tuple(125.0 * 2**octave for octave in range(10))  # Hz
_MOST_TICKS = 14  # names that fit on an axis


def reconstruction(
    path: Path,
    picture: Picture,
    *,
    seconds_per_frame: float,
    front_end: LogMel.Config | None = None,
    title: str = "",
) -> None:
    """Draw the clean, masked and reconstructed log-mel spectrogram of a clip in one colour scale.

    Masked patches are grey. A method that replaces them by other values gets a panel of the
    corrupted spectrogram and a panel of the mask. Without a reconstruction, its panel is left out.
    Above it stands its error beside that of the mean, see :func:`masked_errors`. Panels stand side
    by side; those of long clips, above each other.

    Args:
        path: PNG file to write.
        picture: what the method has to show.
        seconds_per_frame: distance of neighbouring frames.
        front_end: what made the spectrogram, for an axis in Hz; without, it counts mel bins.
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
        stages[_named(picture)] = picture.reconstruction.numpy(force=True)
    figure, panels = time_panels(picture, tuple(stages), seconds_per_frame, title, front_end)
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


def _named(picture: Picture) -> str:
    errors = masked_errors(picture)
    if errors is None:
        return "reconstruction"
    return f"reconstruction: error {errors[0]:.2f}, of the mean {errors[1]:.2f}"


def masked_errors(picture: Picture) -> tuple[float, float] | None:
    """Return the mean squared error at the masked pixels: of the reconstruction, and of the mean.

    The mean is that of the visible pixels of the same mel bin or, where all of a bin are masked, of
    all visible pixels. A reconstruction that is no better has learnt nothing of the clip.

    Returns:
        Both in squared log-mel values; None without a reconstruction, a masked or a visible pixel.
    """
    if picture.reconstruction is None:
        return None
    clean, rebuilt, masked = (
        stage.numpy(force=True) for stage in (picture.clean, picture.reconstruction, picture.masked)
    )
    if masked.all() or not masked.any():
        return None
    visible = np.ma.masked_array(clean, masked)
    means = np.ma.filled(visible.mean(axis=1, keepdims=True), visible.mean())
    squares = ((rebuilt - clean) ** 2)[masked], ((means - clean) ** 2)[masked]
    return float(squares[0].mean()), float(squares[1].mean())


def spectrogram(
    path: Path,
    values: Float[np.ndarray, "mel frame"],
    front_end: LogMel.Config,
    *,
    start: float = 0.0,
    title: str = "",
) -> None:
    """Draw a log-mel spectrogram over seconds and Hz.

    Args:
        path: PNG file to write.
        values: log-mel values, not normalised.
        front_end: what made it.
        start: the second at which it starts.
        title: words above the picture.

    Raises:
        MelpatchError: there is no number to draw, or matplotlib is missing.
    """
    mels, frames = values.shape
    figure = sheet(8.0, 2.6, title)
    panel = figure.subplots()
    panel.set_xlim(start, start + frames * front_end.hop_length / front_end.sample_rate)
    panel.set_ylim(0, mels)
    panel.set_xlabel("time (s)")
    hz_axis(panel, front_end)
    figure.colorbar(log_mel(panel, values, values), label="log-mel value", extend="both", pad=0.015)
    save(figure, path)


def hz_axis(panel: "Axes", front_end: LogMel.Config) -> None:
    """Mark octaves on an axis that counts mel bins, those with room for their names, in Hz."""
    ticks: dict[float, str] = {}
    last = -math.inf
    for hz in _OCTAVES:
        if front_end.low_hz <= hz <= front_end.top_hz:
            place = mel_position(
                front_end.mel,
                hz,
                n_mels=front_end.n_mels,
                low_hz=front_end.low_hz,
                high_hz=front_end.top_hz,
            )
            if place - last >= front_end.n_mels / _MOST_TICKS:
                ticks[place] = f"{hz / 1000:g}k" if hz >= 1000 else f"{hz:g}"
                last = place
    panel.set_yticks([*ticks], [*ticks.values()])
    panel.set_ylabel("frequency (Hz)")


def time_panels(
    picture: Picture,
    names: Sequence[str],
    seconds_per_frame: float,
    title: str,
    front_end: LogMel.Config | None = None,
) -> tuple["Figure", list["Axes"]]:
    """Return a figure with one named panel of seconds and mels each, which spans what the picture shows of its clip.

    With the front end that made the spectrogram, the mels are marked in Hz.

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
            if front_end is not None:
                hz_axis(panel, front_end)
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
