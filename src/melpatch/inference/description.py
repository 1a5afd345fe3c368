"""What a loaded model is, for a notebook and for a reader."""

from collections.abc import Iterator

from melpatch.audio.logmel import LogMel
from melpatch.config import owner
from melpatch.markup import Html, table
from melpatch.training.config import RunConfig

_NAMED = 12
"""Labels that are named; of more, it gives the number."""


class Described:
    """What has the settings of a run, and so says what it is in a notebook."""

    config: RunConfig

    def __repr__(self) -> str:
        objective = owner(self.config.objective).__name__
        return f"{type(self).__name__}({objective} on {owner(self.config.encoder).__name__})"

    def _repr_html_(self) -> Html:
        return table([], [*facts(self.config)], type(self).__name__)


def facts(config: RunConfig) -> Iterator[list[object]]:
    """Yield what a network is, one fact with its name at a time."""
    yield ["objective", owner(config.objective).__name__]
    yield ["encoder", owner(config.encoder).__name__]
    yield ["data", ", ".join(config.data) or "unknown"]
    if config.labels:
        more = len(config.labels) - _NAMED
        rest = f" and {more} more" if more > 0 else ""
        yield ["classes", ", ".join(config.labels[:_NAMED]) + rest]
    yield ["segments", f"{config.loader.seconds:g} s"]
    yield ["front end", front_end_in_words(config.front_end)]


def front_end_in_words(front_end: LogMel.Config) -> str:
    """Return what a spectrogram is made of, in one line."""
    return (
        f"log-mel, {front_end.n_mels} bins from {front_end.low_hz:g} to {front_end.top_hz:g} Hz, "
        f"mono at {front_end.sample_rate} Hz, {front_end.window_ms:g} ms every "
        f"{front_end.hop_ms:g} ms"
    )
