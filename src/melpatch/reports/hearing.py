"""The part of a report on what a network makes of sound: masks, gradients, and a map of embeddings."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from melpatch.counted import counted
from melpatch.data.clip import Clip
from melpatch.data.corpus import Corpus
from melpatch.data.loader import evaluation_batches
from melpatch.data.segments import crop
from melpatch.data.sound import decode, loudest
from melpatch.errors import AudioError, MelpatchError
from melpatch.inference.gradients import gradient_map
from melpatch.inference.model import Model, load
from melpatch.markup import Html, paragraph
from melpatch.objectives.classify import Classify
from melpatch.plots.embedding_map import embedding_map
from melpatch.plots.gradients import gradients
from melpatch.reports.media import embedded, picture
from melpatch.reports.page import Section, missing
from melpatch.training.config import RunConfig
from melpatch.training.run import Run
from melpatch.workflows.corpus import read_corpus
from melpatch.workflows.pictures import draw_pictures, run_title

_SHOWN = 3
"""Clips whose masks or gradients are drawn."""
_GRADIENT = (
    "The gradient of the most probable label's logit with respect to the spectrogram, absolute and "
    "averaged over each patch (not attention weights): where a small change would alter the answer "
    "most."
)
_MASKS = (
    "Clean, masked and, where the method reconstructs, reconstructed. The error is the mean square "
    "over the masked values; beside it is that of the mean of the visible values of the same mel bin, "
    "which a network that has learnt something is below."
)


def hearing_sections(folder: Path, settings: RunConfig, clips: int) -> list[Section]:
    """Return the sections for which the network and its training clips are needed.

    Args:
        folder: the run folder.
        settings: its settings.
        clips: how many clips to embed; 0 leaves all of it out.
    """
    if not clips:
        return []
    title = "What it makes of sound"
    try:
        model = load(folder)
        corpus = read_corpus(settings, Run(folder, settings))
    except MelpatchError as error:
        return [Section(title, [missing(f"No pictures of training clips: {error}")])]
    chosen = sorted(_trained_on(folder, corpus), key=lambda clip: clip.key)
    return [
        Section(title, [*_stretches(folder, model, chosen)]),
        Section("Map of the embeddings", [*_map(folder, model, corpus, chosen[:clips])]),
    ]


def _trained_on(folder: Path, corpus: Corpus) -> Sequence[Clip]:
    """Return the clips that a run was trained on; all of them if that was not recorded."""
    identities = Run.trained_on(folder)
    if identities is None:
        return corpus.clips
    return [clip for clip in corpus.clips if not identities.isdisjoint(clip.identities)]


def _stretches(folder: Path, model: Model, clips: Sequence[Clip]) -> Iterator[Html]:
    """Yield pictures of the loudest segments of the first clips that can be read."""
    is_classifier = isinstance(model.objective, Classify)
    yield paragraph(_GRADIENT if is_classifier else _MASKS)
    seconds = model.config.loader.seconds
    drawn = 0
    for clip in clips:
        if drawn == _SHOWN:
            return
        name = clip.location.rpartition("/")[2]
        try:
            part = loudest(clip, seconds, model.sample_rate)
            if is_classifier:
                shown = [_gradients(folder, model, part)]
            else:
                shown = [*_pictures(folder, model, part)]
        except AudioError:
            continue
        except MelpatchError as error:
            yield missing(f"{name}: not drawn, since {error}")
            return
        yield from shown
        drawn += 1


def _title(folder: Path, model: Model, clip: Clip) -> str:
    where = f"{clip.location.rpartition('/')[2]} from {clip.start:.1f} s"
    split = f", split {clip.split}" if clip.split else ""
    return f"{run_title(folder, model.config)}: {where}{split}"


def _pictures(folder: Path, model: Model, clip: Clip) -> Iterator[Html]:
    title = _title(folder, model, clip)
    with TemporaryDirectory() as drawn:
        files = draw_pictures(Path(drawn), model, clip, title)
        if not files:
            name = type(model.objective).__name__
            yield missing(f"{name} masks and reconstructs nothing that could be drawn.")
        for file in files:
            yield embedded(file, f"{file.stem} of {title}")


def _gradients(folder: Path, model: Model, clip: Clip) -> Html:
    gradient = gradient_map(model, torch.from_numpy(decode(clip, model.sample_rate)), clip.key)
    true = f"; true: {', '.join(clip.labels)}" if clip.labels else ""
    answer = f"{_title(folder, model, clip)}: {gradient.label} ({gradient.probability:.2f}){true}"
    draw = partial(
        gradients,
        clean=gradient.clean.numpy(force=True),
        weight=gradient.weight.numpy(force=True),
        front_end=model.objective.front_end.config,
        stride=model.objective.encoder.grid.stride,
        title=answer,
    )
    return picture(draw, f"Gradient map of {answer}")


def _map(folder: Path, model: Model, corpus: Corpus, clips: Sequence[Clip]) -> Iterator[Html]:
    labels = {clip.key: ", ".join(clip.labels) for clip in clips}
    segments = [crop(clip, model.seconds, model.config.seed, 0) for clip in clips]
    vectors: list[np.ndarray] = []
    names: list[str] = []
    loaded = evaluation_batches(segments, model.sample_rate, batch_size=model.default_batch_size)
    for batch in chain.from_iterable([entry.batch] if entry.batch else [] for entry in loaded):
        vectors.extend(model.embed_batch(batch).float().cpu().numpy())
        names.extend(labels[key] for key in batch.keys.tolist())
    if not vectors:
        yield missing("No map: no clip can be read.")
        return
    about = f"{counted(len(vectors), 'clip')} of {corpus.shown_name}"
    title = f"{run_title(folder, model.config)}: {about}"
    yield picture(
        partial(embedding_map, vectors=np.stack(vectors), labels=names, title=title),
        f"Map of the embeddings of {title}",
        f"A point per clip ({model.default_pooling} pooling), in the plane in which they differ "
        "most (principal components). Clips of one label lie together where the network tells them "
        "apart; a single heap or line is a collapse.",
    )
