"""Draw what an objective masks, sees and reconstructs of a clip, and which views it compares."""

from pathlib import Path
from typing import Any

import torch

from melpatch.config import owner
from melpatch.data.clip import Batch, Clip
from melpatch.data.sound import decode
from melpatch.data.sources import source_name
from melpatch.inference.model import Model
from melpatch.objectives.base import Objective, Picture
from melpatch.plots.clip_views import clip_views
from melpatch.plots.latent import prediction_maps, view_masks
from melpatch.plots.pseudo_labels import pseudo_labels
from melpatch.plots.spectrogram import reconstruction
from melpatch.training.config import RunConfig

PICTURES = ("reconstruction.png", "classes.png", "prediction.png", "views.png", "two_views.png")
"""The files of pictures of a clip."""


def run_title(folder: Path, settings: RunConfig) -> str:
    """Return a title for what a run learnt: its folder, its objective and its corpus."""
    title = f"{folder}: {owner(settings.objective).__name__}"
    if settings.data:
        title += f" on {' + '.join(map(source_name, settings.data))}"
    return title


def draw_pictures(folder: Path, model: Model, clip: Clip, title: str = "") -> list[Path]:
    """Draw what a model's objective masks, sees, reconstructs and compares of a clip.

    Returns the files, none if the objective has nothing to show. No other clip is there to be mixed
    with a view.

    Args:
        folder: where the pictures are written.
        model: a trained model with its objective.
        clip: the clip to draw.
        title: words above each picture; by default the name of the clip's file.

    Raises:
        AudioError: the clip cannot be read.
    """
    objective = model.objective
    wave = decode(clip, model.sample_rate)
    batch = Batch(torch.from_numpy(wave)[None], torch.tensor([len(wave)]), torch.tensor([clip.key]))
    title = title or clip.location.rpartition("/")[2]
    with torch.inference_mode():
        picture = objective.picture(batch.to(model.device), 0)
        views = objective.view_pictures(batch.to(model.device), 0)
    files = []
    if picture is not None:
        files += _of_picture(folder, picture, objective, title)
    if views:
        files.append(folder / PICTURES[4])
        hop = objective.front_end.hop_seconds
        clip_views(files[-1], views, seconds_per_frame=hop, title=title)
    return files


def _of_picture(folder: Path, picture: Picture, objective: Objective, title: str) -> list[Path]:
    """Draw what an objective masks, sees and predicts, and return the files."""
    shown: dict[str, Any] = {
        "seconds_per_frame": objective.front_end.hop_seconds,
        "front_end": objective.front_end.config,
        "title": title,
    }
    files = [folder / PICTURES[0]]
    reconstruction(files[0], picture, **shown)
    stride = objective.encoder.grid.stride
    if picture.pseudo_labels is not None:
        files.append(folder / PICTURES[1])
        pseudo_labels(files[-1], picture, stride=stride, **shown)
    if picture.latent is not None:
        files.append(folder / PICTURES[2])
        prediction_maps(files[-1], picture, stride=stride, **shown)
    if picture.latent is not None and len(picture.latent.masked) > 1:
        files.append(folder / PICTURES[3])
        view_masks(files[-1], picture, title=title)
    return files
