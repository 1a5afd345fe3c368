"""The keys and shapes of published checkpoints, listed by rule, and weights for them."""

import torch
from torch import Tensor

from melpatch.nn.positions import sincos

Shapes = dict[str, tuple[int, ...]]


def timm(
    width=768, depth=12, *, colours=3, patches=576, distilled=False, classes=1000, patch=(16, 16)
) -> Shapes:
    """ViT-B/16 at 384 x 384 of timm; distilled, DeiT-base."""
    tokens = ("cls_token", "dist_token")[: 2 if distilled else 1]
    shapes: Shapes = dict.fromkeys(tokens, (1, 1, width))
    shapes |= {"pos_embed": (1, len(tokens) + patches, width)}
    shapes |= {
        "patch_embed.proj.weight": (width, colours, *patch),
        "patch_embed.proj.bias": (width,),
    }
    for number in range(depth):
        shapes |= _block(f"blocks.{number}.", width)
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    for head in ("head", "head_dist")[: 2 if distilled else 1]:
        shapes |= {f"{head}.weight": (classes, width), f"{head}.bias": (classes,)}
    return shapes


def _block(prefix: str, width: int) -> Shapes:
    layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    layers |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    shapes: Shapes = {
        f"{prefix}{norm}.{part}": (width,)
        for norm in ("norm1", "norm2")
        for part in ("weight", "bias")
    }
    for name, shape in layers.items():
        shapes |= {f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": shape[:1]}
    return shapes


def mae(width=768, depth=12, *, patches=496, decoder=512, decoder_depth=8) -> Shapes:
    """MaskSpec's pretrained ViT-B: one channel, 8 x 62 patches; AudioMAE's has 64 x 8."""
    shapes = {
        name: shape
        for name, shape in timm(width, depth, colours=1, patches=patches).items()
        if not name.startswith("head")
    }
    shapes |= {"mask_token": (1, 1, decoder), "decoder_pos_embed": (1, 1 + patches, decoder)}
    shapes |= {"decoder_embed.weight": (decoder, width), "decoder_embed.bias": (decoder,)}
    for number in range(decoder_depth):
        shapes |= _block(f"decoder_blocks.{number}.", decoder)
    shapes |= {"decoder_norm.weight": (decoder,), "decoder_norm.bias": (decoder,)}
    return shapes | {"decoder_pred.weight": (256, decoder), "decoder_pred.bias": (256,)}


def with_sines(state: dict[str, Tensor], rows: int, columns: int) -> dict[str, Tensor]:
    """The weights with MAE's fixed sines, written row by row for a grid of rows x columns."""
    table = state["pos_embed"].clone()
    table[0, 1:] = sincos(rows, columns, table.shape[2], first="column").to(table.dtype)
    table[0, :1] = 0.0
    return state | {"pos_embed": table}


def ast(width=768, depth=12, patches=1212, classes=527) -> Shapes:
    """AST as published for AudioSet: 12 x 101 patches at a stride of 10; DeiT's heads are still in it."""
    inner = timm(width, depth, colours=1, patches=patches, distilled=True)
    head = {
        "0.weight": (width,),
        "0.bias": (width,),
        "1.weight": (classes, width),
        "1.bias": (classes,),
    }
    return {f"module.v.{name}": shape for name, shape in inner.items()} | {
        f"module.mlp_head.{name}": shape for name, shape in head.items()
    }


def hugging_face(
    width=768,
    depth=12,
    *,
    version=4,
    prefix="vit.",
    distilled=False,
    colours=3,
    patches=196,
    head="classifier",
) -> Shapes:
    """ViT (prefix "vit."), DeiT ("deit.") or AST ("audio_spectrogram_transformer.") of transformers 4 or 5."""
    count = 2 if distilled else 1
    tokens = ("cls_token", "distillation_token")[:count]
    inner: Shapes = {f"embeddings.{token}": (1, 1, width) for token in tokens}
    inner["embeddings.position_embeddings"] = (1, count + patches, width)
    inner["embeddings.patch_embeddings.projection.weight"] = (width, colours, 16, 16)
    inner["embeddings.patch_embeddings.projection.bias"] = (width,)
    four = {
        **{f"attention.attention.{name}": (width, width) for name in ("query", "key", "value")},
        "attention.output.dense": (width, width),
        "intermediate.dense": (4 * width, width),
        "output.dense": (width, 4 * width),
    }
    five = {
        **{f"attention.{name}_proj": (width, width) for name in ("q", "k", "v", "o")},
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
    }
    for number in range(depth):
        block = f"encoder.layer.{number}." if version == 4 else f"layers.{number}."
        for name, shape in (four if version == 4 else five).items():
            inner |= {f"{block}{name}.weight": shape, f"{block}{name}.bias": shape[:1]}
        for norm in ("layernorm_before", "layernorm_after"):
            inner |= {f"{block}{norm}.weight": (width,), f"{block}{norm}.bias": (width,)}
    inner |= {"layernorm.weight": (width,), "layernorm.bias": (width,)}
    outer = {f"{head}.weight": (1000, width), f"{head}.bias": (1000,)}
    return {f"{prefix}{name}": shape for name, shape in inner.items()} | outer


def cnn14(width=64, mels=64, classes=527, *, blocks=6, convolutions=2, kernel=3) -> Shapes:
    """CNN14 of PANNs, with its front end at 32 kHz; CNN10 has 4 blocks, CNN6 one convolution of 5 x 5 in each."""
    shapes: Shapes = {
        f"spectrogram_extractor.stft.conv_{part}.weight": (513, 1, 1024)
        for part in ("real", "imag")
    }
    shapes |= {"logmel_extractor.melW": (513, mels), **_norm("bn0", mels)}
    channels = [1, *(width * 2**number for number in range(blocks))]
    for number in range(1, blocks + 1):
        outs = channels[number]
        for layer in range(1, convolutions + 1):
            ins = channels[number - 1] if layer == 1 else outs
            shapes |= {f"conv_block{number}.conv{layer}.weight": (outs, ins, kernel, kernel)}
            shapes |= _norm(f"conv_block{number}.bn{layer}", outs)
    top = channels[-1]
    shapes |= {"fc1.weight": (top, top), "fc1.bias": (top,)}
    return shapes | {"fc_audioset.weight": (classes, top), "fc_audioset.bias": (classes,)}


def _norm(name: str, channels: int) -> Shapes:
    shapes: Shapes = {
        f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")
    }
    return shapes | {f"{name}.num_batches_tracked": ()}


def blank(shapes: Shapes) -> dict[str, Tensor]:
    """Zeros of these shapes that take no memory."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def drawn(shapes: Shapes, seed=0) -> dict[str, Tensor]:
    """Random float64 weights of these shapes, norms and variances about 1."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        value = 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64)
        about_one = name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight"))
        state[name] = value.exp() if about_one else value
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
    return state
