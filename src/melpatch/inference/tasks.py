"""What to compute for each recording: its embedding, its frames, or its predictions."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from math import inf

import numpy as np
from jaxtyping import Float

from melpatch.audio.files import Channel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.inference.batches import BatchFunction, Output
from melpatch.inference.calibration import Calibration
from melpatch.inference.engine import InferenceTask
from melpatch.inference.fitted import FittedPooling
from melpatch.inference.network import Network, arrays
from melpatch.inference.novelty import Novelty
from melpatch.inference.pooled import (
    PooledAnswer,
    PooledPrediction,
    PooledRecording,
    TokenPrediction,
    pooled_windows,
)
from melpatch.inference.rows import (
    MeanOfWindows,
    Row,
    ToRows,
    Total,
    frame_rows,
    recording_rows,
    window_rows,
)
from melpatch.inference.windows import RecordingEnd, WindowSpec
from melpatch.nn.pooling import Pooling


def embedding_task(
    network: Network,
    seconds: float,
    *,
    pooling: str | None = None,
    layer: int | None = None,
    hop: float | None = None,
    channel: Channel = "mean",
    salvage: bool = False,
) -> InferenceTask:
    """Return the task of embedding recordings as one vector or, with a hop, as frames.

    Args:
        network: what computes.
        seconds: longest window that it takes.
        pooling: tokens to vector, see :mod:`melpatch.nn.pooling`; None takes the network's own, of
            which frames have the mean only.
        layer: layer whose output to take, see
            :meth:`melpatch.inference.network.Network.resolve_pooling`.
        hop: length of a frame in seconds; None gives one vector.
        channel: what is taken of several channels.
        salvage: whether a damaged recording has the vector of the sound before the damage.

    Raises:
        ConfigError: frames cannot be that short, or have no such pooling.
    """
    if hop is not None:
        return _frames_task(network, seconds, pooling, layer, hop, channel, salvage=salvage)
    how = embedding_pooling(network, pooling, layer, hop)
    rows = network.objective.encoder.grid.rows
    to_rows = partial(
        recording_rows, new_total=partial(PooledRecording, how, rows), keep_partial=salvage
    )
    function = partial(_window_summaries, network, how)
    return _task(network, seconds, seconds, function, to_rows, channel, salvage)


def embedding_pooling(
    network: Network, pooling: str | None, layer: int | None, hop: float | None
) -> Pooling:
    """Return the pooling of embeddings; see :func:`embedding_task`.

    Raises:
        ConfigError: there is no such pooling, or the encoder lacks what it needs.
    """
    how = network.resolve_pooling(pooling, layer)
    if hop is not None and pooling is None:
        return replace(how, statistics=("mean",), takes_cls=False, segments=1)
    return how


def _frames_task(
    network: Network,
    seconds: float,
    pooling: str | None,
    layer: int | None,
    hop: float,
    channel: Channel,
    *,
    salvage: bool,
) -> InferenceTask:
    how = embedding_pooling(network, pooling, layer, hop)
    grid = network.objective.encoder.grid
    hop_seconds = network.objective.front_end.hop_seconds
    column_hop = grid.stride[1] * hop_seconds
    shortest = f"{column_hop:g} s or more, the length of a column of patches"
    check(hop >= column_hop - 1e-9, "hop", hop, shortest)
    fits = how.statistics == ("mean",) and how.segments == 1 and not how.takes_cls
    fits = fits and not isinstance(how, FittedPooling)
    check(
        fits,
        "pooling",
        str(how),
        "mean or rows, with or without input and layers, where there is a hop",
    )
    to_rows = partial(
        frame_rows,
        hop=hop,
        column_hop=column_hop,
        column_width=grid.patch[1] * hop_seconds,
        keep_partial=salvage,
    )

    def columns(batch: Batch) -> list[np.ndarray]:
        return network.columns(batch, how)

    # Windows overlap by half, so that no part of a recording is seen at the edge of a window only.
    return _task(network, seconds, seconds / 2, columns, to_rows, channel, salvage)


def stretch_task(
    network: Network,
    longest: float,
    *,
    window: float,
    hop: float,
    pooling: str | None = None,
    layer: int | None = None,
    channel: Channel = "mean",
    salvage: bool = False,
) -> InferenceTask:
    """Return the task of one vector per window of a recording, as a clip of its own would have it.

    Args:
        network: what computes.
        longest: longest sound that it takes at once, in seconds; a longer window is pooled over
            pieces of that length.
        window: length of a window in seconds; the last one of a recording may be shorter.
        hop: seconds between the starts of windows.
        pooling: tokens to vector, see :func:`embedding_task`.
        layer: layer whose output to take.
        channel: what is taken of several channels.
        salvage: whether a damaged recording has the windows before the damage.

    Raises:
        ConfigError: the network takes no such windows, or has no such pooling.
    """
    check(0 < window < inf, "window", window, "seconds above 0")
    check(0 < hop <= window, "hop", hop, f"up to the window of {window:g} s")
    how = network.resolve_pooling(pooling, layer)

    def vectors(batch: Batch) -> list[np.ndarray]:
        if window > longest + 1e-9:
            return pooled_windows(network, how, longest, batch)
        return arrays(network.vectors(batch, how))

    return _task(network, window, hop, vectors, window_rows, channel, salvage)


def prediction_task(
    network: Network,
    seconds: float,
    *,
    hop: float | None = None,
    channel: Channel = "mean",
    salvage: bool = False,
    calibration: Calibration | None = None,
) -> InferenceTask:
    """Return the task of predicting labels for recordings or, with a hop, for their windows.

    Args:
        network: what computes.
        seconds: longest window that it takes.
        hop: seconds between the starts of windows; None averages over windows end to end.
        channel: what is taken of several channels.
        salvage: whether a damaged recording has the mean over the windows before the damage.
        calibration: what is done to the answers; None leaves them as they are.

    Raises:
        ConfigError: the network was not trained with labels, or the hop is shorter than a sample.
    """
    network.classifier()
    with_vectors = calibration is not None and calibration.novelty is not None
    if hop is None:
        function, new_total = recording_predictions(network, with_vectors=with_vectors)
        to_rows: ToRows = partial(recording_rows, new_total=new_total, keep_partial=salvage)
    else:
        function = partial(_window_probabilities, network)
        if with_vectors:
            function = network.answers
        to_rows = window_rows
    if calibration is not None:
        to_rows = partial(_calibrated_rows, to_rows, calibration)
    return _task(network, seconds, hop or seconds, function, to_rows, channel, salvage)


def recording_predictions(
    network: Network, *, with_vectors: bool = False
) -> tuple[BatchFunction, Callable[[], Total]]:
    """Return what to compute of each window, and what makes a recording's probabilities of that.

    Args:
        network: what computes.
        with_vectors: whether the vector behind a recording's probabilities follows them; not with a
            head that takes tokens.

    Raises:
        ConfigError: the network was not trained with labels.
    """
    classifier = network.classifier()
    if classifier.takes_tokens and classifier.config.recordings == "whole":
        return network.token_summaries, partial(TokenPrediction, network)
    if classifier.config.recordings == "whole":
        total = PooledAnswer if with_vectors else PooledPrediction
        return partial(_window_summaries, network, classifier.pooling), partial(total, network)
    if with_vectors:
        return network.answers, MeanOfWindows
    return partial(_window_probabilities, network), MeanOfWindows


def ranked_predictions(
    network: Network, novelty: Novelty
) -> tuple[BatchFunction, Callable[[], Total]]:
    """Return what :func:`recording_predictions` does, where a recording's novelty follows.

    Args:
        network: what computes; its head takes no tokens.
        novelty: how unlike the training clips a recording is.
    """
    function, new_total = recording_predictions(network, with_vectors=True)
    return function, partial(_RankedTotal, new_total, novelty)


class _RankedTotal:
    """The probabilities of a recording, and its novelty instead of the vector behind them.

    Args:
        new_total: makes what its windows come to.
        novelty: how unlike the training clips it is.
    """

    def __init__(self, new_total: Callable[[], Total], novelty: Novelty) -> None:
        self._total = new_total()
        self._novelty = novelty

    def add(self, values: Float[np.ndarray, "*_"], seconds: float) -> None:
        """See :class:`melpatch.inference.rows.Total`."""
        self._total.add(values, seconds)

    def result(self) -> Float[np.ndarray, " label_and_novelty"]:
        """See :class:`melpatch.inference.rows.Total`."""
        return self._novelty.rank_vector(self._total.result())


def _calibrated_rows(
    to_rows: ToRows, calibration: Calibration, outputs: Iterator[Output | RecordingEnd]
) -> Iterator[Row | RecordingEnd]:
    """Yield rows with calibrated probabilities and, if that is known, the novelty after them."""
    for item in to_rows(outputs):
        if isinstance(item, Row):
            yield item._replace(values=calibration.answers(item.values))
        else:
            yield item


def _window_probabilities(network: Network, batch: Batch) -> list[np.ndarray]:
    return arrays(network.probabilities(batch))


def _window_summaries(network: Network, pooling: Pooling, batch: Batch) -> list[np.ndarray]:
    return network.summaries(batch, pooling)


def _task(
    network: Network,
    seconds: float,
    hop: float,
    function: BatchFunction,
    to_rows: ToRows,
    channel: Channel,
    salvage: bool,
) -> InferenceTask:
    sample_rate = network.objective.front_end.sample_rate
    check(hop * sample_rate >= 1, "hop", hop, f"at least one sample, 1/{sample_rate} s")
    return InferenceTask(
        WindowSpec(seconds, hop, sample_rate, channel, salvage),
        function,
        to_rows,
        equal_lengths=network.objective.encoder.length_dependent,
        pin_memory=network.device.type == "cuda",
    )
