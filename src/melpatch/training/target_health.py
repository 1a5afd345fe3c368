"""Health of a teacher's targets: whether they still differ between clips."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from melpatch.objectives.latent import MaskedTargets
from melpatch.training.rank import effective_rank

# Targets of a clip that are measured, evenly spread over its masked patches.
_PER_CLIP = 32
# Shares of the targets' energy: in which they all differ, and in which clips differ at a place.
_LEAST_SPREAD = 0.05
_LEAST_OF_CLIP = 0.05
_FALL_OF_RANK = 0.1
_REMEDY = (
    "raise --objective.momentum.start, lower --lr, or look at the corpus for clips that are all "
    "alike"
)


class PlacedTargets(NamedTuple):
    """Targets of patches, the row and column of each, and targets of whole clips, if any."""

    places: Int[Tensor, "token 2"]
    targets: Float[Tensor, "token dim"]
    utterances: Float[Tensor, "clip dim"] | None = None


def sample(wanted: MaskedTargets) -> PlacedTargets:
    """Return some targets of each clip, in float32 on the CPU."""
    masked, targets, columns, utterances = wanted
    count = min(_PER_CLIP, targets.shape[1])
    chosen = torch.linspace(0, targets.shape[1] - 1, count, device=targets.device).long()
    valid = masked.valid[:, chosen]
    # Token numbers are those of a batch: the same place has another one where clips are longer.
    numbers = masked.indices[:, chosen][valid]
    places = torch.stack([numbers // columns, numbers % columns], dim=1)
    if utterances is not None:
        utterances = utterances.float().cpu()
    return PlacedTargets(places.cpu(), targets[:, chosen][valid].float().cpu(), utterances)


def target_health(parts: Sequence[PlacedTargets]) -> dict[str, float]:
    """Return how the targets of many clips differ; nothing for fewer than two targets.

    ``target_spread``: share of the energy of the targets, at length 1 each, that is not their
    common mean: near 1 if they point everywhere, 0 if all are alike. ``target_of_place``: share of
    their energy that is the same for all clips at a place, which a prediction can know without
    listening. ``target_rank``: their effective rank, see
    :func:`melpatch.training.rank.effective_rank`. With targets of whole clips also
    ``utterance_energy``: their energy as a share of that of a patch's target; ``utterance_of_all``:
    share of it that is the same for all clips.
    """
    if sum(len(part.places) for part in parts) < 2:
        return {}
    places = torch.cat([part.places for part in parts])
    targets = torch.cat([part.targets for part in parts])
    unit = F.normalize(targets, dim=1)
    of_clips = {}
    whole = [part.utterances for part in parts if part.utterances is not None]
    if sum(map(len, whole)) > 1:
        utterances = torch.cat(whole)
        energy = utterances.square().mean() / targets.square().mean().clamp(min=1e-12)
        same_place = places.new_zeros(len(utterances), 2)
        of_clips = {
            "utterance_energy": float(energy),
            "utterance_of_all": _share_of_place(same_place, utterances),
        }
    return of_clips | {
        "target_spread": 1 - float(unit.mean(dim=0).square().sum()),
        "target_of_place": _share_of_place(places, targets),
        "target_rank": effective_rank(targets),
    }


def _share_of_place(places: Int[Tensor, "token 2"], targets: Float[Tensor, "token dim"]) -> float:
    """Return the share of the targets' energy that is the same for all clips at a place, 0 to 1.

    The energy within places is divided by the degrees of freedom, so that few clips do not look
    alike.
    """
    _, place, counts = torch.unique(places, return_inverse=True, return_counts=True, dim=0)
    sums = targets.new_zeros(len(counts), targets.shape[1]).index_add_(0, place, targets)
    means = sums / counts[:, None]
    # W / E: mean energy about the place's mean, of all energy
    within = (targets - means[place]).square().sum() / max(len(targets) - len(counts), 1)
    energy = targets.square().sum() / len(targets)
    return float((1 - within / energy.clamp(min=1e-12)).clamp(0, 1))


def target_warning(now: Mapping[str, float], start: Mapping[str, float]) -> str | None:
    """Return a warning with a remedy if the targets say little of the clips any more, else None."""
    if now["target_spread"] < _LEAST_SPREAD:
        return (
            f"the targets of all clips are alike (they differ by {now['target_spread']:.1%} of "
            f"their energy); {_REMEDY}"
        )
    # At random weights, or on clips of noise, the place may be most of it from the start.
    of_clip = 1 - now["target_of_place"]
    if of_clip < min(_LEAST_OF_CLIP, 0.5 * (1 - start["target_of_place"])):
        return (
            f"{now['target_of_place']:.0%} of the targets is the same for all clips at a place, "
            f"and can be predicted without listening; {_REMEDY}"
        )
    if now["target_rank"] < _FALL_OF_RANK * start["target_rank"]:
        return (
            f"the targets collapse: their effective rank fell from {start['target_rank']:.1f} to "
            f"{now['target_rank']:.1f}; {_REMEDY}"
        )
    return None
