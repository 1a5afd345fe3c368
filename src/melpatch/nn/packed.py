"""Inference in bfloat16 on a processor: weights packed for oneDNN, and fewer passes over memory.

Under autocast every call casts the weights, copies the bias into the output before the product, and
passes once more over the tokens for GELU and for the sum with the input. Here weights are kept in
bfloat16, in the order in which oneDNN multiplies, and bias, GELU and sum are part of the products.
The arithmetic is that of autocast, but for fewer roundings in between (lab/inference.md).
"""

import torch
from torch import Tensor, nn

from melpatch.nn.attention import KeyMask, attend
from melpatch.nn.transformer import Block, Tokens


def pack(module: nn.Module) -> None:
    """Let every block in a module compute without gradients by packed weights, where that applies.

    It applies in evaluation and inference mode to tokens in bfloat16 on a processor whose oneDNN
    has products in bfloat16. The blocks keep their weights in float32, for everything else.
    """
    operators = torch.ops.mkldnn
    if not (
        hasattr(operators, "_linear_pointwise") and hasattr(operators, "_reorder_linear_weight")
    ):
        return
    if operators._is_mkldnn_bf16_supported():
        for block in module.modules():
            if isinstance(block, Block) and block.packed is None:
                block.packed = PackedBlock(block)


class PackedLinear:
    """A linear layer in bfloat16."""

    def __init__(self, layer: nn.Module) -> None:
        assert isinstance(layer, nn.Linear)
        weight = layer.weight.detach().bfloat16()
        # Packed for any number of tokens.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self.bias = layer.bias.detach().bfloat16()

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        """Return the product with the bias, and the activation: none, or gelu, the exact (erf) one."""
        algorithm = "none" if activation == "gelu" else ""
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, activation, [], algorithm
        )
        return output

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """Return the residual plus the product with the bias."""
        output: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            x, residual, self.weight, self.bias, "add"
        )
        return output


class PackedBlock:
    """A block that computes by packed copies of its weights, made at first use and after a change."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.packed_from: list[tuple[int, int]] = []

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Leave packed weights out of copies and files: a copy of the block has none."""
        return type(None), ()

    def __call__(self, x: Tokens, mask: KeyMask | None) -> Tokens | None:
        """Return what the block makes of the tokens; None where packed weights do not apply."""
        on_cpu = x.device.type == "cpu" and self.block.norm1.weight.device.type == "cpu"
        if self.block.training or not on_cpu or x.dtype != torch.bfloat16:
            return None
        if not torch.is_inference_mode_enabled():
            return None
        self._refresh()
        x = x.contiguous()
        block = self.block
        if block.norm_first:
            x = self.proj.added_to(x, self._attention(block.norm1(x), mask))
            return self.shrink.added_to(x, self.grow(block.norm2(x), "gelu"))
        x = block.norm1(self.proj.added_to(x, self._attention(x, mask)))
        output: Tensor = block.norm2(self.shrink.added_to(x, self.grow(x, "gelu")))
        return output

    def _attention(self, x: Tokens, mask: KeyMask | None) -> Tokens:
        heads = self.block.attn.num_heads
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        return attend(q, k, v, mask).transpose(1, 2).flatten(2)

    def _refresh(self) -> None:
        """Pack the weights, unless they are those of the last time."""
        attention, mlp = self.block.attn, self.block.mlp
        layers = (attention.qkv, attention.proj, mlp[0], mlp[2])
        # An update in place counts up a tensor's version, another tensor has another address.
        state = [
            (parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version)
            for layer in layers
            for parameter in layer.parameters()
        ]
        if state == self.packed_from:
            return
        self.qkv, self.proj, self.grow, self.shrink = map(PackedLinear, layers)
        self.packed_from = state
