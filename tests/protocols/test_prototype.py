"""The prototype probe against loops over clips, classes, prototypes and tokens."""

import torch
from torch.nn.functional import cosine_similarity

from melpatch.protocols.prototype import PrototypeHead

LENGTHS = torch.tensor([5, 1, 3])


def ragged(dim=6):
    """Three clips of tokens, rubbish past their ends."""
    tokens = torch.randn(3, 5, dim, dtype=torch.float64)
    valid = torch.arange(5) < LENGTHS[:, None]
    return tokens.masked_fill(~valid[..., None], 1e3), valid


@torch.inference_mode()
def test_scores_are_the_formula():
    torch.manual_seed(0)
    head = PrototypeHead(dim=6, prototypes=3, num_labels=4).double()
    torch.nn.init.normal_(head.connections)
    torch.nn.init.normal_(head.bias)
    assert (head.connections < 0).any()
    tokens, valid = ragged()
    found = head(tokens, valid)
    for clip, length in enumerate(LENGTHS):
        for label in range(4):
            score = head.bias[label]
            for prototype, connection in zip(
                head.prototypes[label], head.connections[label], strict=True
            ):
                nearest = max(
                    cosine_similarity(prototype, token, dim=0) for token in tokens[clip, :length]
                )
                score = score + max(connection, 0) * max(nearest, 0)
            torch.testing.assert_close(found[clip, label], score)


@torch.inference_mode()
def test_only_the_direction_of_a_token_counts():
    head, (tokens, valid) = PrototypeHead(dim=6, prototypes=2, num_labels=2).double(), ragged()
    loudness = torch.rand(3, 5, 1, dtype=torch.float64) + 0.1
    torch.testing.assert_close(head(loudness * tokens, valid), head(tokens, valid))
