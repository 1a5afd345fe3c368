"""Pictures and sound inside a page: drawn, encoded, and held in the page itself."""

import io
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
from jaxtyping import Float

from melpatch.errors import MelpatchError
from melpatch.markup import Html, data_uri, element
from melpatch.plots.base import DPI
from melpatch.reports.page import missing


def picture(draw: Callable[[Path], None], description: str, caption: object = "") -> Html:
    """Return a picture in a page; if it cannot be drawn, a sentence that says why.

    Args:
        draw: draws it to a PNG file.
        description: what it shows, for those who cannot see it.
        caption: words below it.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, "picture.png")
        try:
            draw(path)
        except MelpatchError as error:
            return missing(f"{description}: not drawn, since {error}")
        return embedded(path, description, caption)


def embedded(path: Path, description: str, caption: object = "") -> Html:
    """Return a PNG file as a picture in a page."""
    content = path.read_bytes()
    # The width in pixels stands in bytes 16 to 19 of a PNG; a browser has 96 to the inch.
    width = int.from_bytes(content[16:20], "big") * 96 // DPI
    image = element("img", src=data_uri(content, "image/png"), alt=description, width=width)
    parts = [image]
    if caption:
        parts.append(element("figcaption", caption))
    return element("figure", *parts)


def player(wave: Float[np.ndarray, " sample"], sample_rate: int, description: str) -> Html:
    """Return sound with the browser's own buttons, as FLAC of 16 bits.

    Args:
        wave: samples in [-1, 1]; louder ones are scaled down together.
        sample_rate: their rate in Hz.
        description: what is heard, for those who cannot see the page.
    """
    peak = float(np.abs(wave).max(initial=1.0))
    buffer = io.BytesIO()
    soundfile.write(buffer, wave / peak, sample_rate, format="FLAC", subtype="PCM_16")
    source = data_uri(buffer.getvalue(), "audio/flac")
    return element("audio", controls=True, preload="none", src=source, aria_label=description)
