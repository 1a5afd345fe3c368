"""The picture of a masked spectrogram: what was there, what the network saw of it, and what it made of the rest."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from melpatch.errors import MelpatchError
from melpatch.plots.base import save, sheet

_HIDDEN = "0.65"  # a grey, which the colour map does not hold
_PERCENTILES = (0.5, 99.9)  # a few digital zeros, at the log's floor, must not take up the whole scale


def reconstruction(
    path: Path,
    clean: Float[np.ndarray, "_mel _frame"],
    masked: Float[np.ndarray, "_mel _frame"],
    rebuilt: Float[np.ndarray, "_mel _frame"],
    *,
    seconds_per_frame: float,
    title: str = "",
) -> None:
    """Draw three log-mel spectrograms of one clip in one colour scale, that of the clean one.

    They stand side by side; those of long clips, one above the other.

    Args:
        path: PNG file to write.
        clean: log-mel values, lowest mel first.
        masked: the same with NaN where hidden, which is drawn grey.
        rebuilt: what the network made of it.
        seconds_per_frame: distance of neighbouring frames.
        title: words above the picture.

    Raises:
        MelpatchError: the shapes differ, there is no number to draw, or matplotlib is missing.
    """
    if not clean.shape == masked.shape == rebuilt.shape:
        shapes = f"clean {clean.shape}, masked {masked.shape}, rebuilt {rebuilt.shape}"
        raise MelpatchError(f"spectrograms of different shapes: {shapes}; give three of one shape (mel, frame)")
    if not np.isfinite(clean).any():
        raise MelpatchError(f"the clean spectrogram {clean.shape} holds no finite number; there is nothing to draw")
    mels, frames = clean.shape
    beside = frames <= 2 * mels
    figure = sheet(10.0, 3.6 if beside else 6.5, title)
    panels = figure.subplots(*(1, 3) if beside else (3, 1), sharex=True, sharey=True)
    low, high = np.percentile(clean[np.isfinite(clean)], _PERCENTILES)
    hidden = np.isnan(masked).mean()
    names = ("clean", f"masked ({hidden:.0%} hidden)", "rebuilt")
    for panel, name, values in zip(panels, names, (clean, masked, rebuilt), strict=True):
        image = panel.imshow(
            np.ma.masked_invalid(values),
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            extent=(0.0, frames * seconds_per_frame, 0.0, float(mels)),
            cmap="magma",
            vmin=low,
            vmax=high,
        )
        image.set_cmap(image.get_cmap().with_extremes(bad=_HIDDEN))
        panel.set_title(name, fontsize=10, loc="left")
        if beside or values is rebuilt:
            panel.set_xlabel("time (s)")
        if not beside or values is clean:
            panel.set_ylabel("mel bin")
    figure.colorbar(image, ax=panels, label="log-mel value", extend="both", extendfrac=0.02, pad=0.015, aspect=25)
    save(figure, path)
