"""Damaged run folders: any file cut, emptied, rewritten, removed, or made a folder, a link, a pipe or a device."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny
from driver import Case, main
from mutations import TEXTS, damaged

JSON = (
    "[]",
    "{}",
    "null",
    "1",
    '"x"',
    "[1]",
    '{"step": "x"}',
    '{"clips": []}',
    "[" * 100_000,
    "NaN",
    "1e999",
    "{",
)


def prepare(folder: Path) -> dict[str, Any]:
    """Make a pretrained and a fine-tuned run, with what evaluate and embed leave in them."""
    data = tiny.sounds(folder / "sounds", 8)
    run = tiny.pretrained(folder / "run", "ssast", data)
    classifier = tiny.classifier(folder / "classifier", data)
    return {"data": data, "run": run, "classifier": classifier}


def case(rng: random.Random, base: dict[str, Any], folder: Path) -> Case:
    """Damage one to three files of a run, then use it."""
    name = rng.choice(("run", "classifier"))
    run = folder / "run"
    shutil.copytree(base[name], run)
    sound, data = base["data"] / "a" / "0.wav", base["data"]
    start = ("pretrain", "ssast") if name == "run" else ("finetune", "--init", "scratch")
    uses: list[tuple[Any, ...]] = [
        ("show", run, "--json"),
        ("show", run, "--curve", folder / "c.png"),
        ("embed", run, sound, "--out", folder / "o.npz"),
        (
            "finetune",
            "--init",
            run,
            "--data",
            data,
            "--out",
            folder / "o",
            "--steps",
            "1",
            "--workers",
            "0",
        ),
        (*start, "--data", data, "--out", run, "--resume"),
        (*start, "--data", data, "--out", run, "--resume"),
    ]
    if name == "classifier":
        uses.append(("predict", run, sound, "--out", folder / "o.csv"))
    words = rng.choice(uses)
    # A run that ended has nothing left to do, so some are cut off before their last save.
    if "--resume" in words and rng.random() < 0.5:
        for last in sorted((run / "resume").glob("step-*"))[1:]:
            shutil.rmtree(last)
    hows = [_damage(rng, run) for _ in range(rng.randrange(1, 4))]
    return Case(f"{words[0]} {name}: {'; '.join(hows)}", words=tuple(map(str, words)))


def _damage(rng: random.Random, run: Path) -> str:
    """Damage a file or folder of a run, and return in words how."""
    paths = sorted(path for path in run.rglob("*") if not path.is_symlink())
    if not paths:
        return "nothing"
    path = rng.choice(paths)
    how = rng.choice((_bytes, _bytes, _json, _json, _text, _remove, _replace, _replace, _add))
    return f"{path.relative_to(run)}: {how(rng, path)}"


def _bytes(rng: random.Random, path: Path) -> str:
    if not path.is_file():
        return _remove(rng, path)
    content, how = damaged(rng, path.read_bytes())
    path.write_bytes(content)
    return how


def _json(rng: random.Random, path: Path) -> str:
    if not path.is_file():
        return _remove(rng, path)
    text = rng.choice(JSON)
    path.write_text(text)
    return text[:20]


def _text(rng: random.Random, path: Path) -> str:
    if not path.is_file():
        return _remove(rng, path)
    text = rng.choice(TEXTS)
    path.write_text(text, errors="surrogatepass")
    return repr(text)[:20]


def _remove(rng: random.Random, path: Path) -> str:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return "removed"


def _replace(rng: random.Random, path: Path) -> str:
    """Put something else where a file was."""
    _remove(rng, path)
    makers: dict[str, Callable[[], object]] = {
        "a folder": path.mkdir,
        "a pipe": lambda: os.mkfifo(path),
        "a link to itself": lambda: path.symlink_to(path.name),
        "a link to nothing": lambda: path.symlink_to("nowhere"),
        "a link to /dev/zero": lambda: path.symlink_to("/dev/zero"),
        "a link to /dev/full": lambda: path.symlink_to("/dev/full"),
        "a link to the folder": lambda: path.symlink_to("."),
        "8 GiB of zeros": lambda: _sparse(path),
    }
    kind = rng.choice(sorted(makers))
    makers[kind]()
    return kind


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(8 << 30)


def _add(rng: random.Random, path: Path) -> str:
    """Put a file or folder of an odd name beside another."""
    name = rng.choice(
        ("step-x", "step--1", "step-99999999999999999999", "x.partial", ".x.1.partial", "-h", "é\n")
    )
    added = path.with_name(name)
    if rng.random() < 0.5:
        added.mkdir(exist_ok=True)
    else:
        added.write_text("x")
    return f"{name!r} beside it"


if __name__ == "__main__":
    raise SystemExit(main(prepare, case))
