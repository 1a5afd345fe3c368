"""Heads that take all tokens of a clip and do their own pooling.

What a head keeps of some tokens is a summary of fixed length, and summaries join: a recording of
any length is classified window by window, as if all its tokens had been there at once.

>>> tokens = torch.linspace(-1, 1, 2 * 30 * 192).view(2, 30, 192)  # (clip, token, dim)
>>> valid = torch.ones(2, 30, dtype=torch.bool)
>>> head = AttentiveHead(dim=192, heads=16, num_labels=10)
>>> logits = head(tokens, valid)  # (clip, label)
>>> begin = head.summarise(tokens[:, :10], valid[:, :10])
>>> end = head.summarise(tokens[:, 10:], valid[:, 10:])
>>> torch.allclose(head.logits(head.join(begin, end)), logits, atol=1e-5)
True
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from melpatch.config import check
from melpatch.nn.masked import masked_max


class TokenHead(nn.Module, ABC):
    """A classifier of the tokens of a clip."""

    @abstractmethod
    def summarise(
        self, tokens: Float[Tensor, "clip token dim"], valid: Bool[Tensor, "clip token"] | None
    ) -> Float[Tensor, "clip summary"]:
        """Return what the head keeps of each clip.

        Args:
            tokens: of the encoder.
            valid: which tokens are no padding, one of each clip at least; None for all.
        """

    @abstractmethod
    def join(
        self, first: Float[Tensor, "clip summary"], second: Float[Tensor, "clip summary"]
    ) -> Float[Tensor, "clip summary"]:
        """Return the summary of the tokens of both."""

    @abstractmethod
    def logits(self, summary: Float[Tensor, "clip summary"]) -> Float[Tensor, "clip label"]:
        """Return the logits of summarised clips."""

    def forward(
        self, tokens: Float[Tensor, "clip token dim"], valid: Bool[Tensor, "clip token"] | None
    ) -> Float[Tensor, "clip label"]:
        """Return the logits of clips, see :meth:`summarise`."""
        return self.logits(self.summarise(tokens, valid))


class AttentiveHead(TokenHead):
    """Multi-head cross-attention of one learned query, LayerNorm, linear layer.

    A head's attention to a token is the product of its query, its key projection and the token. The
    first two are learned and the same for all tokens, so together they are one learned vector; and
    the value projection of a weighted mean is the weighted mean of the projections. So no token is
    ever projected, which makes the head ten times as fast.

    Source: "efficient probing", Psomas et al. 2025 (arXiv 2506.10178), section 3.

    Raises:
        ConfigError: ``heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, heads: int, num_labels: int) -> None:
        super().__init__()
        allowed = f"a divisor of {dim}, the width of this encoder's tokens"
        check(dim % heads == 0, "heads", heads, allowed)
        self.queries = nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, dim), std=0.02))
        self.values = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.classify = nn.Linear(dim, num_labels)

    def summarise(
        self, tokens: Float[Tensor, "clip token dim"], valid: Bool[Tensor, "clip token"] | None
    ) -> Float[Tensor, "clip summary"]:
        """Return for each head the mean token, then the logarithm of the weight that it stands for."""
        # Softmax over the valid tokens of a clip, then per head the weighted mean of its tokens:
        # (clip, head, dim).
        scores = tokens @ self.queries.T
        if valid is not None:
            scores = scores.masked_fill(~valid[..., None], -torch.inf)
        pooled = scores.softmax(dim=1).transpose(1, 2) @ tokens
        return torch.cat([pooled.flatten(1), scores.logsumexp(dim=1)], dim=1)

    def join(
        self, first: Float[Tensor, "clip summary"], second: Float[Tensor, "clip summary"]
    ) -> Float[Tensor, "clip summary"]:
        """Return the mean tokens of both, each weighted by what it stands for."""
        pooled, log_weights = self._parts(torch.stack([first, second]))
        shares = log_weights.softmax(dim=0)[..., None]
        return torch.cat([(shares * pooled).sum(0).flatten(1), log_weights.logsumexp(0)], dim=1)

    def logits(self, summary: Float[Tensor, "clip summary"]) -> Float[Tensor, "clip label"]:
        """See :meth:`TokenHead.logits`."""
        pooled, _ = self._parts(summary)
        heads, dim = self.queries.shape
        # Each head has its own output channels of the value projection: the weight as (head,
        # channel, dim).
        weight = self.values.weight.view(heads, -1, dim)
        attended = torch.einsum("bhd,hcd->bhc", pooled, weight).flatten(1) + self.values.bias
        logits: Tensor = self.classify(self.norm(attended))
        return logits

    def _parts(
        self, summary: Float[Tensor, "*clip summary"]
    ) -> tuple[Float[Tensor, "*clip head dim"], Float[Tensor, "*clip head"]]:
        heads = len(self.queries)
        pooled = summary[..., :-heads].view(*summary.shape[:-1], *self.queries.shape)
        return pooled, summary[..., -heads:]


class PrototypeHead(TokenHead):
    """Cosines of a clip's tokens with prototypes, the largest of each prototype, and a weighted sum per class.

    The score of class c is b_c + the sum over its prototypes j of relu(w_cj) * relu(max over tokens
    t of cos(p_cj, t)). A prototype counts for its own class only, and never against it. Connections
    w start at 1, biases b at -2.
    """

    def __init__(self, dim: int, prototypes: int, num_labels: int) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(nn.init.normal_(torch.empty(num_labels, prototypes, dim)))
        self.connections = nn.Parameter(torch.ones(num_labels, prototypes))
        self.bias = nn.Parameter(torch.full((num_labels,), -2.0))

    def summarise(
        self, tokens: Float[Tensor, "clip token dim"], valid: Bool[Tensor, "clip token"] | None
    ) -> Float[Tensor, "clip summary"]:
        """Return for each prototype the cosine of the nearest valid token, of all labels in a row."""
        directions = F.normalize(self.prototypes, dim=-1).flatten(0, 1)
        return masked_max(F.normalize(tokens, dim=-1) @ directions.T, valid)

    def join(
        self, first: Float[Tensor, "clip summary"], second: Float[Tensor, "clip summary"]
    ) -> Float[Tensor, "clip summary"]:
        """Return the cosines of the nearer tokens."""
        return torch.maximum(first, second)

    def logits(self, summary: Float[Tensor, "clip summary"]) -> Float[Tensor, "clip label"]:
        """See :meth:`TokenHead.logits`."""
        # Negative cosines count as none.
        nearest = summary.relu().view(-1, *self.connections.shape)
        evidence: Tensor = nearest * self.connections.relu()
        return evidence.sum(dim=-1) + self.bias
