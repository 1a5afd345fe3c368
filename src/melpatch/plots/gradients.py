"""A figure of where in a spectrogram a classifier looks."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from melpatch.audio.logmel import LogMel
from melpatch.plots.base import save, sheet
from melpatch.plots.spectrogram import hz_axis, log_mel


def gradients(
    path: Path,
    clean: Float[np.ndarray, "mel frame"],
    weight: Float[np.ndarray, "row column"],
    front_end: LogMel.Config,
    *,
    stride: tuple[int, int],
    title: str = "",
) -> None:
    """Draw a clip's log-mel spectrogram, and below it how much an answer depends on each patch.

    Args:
        path: PNG file to write.
        clean: log-mel values.
        weight: of each patch, from 0 to 1; NaN where there is none.
        front_end: what made the spectrogram.
        stride: mels and frames from one patch to the next.
        title: words above the picture.

    Raises:
        MelpatchError: there is no number to draw, or matplotlib is missing.
    """
    mels, frames = clean.shape
    hop = front_end.hop_length / front_end.sample_rate
    figure = sheet(8.0, 4.6, title)
    above, below = figure.subplots(2, 1, sharex=True, sharey=True)
    above.set_xlim(0, frames * hop)
    above.set_ylim(0, mels)
    for panel, name in ((above, "spectrogram"), (below, "gradient of the answer")):
        hz_axis(panel, front_end)
        panel.set_title(name, fontsize=10, loc="left")
    below.set_xlabel("time (s)")
    figure.colorbar(log_mel(above, clean, clean), ax=above, label="log-mel value", pad=0.015)
    rows, columns = weight.shape
    image = below.imshow(
        np.ma.masked_invalid(weight),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, columns * stride[1] * hop, 0, rows * stride[0]),
        cmap="viridis",
        vmin=0,
        vmax=1,
    )
    figure.colorbar(image, ax=below, label="share of the largest", pad=0.015)
    save(figure, path)
