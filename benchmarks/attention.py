"""Fused attention beside plain matrix products, whole and by blocks of rows, forward and backward.

    OMP_NUM_THREADS=1 python benchmarks/attention.py [--clips 96 --heads 3 --tokens 105]

Prints one JSON line per precision and way: the least CPU milliseconds of some repetitions, the
ways in turn.
"""

import json
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import tyro

from melpatch.nn.attention import blockwise_attention, plain_attention


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to time."""

    clips: int = 96
    """Clips in a batch."""
    heads: int = 3
    """Heads of 64 channels."""
    tokens: int = 105
    """Tokens per clip."""
    repetitions: int = 6
    """Of which the fastest counts."""


def main(config: Config) -> None:
    ways = {
        "fused": F.scaled_dot_product_attention,
        "plain": plain_attention,
        "blocks": blockwise_attention,
    }
    for kind in (torch.float32, torch.bfloat16):
        best = {name: [float("inf"), float("inf")] for name in ways}
        for _ in range(config.repetitions):
            for name, attend in ways.items():
                packed = (
                    torch.randn(config.clips, config.tokens, 3, config.heads, 64)
                    .to(kind)
                    .requires_grad_()
                )
                start = time.process_time()
                output = attend(*packed.permute(2, 0, 3, 1, 4))
                middle = time.process_time()
                output.sum().backward()
                taken = (middle - start, time.process_time() - middle)
                best[name] = [min(pair) for pair in zip(best[name], taken, strict=True)]
        for name, (forward, backward) in best.items():
            record = {"way": name, "precision": str(kind).removeprefix("torch."), **vars(config)}
            milliseconds = {
                "forward_ms": round(1000 * forward, 6),
                "backward_ms": round(1000 * backward, 6),
            }
            print(json.dumps(record | milliseconds), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
