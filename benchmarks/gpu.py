"""Everything that only a GPU can tell, in under nine minutes: tests, speed, compilation, graphs, feeding.

    sh benchmarks/gpu.sh                                # all parts, into gpu/gpu.json and gpu/gpu.md
    sh benchmarks/gpu.sh --parts speed compile          # some parts
    sh benchmarks/gpu.sh --again tests                  # all that is missing, and the tests once more
    sh benchmarks/gpu.sh --data sounds/                 # feed from your own recordings

Each part is a command of its own with a limit of seconds. What a part printed is kept in OUT/PART.json as soon as it
ends, so a call that was cut off continues with the parts that are missing; a part that failed is tried again. Without
a GPU it says so and ends with exit code 2.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from parts import HERE, ROOT, Part, carry_out_missing, results_of, shown, statuses, write

LIMIT = 530.0
"""Seconds for all parts together."""
SHOWN = ("task", "size", "precision", "way", "stage", "clips_per_second", "tflops", "share")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to run."""

    out: Path = Path("gpu")
    """Folder of the results."""
    parts: tuple[str, ...] = ()
    """Parts to run; none: all."""
    again: tuple[str, ...] = ()
    """Parts to run although they are done."""
    data: Path | None = None
    """Recordings that feed a training; none: noise that is made up."""


def parts(config: Config) -> dict[str, Part]:
    """Return all parts by name, in the order in which they run."""
    python = sys.executable
    speed = (python, str(HERE / "speed.py"), "gpu", "--rounds", "2", "--steps", "5")
    base = (*speed, "--sizes", "base")
    melpatch = (python, "-m", "melpatch")
    shards = str(config.out / "shards")
    data = str(config.data or config.out / "noise")
    # What is packed already is not packed again.
    pack = (*melpatch, "pack", data, "--out", shards, "--workers", "8")
    bench = (*melpatch, "bench", "data", "--data", shards, "--recipe", "ssast", "--size", "base")
    alone = (*speed, "--sizes", "tiny", "--tasks", "ssast", "--compile", "eager")
    feeding: tuple[tuple[str, ...], ...] = (
        pack,
        (*bench, "--precision", "bf16-mixed", "--workers", "8", "--batch-size", "64", "--json"),
    )
    if config.data is None:
        feeding = ((python, str(HERE / "gpu_noise.py"), data), *feeding)
    graphs = (python, str(HERE / "cuda_graphs.py"))
    test = (python, "-m", "pytest", "-m", "gpu", str(ROOT / "tests"), "-p", "no:cacheprovider")
    arithmetic = ("--tasks", "ssast", "--precisions", "32-true", "bf16-mixed")
    return {
        "tests": Part(70, (test,)),
        "speed": Part(110, ((*base, "--compile", "eager"),)),
        "bf16": Part(50, ((*base, "--compile", "eager", *arithmetic),)),
        "compile": Part(120, ((*base, "--compile", "compiled", "--tasks", "ssast", "asit"),)),
        "graphs": Part(60, (graphs,)),
        "feeding": Part(80, feeding),
        "two": Part(40, (alone, alone), at_once=True),
    }


def main(config: Config) -> None:
    if not torch.cuda.is_available():
        built = torch.version.cuda or "none"
        sys.stderr.write(
            f"benchmarks/gpu.sh: torch {torch.__version__} (CUDA: {built}) sees no GPU here; "
            "run it on a machine that has one\n"
        )
        raise SystemExit(2)
    known = parts(config)
    for name in (*config.parts, *config.again):
        if name not in known:
            sys.stderr.write(
                f"benchmarks/gpu.sh: no part {name!r}; there are: {', '.join(known)}\n"
            )
            raise SystemExit(2)
    chosen = config.parts or tuple(known)
    wanted = {name: part for name, part in known.items() if name in (*chosen, *config.again)}
    carry_out_missing(config.out, wanted, LIMIT, config.again)
    summarise(config.out, results_of(config.out, list(known)))


def summarise(out: Path, results: Mapping[str, Any]) -> None:
    """Write one JSON file and one table of all parts so far."""
    about = {"device": torch.cuda.get_device_name(0), "torch": torch.__version__}
    write(out / "gpu.json", json.dumps(about | {"parts": results}, indent=1))
    write(out / "gpu.md", "\n".join(table(about, results)) + "\n")
    print(f"{out / 'gpu.json'}, {out / 'gpu.md'}")


def table(about: Mapping[str, str], results: Mapping[str, Any]) -> list[str]:
    """Return all figures as lines of Markdown."""
    lines = [f"# {about['device']}, torch {about['torch']}", ""]
    lines += statuses(results)
    lines += ["", f"| part | {' | '.join(SHOWN)} |", "|---" * (len(SHOWN) + 1) + "|"]
    for name, part in results.items():
        for record in part["records"]:
            stages = record.get("stages")
            for row in stages if isinstance(stages, list) else [record]:
                cells = (shown(row.get(column)) for column in SHOWN)
                lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
