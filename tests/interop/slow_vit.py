"""A vision transformer written out in plain operations, with its weights under foreign names."""

import torch
import torch.nn.functional as F


def slow_timm(state, images, heads, stride=16):
    """Final tokens (clip, token, dim), special ones first, of a ViT whose weights have timm's names."""
    names = [name for name in ("cls_token", "dist_token") if name in state]
    x = F.conv2d(
        images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=stride
    )
    x = torch.stack(
        [x[:, :, row, column] for row in range(x.shape[2]) for column in range(x.shape[3])], dim=1
    )
    x = (
        torch.cat([*(state[name].expand(len(images), -1, -1) for name in names), x], dim=1)
        + state["pos_embed"]
    )
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    for number in range(depth):
        at = f"blocks.{number}."
        query, key, value = _linear(state, f"{at}attn.qkv", _norm(state, f"{at}norm1", x)).chunk(
            3, dim=-1
        )
        x = x + _linear(state, f"{at}attn.proj", _attend(query, key, value, heads))
        hidden = F.gelu(_linear(state, f"{at}mlp.fc1", _norm(state, f"{at}norm2", x)))
        x = x + _linear(state, f"{at}mlp.fc2", hidden)
    return _norm(state, "norm", x)


def slow_hugging_face(state, images, heads, prefix, names):
    """The same with the names of transformers: ``names`` are those of a block's layers, in the order of use."""
    state = {key.removeprefix(prefix): value for key, value in state.items()}
    at = "embeddings."
    specials = [f"{at}cls_token", f"{at}distillation_token"]
    kernel = f"{at}patch_embeddings.projection."
    x = F.conv2d(images, state[f"{kernel}weight"], state[f"{kernel}bias"], stride=16)
    x = x.flatten(2).transpose(1, 2)
    tokens = [state[name].expand(len(images), -1, -1) for name in specials if name in state]
    x = torch.cat([*tokens, x], dim=1) + state[f"{at}position_embeddings"]
    blocks, query, key, value, out, first, second = names
    depth = len(
        {name.removeprefix(blocks).split(".")[0] for name in state if name.startswith(blocks)}
    )
    for number in range(depth):
        at = f"{blocks}{number}."
        normed = _norm(state, f"{at}layernorm_before", x)
        three = (_linear(state, at + name, normed) for name in (query, key, value))
        x = x + _linear(state, at + out, _attend(*three, heads))
        normed = _norm(state, f"{at}layernorm_after", x)
        x = x + _linear(state, at + second, F.gelu(_linear(state, at + first, normed)))
    return _norm(state, "layernorm", x)


def _attend(query, key, value, heads):
    outputs = []
    for q, k, v in zip(*(part.chunk(heads, dim=-1) for part in (query, key, value)), strict=True):
        outputs.append((q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(dim=-1) @ v)
    return torch.cat(outputs, dim=-1)


def _linear(state, name, x):
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _norm(state, name, x):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)


def slow_post_norm(state, tokens, heads):
    """Final tokens (clip, token, dim) of post-norm blocks under timm's names, with a norm before the first."""
    x = _norm(state, "norm", tokens)
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    for number in range(depth):
        at = f"blocks.{number}."
        query, key, value = _linear(state, f"{at}attn.qkv", x).chunk(3, dim=-1)
        attended = _linear(state, f"{at}attn.proj", _attend(query, key, value, heads))
        x = _norm(state, f"{at}norm1", x + attended)
        hidden = F.gelu(_linear(state, f"{at}mlp.fc1", x))
        x = _norm(state, f"{at}norm2", x + _linear(state, f"{at}mlp.fc2", hidden))
    return x
