"""Heads that take tokens against slow obvious versions, and summaries of stretches against the whole."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from melpatch.nn.token_heads import AttentiveHead, PrototypeHead

LENGTHS = torch.tensor([5, 1, 3])
HEADS = {
    "attentive": lambda: AttentiveHead(dim=12, heads=3, num_labels=2).double(),
    "prototype": lambda: PrototypeHead(dim=12, prototypes=3, num_labels=4).double(),
}


def ragged(dim=12):
    """Three clips of tokens, rubbish past their ends."""
    tokens = torch.randn(3, 5, dim, dtype=torch.float64)
    valid = torch.arange(5) < LENGTHS[:, None]
    return tokens.masked_fill(~valid[..., None], 1e3), valid


def test_attention_is_the_cross_attention_of_one_learned_query():
    """Torch's has a query, and projections of query, keys, values and output; ours joins what is linear."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, batch_first=True).double()
    query = torch.randn(12, dtype=torch.float64)
    nn.init.normal_(attention.in_proj_bias)
    nn.init.eye_(attention.out_proj.weight)
    head = HEADS["attentive"]()
    to_query, to_key, to_value = attention.in_proj_weight.detach().chunk(3)
    query_bias, _, value_bias = attention.in_proj_bias.detach().chunk(3)
    asked = (to_query @ query + query_bias).view(3, 4)
    with torch.no_grad():
        for number in range(3):
            head.queries[number] = asked[number] @ to_key.view(3, 4, 12)[number] / 4**0.5
        head.values.weight.copy_(to_value)
        head.values.bias.copy_(value_bias)
        tokens, valid = ragged()
        attended, _ = attention(query.expand(3, 1, 12), tokens, tokens, key_padding_mask=~valid)
        torch.testing.assert_close(head(tokens, valid), head.classify(head.norm(attended[:, 0])))


@torch.inference_mode()
def test_scores_of_prototypes_are_the_formula():
    torch.manual_seed(0)
    head = HEADS["prototype"]()
    torch.nn.init.normal_(head.connections)
    torch.nn.init.normal_(head.bias)
    assert (head.connections < 0).any()
    tokens, valid = ragged()
    scores = head(tokens, valid)
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
            torch.testing.assert_close(scores[clip, label], score)


@torch.inference_mode()
def test_only_the_direction_of_a_token_counts_for_prototypes():
    head = HEADS["prototype"]()
    tokens, valid = ragged()
    loudness = torch.rand(3, 5, 1, dtype=torch.float64) + 0.1
    torch.testing.assert_close(head(loudness * tokens, valid), head(tokens, valid))


@pytest.mark.parametrize("kind", HEADS)
@torch.inference_mode()
def test_rubbish_past_a_clips_end_changes_nothing(kind):
    tokens, valid = ragged()
    head = HEADS[kind]()
    together = head(tokens, valid)
    for row, length in enumerate(LENGTHS):
        alone = head(tokens[row : row + 1, :length], None)
        torch.testing.assert_close(alone[0], together[row])


@pytest.mark.parametrize("kind", HEADS)
@torch.inference_mode()
def test_stretches_join_to_the_whole(kind):
    torch.manual_seed(0)
    head = HEADS[kind]()
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    tokens = torch.randn(2, 9, 12, dtype=torch.float64)
    summary = head.summarise(tokens[:, :1], None)
    for begin, end in ((1, 5), (5, 7), (7, 9)):
        summary = head.join(summary, head.summarise(tokens[:, begin:end], None))
    torch.testing.assert_close(head.logits(summary), head(tokens, None))
