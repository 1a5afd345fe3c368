"""Damaged weights: bytes, numbers that are none, types, shapes, names and keys, in .safetensors and torch pickles."""

import random
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import tiny
import torch
from answers import check_answers
from driver import Case, main
from mutations import damaged
from safetensors.torch import load_file, save_file

SHAPES: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (0, 0), (1, 1, 1, 1, 1), (2, 3), (7,))
TYPES = (
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
)


def prepare(folder: Path) -> dict[str, Any]:
    """Make a run, a classifier, and weight files of other libraries."""
    data = tiny.sounds(folder / "sounds")
    run = tiny.pretrained(folder / "run", "ssast", data)
    classifier = tiny.classifier(folder / "classifier", data)
    return {"data": data, "run": run, "classifier": classifier, "foreign": _foreign()}


def _foreign() -> dict[str, dict[str, torch.Tensor]]:
    """Return state dicts under the names of timm, AST, transformers and PANNs, each tiny."""
    torch.manual_seed(0)
    width, depth, patches = 16, 2, 64
    timm: dict[str, torch.Tensor] = {
        "patch_embed.proj.weight": torch.randn(width, 3, 16, 16),
        "patch_embed.proj.bias": torch.randn(width),
        "cls_token": torch.randn(1, 1, width),
        "pos_embed": torch.randn(1, patches + 1, width),
        "norm.weight": torch.randn(width),
        "norm.bias": torch.randn(width),
    }
    shapes = {
        "norm1": (width,),
        "norm2": (width,),
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
    }
    for block in range(depth):
        for name, shape in shapes.items():
            timm[f"blocks.{block}.{name}.weight"] = torch.randn(shape)
            timm[f"blocks.{block}.{name}.bias"] = torch.randn(shape[0])
    ast = {f"v.{name}": value for name, value in timm.items()} | {"p_input_fdim": torch.tensor(128)}
    names = {"attn.proj": "attention.output.dense", "mlp.fc1": "intermediate.dense"}
    names |= {"mlp.fc2": "output.dense", "norm1": "layernorm_before", "norm2": "layernorm_after"}
    names |= {
        "blocks.": "encoder.layer.",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
    }
    names |= {"cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings"}
    transformers = {}
    for key, value in timm.items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        if ".attn.qkv." in key:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                transformers[key.replace("attn.qkv", f"attention.attention.{part}")] = third.clone()
        else:
            transformers[key.replace("norm.", "layernorm.") if key.startswith("norm.") else key] = (
                value
            )
    panns = {
        "bn0.weight": torch.randn(32),
        "fc1.weight": torch.randn(32, 32),
        "fc1.bias": torch.randn(32),
    }
    for block in range(1, 7):
        panns[f"conv_block{block}.conv1.weight"] = torch.randn(2 << block, 1, 3, 3)
        panns[f"conv_block{block}.conv2.weight"] = torch.randn(2 << block, 2 << block, 3, 3)
    return {"timm": timm, "ast": ast, "transformers": transformers, "panns": panns}


def case(rng: random.Random, base: dict[str, Any], folder: Path) -> Case:
    """Damage the weights of a run or of another library, then open them."""
    kind = rng.choice(("run", "classifier", "timm", "ast", "transformers", "panns"))
    sound = str(base["data"] / "a" / "0.wav")
    if kind in ("run", "classifier"):
        run = folder / "run"
        shutil.copytree(base[kind], run)
        file = run / "model.safetensors"
        state = load_file(file)
        how = _damage(rng, file, state)
        uses = [("embed", run, sound, "--out", folder / "o.npz")]
        uses.append(
            ("finetune", "--init", run, "--data", base["data"], "--out", folder / "o", "--steps", 1)
        )
        if kind == "classifier":
            uses.append(("predict", run, sound, "--out", folder / "o.csv"))
        words = rng.choice(uses)
    else:
        file = folder / rng.choice(("w.safetensors", "w.pth"))
        how = _damage(rng, file, {**base["foreign"][kind]})
        flags = (
            "--encoder.embed-dim 16 --encoder.depth 2 --encoder.num-heads 2 --steps 0 --workers 0"
        )
        if kind == "panns":
            flags = "--encoder cnn14 --size nano --front-end.n-mels 32 --steps 0 --workers 0"
        words = (
            "pretrain",
            "ssast" if kind != "panns" else "cola",
            "--init",
            file,
            "--data",
            base["data"],
        )
        words = (*words, "--out", folder / "o", *flags.split())
    name = f"{words[0]} {kind} {file.suffix}: {how}"
    return Case(name, words=tuple(map(str, words)), after=partial(check_answers, folder))


