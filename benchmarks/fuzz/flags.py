"""Odd command lines: numbers and texts at which programs break, as values of any flag of any command.

python benchmarks/fuzz/flags.py --seed 0 --count 400
"""

import contextlib
import importlib
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tiny
from answers import check_answers
from driver import Case, main
from mutations import NUMBERS, TEXTS, odd_text

from melpatch.flags import Flag, flags_of

LENGTHY = {
    "steps", "epochs", "budget", "evaluations", "batches", "rounds", "seeds", "cpu_seconds",
    "pretrain_steps", "finetune_steps", "accumulate", "protocol", "recipe", "log_every", "jobs",
}  # fmt: skip
"""Settings whose large values ask for long work; they get none."""
OBJECTIVES = ("ssast", "asit_short", "mae_ast", "cola", "maskspec")


def prepare(folder: Path) -> dict[str, Any]:
    """Make runs, shards and a list of clips, and return the commands with their flags."""
    data = tiny.sounds(folder / "sounds")
    run = tiny.pretrained(folder / "run", "ssast", data)
    classifier = tiny.classifier(folder / "classifier", data)
    listing = folder / "corpus.csv"
    tiny.melpatch("prepare", data, "--out", listing, "--workers", "0")
    shards = folder / "shards"
    tiny.melpatch("pack", data, "--out", shards, "--workers", "0", "--sample-rate", tiny.RATE)
    sound = data / "a" / "0.wav"
    lines: list[list[Any]] = [
        ["prepare", data, "--workers", 0, "--out", "OUT.csv"],
        ["stats", data, "--clips", 2],
        ["pack", data, "--workers", 0, "--out", "OUT"],
        ["pack", "--check", shards],
        ["finetune", "--init", run, "--data", data, "--out", "OUT", "--steps", 1, "--workers", 0],
        ["finetune", "--init", "scratch", "--data", data, "--out", "OUT", *tiny.TRAIN],
        ["embed", run, sound, "--out", "OUT.npz", "--workers", 0],
        ["embed", classifier, listing, "--out", "OUT.csv", "--workers", 0],
        ["predict", classifier, sound, "--out", "OUT.csv", "--workers", 0],
        ["evaluate", run, "--data", data, "--split", "none", "--protocol", "knn"],
        ["evaluate", classifier, "--data", data, "--out", "OUT"],
        ["show", run],
        ["show", classifier, "--curve", "OUT.png"],
        ["list"],
        ["datasets"],
        ["compare", "--dry-run"],
        ["compare", "small-mae", "--data", data, "--dry-run", "--out", "OUT"],
    ]
    for recipe in OBJECTIVES:
        lines.append(["pretrain", recipe, "--data", data, "--out", "OUT", *tiny.TRAIN])
    commands = [[str(word) for word in line] for line in lines]
    return {"commands": [(words, flags_of_command(words)) for words in commands]}


def flags_of_command(words: Sequence[str]) -> list[Flag]:
    """Return the flags of a command, with the defaults that the other words give them."""
    module = importlib.import_module(f"melpatch.commands.{words[0]}")
    if not hasattr(module, "parse"):
        return list(flags_of(module.Config))
    read = importlib.import_module("melpatch.commands.base")
    flags: list[Flag] = []

    def note(kind: type, arguments: object, *, default: object = None, **texts: object) -> None:
        flags.extend(flags_of(kind, default))
        raise _NotedError

    original, read.read_config = read.read_config, note
    try:
        with contextlib.suppress(_NotedError):
            module.parse(list(words[1:]))
    finally:
        read.read_config = original
    return flags


class _NotedError(Exception):
    """The flags are known, and nothing is to be read."""


def case(rng: random.Random, base: dict[str, Any], folder: Path) -> Case:
    """Give one to three flags of a command odd values, or spoil its words."""
    words, flags = rng.choice(base["commands"])
    words = [word.replace("OUT", str(folder / "o")) for word in words]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        words = _change(rng, words, flags)
    name = " ".join(word[:40] for word in words)
    before = partial(contextlib.chdir(folder).__enter__)
    return Case(name, words=tuple(words), before=before, after=partial(check_answers, folder))


def _change(rng: random.Random, words: list[str], flags: Sequence[Flag]) -> list[str]:
    """Return a command line with an odd flag, or with a word that is not expected."""
    kind = rng.randrange(12)
    if kind == 0:
        at = rng.randrange(1, len(words) + 1)
        return [*words[:at], rng.choice((*TEXTS, odd_text(rng))), *words[at:]]
    if kind == 1 and len(words) > 1:
        at = rng.randrange(1, len(words))
        return words[:at] + words[at + 1 :]
    flag = rng.choice([flag for flag in flags if not flag.positional] or [None])
    if flag is None:
        return [*words, odd_text(rng)]
    values = [_value(rng, flag) for _ in range(rng.choice((1, 1, 1, 1, 2, 0)))]
    values = [value.replace("\0", "") for value in values]
    if kind == 2 and values:
        return [*words, f"{flag.spelled}={values[0]}"]
    return [*words, flag.spelled, *values]


def _value(rng: random.Random, flag: Flag) -> str:
    """Return an odd value for a flag, which is more often of its type than not."""
    long = flag.name.rpartition(".")[2] in LENGTHY
    numbers = [number for number in NUMBERS if not (long and number > 2)]
    if "INT" in flag.kind and rng.random() < 0.7:
        return str(rng.choice([number for number in numbers if isinstance(number, int)]))
    if "FLOAT" in flag.kind and rng.random() < 0.8:
        return str(rng.choice(numbers))
    if "{" in flag.kind and rng.random() < 0.7:
        return rng.choice(flag.kind.strip("{}").split("|")[0].split(",")).strip("{}")
    return rng.choice((*TEXTS, odd_text(rng)))


if __name__ == "__main__":
    raise SystemExit(main(prepare, case))
