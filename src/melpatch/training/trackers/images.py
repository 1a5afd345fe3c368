"""Images for trackers: spectrogram, masked input, reconstruction, pseudo-labels and views of a clip."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from melpatch.colours import class_colours
from melpatch.objectives.base import Picture

# Height in pixels of the white line between two spectrograms.
_LINE = 2
# Side in pixels of a patch in the map of pseudo-labels.
_PATCH = 16


def images_of(picture: Picture) -> dict[str, Float[Tensor, "height width 3"]]:
    """Return images by name: the stacked spectrograms, and the pseudo-labels if there are any.

    Values are in [0, 1]. Low mels are at the bottom, masked parts are grey.
    """
    stages = _stages(picture)
    images = {", ".join(stages): _stacked(picture.clean, list(stages.values()))}
    if picture.pseudo_labels is not None:
        images["classes"] = _coloured(picture.pseudo_labels)
    return images


def image_of_views(
    views: Mapping[str, Float[Tensor, "mel _frame"]],
) -> dict[str, Float[Tensor, "height width 3"]]:
    """Return one image, by name, of a clip and its views above each other, or none."""
    if not views:
        return {}
    clean, *_ = views.values()
    widest = max(view.shape[1] for view in views.values())
    # NaN is drawn grey.
    rows = [F.pad(view, (0, widest - view.shape[1]), value=torch.nan) for view in views.values()]
    return {", ".join(views): _stacked(clean, rows)}


def _stages(picture: Picture) -> dict[str, Float[Tensor, "mel frame"]]:
    """Return the spectrograms by name, with the mask if the encoder's input does not show it."""
    stages = {"clean": picture.clean, "input": picture.input}
    if not picture.masked_is_blank:
        # NaN is drawn grey.
        stages["mask"] = torch.where(picture.masked, torch.nan, picture.clean.max())
    if picture.reconstruction is not None:
        stages["reconstruction"] = picture.reconstruction
    return stages


def _stacked(
    clean: Float[Tensor, "mel _frame"], stages: list[Float[Tensor, "mel frame"]]
) -> Float[Tensor, "height frame 3"]:
    """Return the stacked spectrograms, on the scale of the clean one, with white lines between."""
    low = clean.min()
    scale = (clean.max() - low).clamp(min=1e-6)
    rows = []
    for stage in stages:
        shade = ((stage - low) / scale).nan_to_num(0.5).clamp(0, 1)
        rows.append(F.pad(shade.flip(0), (0, 0, 0, _LINE), value=1.0))
    grey = torch.cat(rows)[:-_LINE].float().cpu()
    return grey[..., None].expand(-1, -1, 3)


def _coloured(labels: Int[Tensor, "row column"]) -> Float[Tensor, "height width 3"]:
    """Return the map of pseudo-labels, lowest row at the bottom."""
    colours = class_colours(labels.flip(0))
    return colours.repeat_interleave(_PATCH, 0).repeat_interleave(_PATCH, 1).float().cpu()
