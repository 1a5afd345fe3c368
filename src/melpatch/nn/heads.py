"""Projection heads: small networks between an encoder's tokens and what an objective compares them with."""

from torch import nn


def mlp_head(in_dim: int, out_dim: int) -> nn.Sequential:
    """Return Linear, ReLU, Linear with a hidden layer as wide as its input.

    Source: the prediction heads of SSAST (Gong et al. 2022, section 2.3, and the published code).
    """
    return nn.Sequential(nn.Linear(in_dim, in_dim), nn.ReLU(), nn.Linear(in_dim, out_dim))


def linear_head(in_dim: int, out_dim: int) -> nn.Sequential:
    """Return LayerNorm, Linear: the classification head of AST and SSAST (LayerNorm eps 1e-5, as published)."""
    return nn.Sequential(nn.LayerNorm(in_dim, eps=1e-5), nn.Linear(in_dim, out_dim))
