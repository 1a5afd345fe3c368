"""The attentive probe against torch's cross-attention of one query."""

import pytest
import torch
from protocols.made_up import corpus, job
from torch import nn

from melpatch.errors import ConfigError
from melpatch.protocols.attentive import Attentive, AttentiveHead

LENGTHS = torch.tensor([5, 1, 3])


def ragged(dim=12):
    """Three clips of tokens, rubbish past their ends."""
    tokens = torch.randn(3, 5, dim, dtype=torch.float64)
    valid = torch.arange(5) < LENGTHS[:, None]
    return tokens.masked_fill(~valid[..., None], 1e3), valid


def test_it_is_the_cross_attention_of_one_learned_query():
    """Torch's has a query, and projections of query, keys, values and output; ours joins what is linear."""
    torch.manual_seed(0)
    attention, query = (
        nn.MultiheadAttention(12, 3, batch_first=True).double(),
        torch.randn(12, dtype=torch.float64),
    )
    nn.init.normal_(attention.in_proj_bias)
    nn.init.eye_(attention.out_proj.weight)
    head = AttentiveHead(dim=12, heads=3, num_labels=2).double()
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
def test_rubbish_past_a_clips_end_changes_nothing():
    tokens, valid = ragged()
    head = AttentiveHead(dim=12, heads=4, num_labels=2).double()
    together = head(tokens, valid)
    for row, length in enumerate(LENGTHS):
        alone = head(tokens[row : row + 1, :length], valid[row : row + 1, :length])
        torch.testing.assert_close(alone[0], together[row])


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match="heads = 3; allowed: a divisor of 8, the width of this encoder's tokens"
    ):
        Attentive(heads=3).run_trials(job(tmp_path, corpus(12)))
