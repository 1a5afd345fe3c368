"""The embedding of a recording of any length, or its classes, from the summaries of its windows."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from melpatch.data.clip import Batch
from melpatch.inference.network import Network
from melpatch.nn.pooling import Pooler, Pooling, segment_bounds
from melpatch.nn.summaries import join, join_all, join_pairs

_MOST_STRETCHES = 2048  # that a recording is kept as until its segments are known; even


class PooledRecording:
    """Pools a recording window by window, as if all its columns had been there at once.

    Where a pooling has segments, their edges are known only at the end: the columns are kept, and
    beyond 2,048 of them (five minutes with columns of 0.16 s) joined two by two, then four by four,
    so that memory stays bounded and the edges are off by less than a thousandth of the recording.

    Args:
        pooling: the pooling.
        rows: frequency rows of the encoder's grid.
    """

    def __init__(self, pooling: Pooling, rows: int) -> None:
        self._pooler = Pooler(pooling, rows)
        self._stretches: Tensor | None = None  # (stretch, field, channel), of `_span` columns each
        self._rest: Tensor | None = None  # columns that do not fill a stretch yet
        self._span = 1  # a power of 2

    def add(self, values: Float[np.ndarray, "stretch field channel"], seconds: float) -> None:
        """Take the summaries of the next window; its length in seconds does not matter."""
        new = torch.from_numpy(values)
        if self._pooler.pooling.segments == 1:
            self._join(new.double())
        else:
            self._keep(new)

    def result(self) -> Float[np.ndarray, " dim"]:
        """Return the vector of the windows so far, of which there is at least one."""
        fields = self._pooler.fields
        assert self._stretches is not None
        stretches = self._stretches.double()
        if self._rest is not None and len(self._rest):
            rest = join_all(self._rest.double(), fields)
            stretches = torch.cat([stretches, rest[None]])
        segments = [
            join_all(stretches[begin:end], fields)
            for begin, end in segment_bounds(len(stretches), self._pooler.pooling.segments)
        ]
        whole = segments[0]
        if len(segments) > 1:
            whole = join_all(stretches, fields)
        vector: np.ndarray = self._pooler.vector(whole, segments).float().numpy()
        return vector

    def _join(self, new: Tensor) -> None:
        if self._stretches is not None:
            new = join(self._stretches, new, self._pooler.fields)
        self._stretches = new

    def _keep(self, new: Tensor) -> None:
        stretches = new[:0] if self._stretches is None else self._stretches
        rest = new if self._rest is None else torch.cat([self._rest, new])
        # As many whole spans as there is room for; what is left of them waits for more.
        while full := min(_MOST_STRETCHES - len(stretches), len(rest) // self._span):
            begun = rest[: full * self._span]
            # A span is a power of 2: halved as often as that, it is one stretch.
            for _ in range(self._span.bit_length() - 1):
                begun = join_pairs(begun, self._pooler.fields)
            stretches = torch.cat([stretches, begun])
            rest = rest[full * self._span :]
            # No room: stretches become twice as long, so that memory is bounded.
            if len(stretches) == _MOST_STRETCHES:
                stretches = join_pairs(stretches, self._pooler.fields)
                self._span *= 2
        self._stretches = stretches
        self._rest = rest


def pooled_windows(
    network: Network, pooling: Pooling, seconds: float, batch: Batch
) -> list[Float[np.ndarray, " dim"]]:
    """Return the vector of each window of a batch, pooled over pieces that the network takes.

    The pieces lie end to end, as those of a recording that is embedded by itself, and go through
    the network one of each window at a time, so that long windows take no more of its memory.

    Args:
        network: what computes.
        pooling: the pooling.
        seconds: longest piece that the network takes.
        batch: windows of any length.
    """
    rate = network.objective.front_end.sample_rate
    size = round(seconds * rate)
    totals = [PooledRecording(pooling, network.grid_rows) for _ in range(len(batch))]
    number = 0
    while (begin := round(number * seconds * rate)) < batch.wave.shape[1]:
        rows = torch.nonzero(batch.lengths > begin)[:, 0]
        lengths = (batch.lengths[rows] - begin).clamp(max=size)
        piece = Batch(batch.wave[rows, begin : begin + size], lengths, batch.keys[rows])
        for row, values in zip(rows.tolist(), network.summaries(piece, pooling), strict=True):
            totals[row].add(values, seconds)
        number += 1
    return [total.result() for total in totals]


class PooledPrediction(PooledRecording):
    """The probability of each label for a recording, from its pooled vector.

    Args:
        network: a classifier.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(network.classifier().pooling, network.grid_rows)
        self._network = network

    def result(self) -> Float[np.ndarray, " label"]:
        """Return the probabilities for the windows so far, of which there is at least one."""
        return self._network.classify(super().result())


class TokenPrediction:
    """The probability of each label for a recording, by a head that takes all its tokens.

    Args:
        network: a classifier with such a head.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._summary: Tensor | None = None

    def add(self, values: Float[np.ndarray, " summary"], seconds: float) -> None:
        """Take the summary of the next window; its length in seconds does not matter."""
        new = torch.from_numpy(values).to(self._network.device)
        if self._summary is not None:
            new = self._network.classifier().join_summaries(self._summary[None], new[None])[0]
        self._summary = new

    def result(self) -> Float[np.ndarray, " label"]:
        """Return the probabilities for the windows so far, of which there is at least one."""
        assert self._summary is not None
        return self._network.classify_summary(self._summary)


class PooledAnswer(PooledPrediction):
    """The probability of each label for a recording, and then the pooled vector behind them."""

    def result(self) -> Float[np.ndarray, " label_and_dim"]:
        """Return them for the windows so far, of which there is at least one."""
        vector = PooledRecording.result(self)
        return np.concatenate([self._network.classify(vector), vector])
