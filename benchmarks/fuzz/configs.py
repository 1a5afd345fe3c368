"""Damaged config.toml and command.toml: values of other types and sizes, missing and foreign keys, broken text."""

import contextlib
import random
import shutil
import tomllib
from pathlib import Path
from typing import Any

import tiny
import tomli_w
from driver import Case, main
from mutations import NUMBERS, TEXTS, damaged, odd_text, odd_value, shown

RECIPES = ("ssast", "asit_short", "mae_ast", "cola")


def prepare(folder: Path) -> dict[str, Path]:
    """Make runs of several objectives."""
    data = tiny.sounds(folder / "sounds")
    runs = {name: tiny.pretrained(folder / name, name, data) for name in RECIPES}
    return runs | {"classify": tiny.classifier(folder / "classify", data), "data": data}


def case(rng: random.Random, base: dict[str, Path], folder: Path) -> Case:
    """Damage the settings of a run, then open it."""
    name = rng.choice((*RECIPES, "classify"))
    run = folder / "run"
    shutil.copytree(base[name], run)
    resumed = rng.random() < 0.3
    file = run / rng.choice(("config.toml", "command.toml") if resumed else ("config.toml",))
    if rng.random() < 0.3:
        content, how = damaged(rng, file.read_bytes())
        file.write_bytes(content)
    else:
        how = _change(rng, file)
    sound = base["data"] / "a" / "0.wav"
    uses = [("embed", run, sound, "--out", folder / "o.npz"), ("show", run)]
    uses.append(
        ("finetune", "--init", run, "--data", base["data"], "--out", folder / "o", "--steps", 1)
    )
    if name == "classify":
        uses.append(("predict", run, sound, "--out", folder / "o.csv"))
    words: Any = rng.choice(uses)
    if resumed:
        words = ("pretrain", name, "--data", base["data"], "--out", run, "--resume")
        if name == "classify":
            words = (
                "finetune",
                "--init",
                "scratch",
                "--data",
                base["data"],
                "--out",
                run,
                "--resume",
            )
    return Case(f"{words[0]} {name}: {file.name}: {how}", words=tuple(map(str, words)))


def _change(rng: random.Random, file: Path) -> str:
    """Change one to three values or keys of a TOML file, and return in words how."""
    data = tomllib.loads(file.read_text())
    changes = []
    for _ in range(rng.randrange(1, 4)):
        table, path = data, file.stem
        while tables := [key for key, value in table.items() if isinstance(value, dict)]:
            if rng.random() < 0.2:
                break
            key = rng.choice(tables)
            table, path = table[key], f"{path}.{key}"
        kept = {**table}
        changes.append(f"{path}: {_change_table(rng, table)}")
        # What TOML cannot hold is not tried.
        try:
            text = tomli_w.dumps(data)
            text.encode()
        except Exception:  # noqa: BLE001
            table.clear()
            table.update(kept)
            continue
        file.write_text(text)
    return "; ".join(changes)


def _change_table(rng: random.Random, table: dict[str, Any]) -> str:
    if not table:
        return "nothing"
    key = rng.choice([*table])
    kind = rng.randrange(8)
    if kind == 0:
        del table[key]
        return f"{key} removed"
    if kind == 1:
        table[odd_text(rng) or "x"] = table.pop(key)
        return f"{key} renamed"
    if kind == 2 and isinstance(table[key], int | float):
        with contextlib.suppress(OverflowError):
            table[key] *= rng.choice((-1, 0, 10, 1000, 10**6, 10**9, 10**18, 1e-9))
        return f"{key} = {table[key]}"
    if kind == 3 and isinstance(table[key], list) and table[key]:
        table[key] = table[key] * rng.choice((0, 2, 1000))
        return f"{key} repeated"
    value = odd_value(rng)
    if rng.random() < 0.6:
        value = _of_same_type(rng, table[key])
    if isinstance(table[key], list) and rng.random() < 0.5:
        value = [value] * max(1, len(table[key]))
    table[key] = value
    return f"{key} = {shown(value)}"


def _of_same_type(rng: random.Random, value: Any) -> Any:
    """Return an odd value of the type that is expected, which is refused only by its range."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        kind = rng.choice((type(value), int))
        return rng.choice([number for number in NUMBERS if type(number) is kind])
    if isinstance(value, str):
        return rng.choice(TEXTS)
    if isinstance(value, list):
        return [_of_same_type(rng, item) for item in value]
    return value


if __name__ == "__main__":
    raise SystemExit(main(prepare, case))
