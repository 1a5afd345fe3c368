"""Where in a spectrogram a classifier looks: the gradient of its answer with respect to the input."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from melpatch.data.clip import Batch
from melpatch.default_dtype import float32_by_default
from melpatch.inference.model import Model
from melpatch.objectives.base import Features


class GradientMap(NamedTuple):
    """How much the most probable answer to a clip depends on each patch of its spectrogram."""

    clean: Float[Tensor, "mel frame"]
    """The clip in log-mel values."""
    weight: Float[Tensor, "row column"]
    """Mean over the patch of the absolute gradient of the logit, largest 1; NaN in padding."""
    label: str
    """The most probable label."""
    probability: float
    """Its probability, not calibrated."""


@float32_by_default()
def gradient_map(model: Model, wave: Float[Tensor, " sample"], key: int = 0) -> GradientMap:
    """Return where the most probable answer to a clip comes from.

    It is the gradient of the label's logit with respect to the network's input, absolute, as the
    mean over each patch. It takes one pass back, and any encoder. It shows what a small change
    would alter, not what the network would miss: a loud constant sound may matter and have a small
    gradient.

    Source: Simonyan, Vedaldi and Zisserman 2013, "Deep inside convolutional networks" (arXiv
    1312.6034), section 3. *Differs:* the mean over a patch, since single pixels are noise.

    Args:
        model: a classifier.
        wave: samples at the model's rate, no longer than its input.
        key: key of the clip.

    Raises:
        ConfigError: the model was not trained with labels.
    """
    classifier = model.network.classifier()
    batch = Batch(wave[None], torch.tensor([len(wave)]), torch.tensor([key])).to(model.device)
    with torch.no_grad():
        features = classifier.features(batch)
    with torch.enable_grad():
        spectrogram = features.spectrogram.detach().clone().requires_grad_()
        logits = classifier.logits(Features(spectrogram, features.valid))[0]
        best = int(logits.argmax())
        (gradient,) = torch.autograd.grad(logits[best], spectrogram)
    grid = classifier.encoder.grid
    columns = grid.columns(spectrogram.shape[2])
    weight = grid.split(gradient.abs()).mean(dim=2)[0]
    if features.valid is not None:
        weight = weight.masked_fill(~features.valid[0], torch.nan)
    largest = weight.nan_to_num().max().clamp(min=torch.finfo(weight.dtype).tiny)
    with torch.no_grad():
        probability = classifier.probabilities(batch)[0, best]
    return GradientMap(
        classifier.front_end.denormalise(spectrogram.detach())[0],
        (weight / largest).view(grid.rows, columns),
        classifier.labels[best],
        float(probability),
    )
