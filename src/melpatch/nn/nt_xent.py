"""NT-Xent: each view finds the other view of its clip among both views of all clips.

For unit vectors u of N clips in two views, where j(i) is the other view of view i's clip::

    l_i = -u_i . u_j(i) / temperature + ln sum_{k != i} exp(u_i . u_k / temperature)

With random vectors of many dimensions it starts at ln(2 N - 1).

Source: Chen et al. 2020, "SimCLR" (arXiv 2002.05709), equation 1.

>>> views = torch.ones(64, 2, 128)  # clip, view, dim
>>> losses, hits = nt_xent(views, torch.arange(64), temperature=0.1)  # (clip,) each
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from melpatch.nn.masked import at_least_float32


def nt_xent(
    views: Float[Tensor, "row 2 dim"], keys: Int[Tensor, " row"], temperature: float
) -> tuple[Float[Tensor, " row"], Float[Tensor, " row"]]:
    """Return the loss of each clip, the mean of its two views, and the share that was found.

    Args:
        views: projections of all clips of a step, of any length.
        keys: the clips' keys; a second copy of a clip is no negative of it.
        temperature: of the cosines.
    """
    rows = len(views)
    with torch.autocast(views.device.type, enabled=False):
        # The first views of all clips, then the second ones.
        unit = F.normalize(at_least_float32(views), dim=2).transpose(0, 1).flatten(0, 1)
        scores = unit @ unit.T / temperature
        # Neither a view itself nor a second copy of its clip is a candidate, but its other view is.
        # By index, since boolean masks would wait for the device.
        positive = torch.arange(2 * rows, device=keys.device).roll(rows)[:, None]
        candidate = (keys[:, None] != keys).repeat(2, 2).scatter(1, positive, value=True)
        scores = scores.masked_fill(~candidate, torch.finfo(scores.dtype).min)
        losses = -scores.log_softmax(dim=1).gather(1, positive).view(2, rows)
    # Found is a positive that nothing else equals, so that a collapse finds none.
    rivals = (scores >= scores.gather(1, positive)).sum(dim=1)
    hits = (rivals == 1).to(losses.dtype).view(2, rows)
    return losses.mean(dim=0), hits.mean(dim=0)
