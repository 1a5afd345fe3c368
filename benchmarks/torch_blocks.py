"""The blocks of torch in an encoder, with the weights of ours."""

from torch import Tensor, nn

from melpatch.nn.transformer import Block, Transformer

_NAMES = {
    "attn.qkv.": "self_attn.in_proj_",
    "attn.proj.": "self_attn.out_proj.",
    "mlp.0": "linear1",
    "mlp.2": "linear2",
}


class TorchBlock(nn.Module):
    """A block of torch with the weights of one of ours, for clips without padding."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        norm = {"layer_norm_eps": block.norm1.eps, "norm_first": block.norm_first}
        self.layer = nn.TransformerEncoderLayer(
            block.dim, block.attn.num_heads, block.hidden, 0.0, "gelu", batch_first=True, **norm
        )
        state = block.state_dict()
        for ours, theirs in _NAMES.items():
            state = {name.replace(ours, theirs): value for name, value in state.items()}
        self.layer.load_state_dict(state)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the tokens after attention and MLP."""
        assert mask is None
        output: Tensor = self.layer(x)
        return output


def give_torch_blocks(module: nn.Module) -> None:
    """Replace our blocks by those of torch."""
    for part in module.modules():
        if isinstance(part, Transformer):
            part.blocks = nn.ModuleList(map(TorchBlock, part.blocks))