State = dict[str, torch.Tensor]


def _damage(rng: random.Random, file: Path, state: State) -> str:
    """Write damaged weights to a file, and return in words how they are damaged."""
    change = rng.choice((*CHANGES, _set_number, _set_shape, None, _pickled))
    if change is _pickled:
        return _pickled(rng, file, state)
    if change is not None:
        how = change(rng, state, rng.choice(sorted(state)))
        _save(file, state)
        return how
    _save(file, state)
    content, how = damaged(rng, file.read_bytes())
    file.write_bytes(content)
    return how


def _set_number(rng: random.Random, state: State, key: str) -> str:
    number = rng.choice((float("nan"), float("inf"), -float("inf"), 1e38, -1e38, 1e-45))
    value = state[key] = state[key].clone()
    if value.is_floating_point():
        place = rng.randrange(value.numel()) if rng.random() < 0.7 else slice(None)
        value.view(-1)[place] = number
    return f"{key}: {number}"


def _set_type(rng: random.Random, state: State, key: str) -> str:
    dtype = rng.choice(TYPES)
    for name in [key] if rng.random() < 0.5 else [*state]:
        state[name] = state[name].to(dtype)
    return f"{key}: {dtype}"


def _set_shape(rng: random.Random, state: State, key: str) -> str:
    value = state[key]
    shape = rng.choice(SHAPES)
    if rng.random() < 0.3:
        shape = (*value.shape, 1)
    elif rng.random() < 0.4:
        shape = tuple(rng.choice((0, 1, size, size + 1)) for size in value.shape)
    state[key] = torch.zeros(shape)
    return f"{key}: shape {shape}"


def _rename(rng: random.Random, state: State, key: str) -> str:
    names = (
        "",
        "x",
        f"module.{key}",
        f"{key}.x",
        "blocks.99999999.norm1.weight",
        "blocks.x",
        "é" * 99,
    )
    name = rng.choice(names)
    state[name] = state.pop(key)
    return f"{key} is called {name[:40]}"


def _remove(rng: random.Random, state: State, key: str) -> str:
    del state[key]
    for name in rng.sample(sorted(state), rng.randrange(len(state) + 1)):
        del state[name]
    return f"{len(state)} left"


def _add(rng: random.Random, state: State, key: str) -> str:
    state |= {f"blocks.{number}.norm1.weight": torch.zeros(1) for number in range(5000)}
    return "5000 more tensors"


CHANGES = (_set_number, _set_type, _set_shape, _rename, _remove, _add)


def _save(file: Path, state: dict[str, torch.Tensor]) -> None:
    if file.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, file)
    else:
        torch.save(state, file)


def _pickled(rng: random.Random, file: Path, state: dict[str, torch.Tensor]) -> str:
    """Write something other than a plain state dict."""
    odd: list[Any] = [
        None,
        [],
        [1],
        {"model": state},
        {"model": {"state_dict": state}},
        {1: torch.zeros(1)},
    ]
    odd += [
        torch.zeros(3),
        {"state_dict": []},
        {"model": {}},
        state | {"epoch": 3},
        {"a": {"b": state}},
    ]
    odd += [{key: value.to_sparse() for key, value in state.items()}, dict.fromkeys(state, 1.0)]
    odd += [
        {key: torch.zeros(1).expand(1 << 40) for key in state},
        {"x": torch.zeros(1).expand(1 << 40)},
    ]
    number = rng.randrange(len(odd))
    if file.suffix == ".safetensors":
        file.write_bytes(b"" if number % 2 else b"{}" * number)
    else:
        torch.save(odd[number], file)
    return f"pickle {number}"


if __name__ == "__main__":
    raise SystemExit(main(prepare, case))
