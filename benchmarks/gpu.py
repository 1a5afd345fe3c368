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
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "benchmarks"
LIMIT = 530.0
"""Seconds for all parts together."""
SHOWN = ("task", "size", "precision", "way", "stage", "clips_per_second", "tflops", "share")
_TAIL = 2000  # characters of the output that are kept of a part that failed


@dataclass(frozen=True)
class Part:
    """Commands that run one after the other, or all at once, and the seconds that they may take."""

    seconds: float
    commands: tuple[tuple[str, ...], ...]
    at_once: bool = False


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
    config.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    for name, part in known.items():
        wanted = not config.parts or name in config.parts
        if not wanted or (name not in config.again and is_done(config.out, name)):
            continue
        left = LIMIT - (time.monotonic() - began)
        if left < part.seconds / 2:
            print(
                f"{name}: left for the next call, {left:.0f} s are left of {LIMIT:.0f}", flush=True
            )
            continue
        result = carry_out(part, min(part.seconds, left))
        write(config.out / f"{name}.json", json.dumps(result, indent=1))
        print(f"{name}: {result['status']} in {result['seconds']:.0f} s", flush=True)
    summarise(config.out, list(known))


def is_done(out: Path, name: str) -> bool:
    path = out / f"{name}.json"
    return path.exists() and json.loads(path.read_text(encoding="utf-8"))["status"] == "done"


def carry_out(part: Part, seconds: float) -> dict[str, Any]:
    """Return what the commands of a part printed; they are ended after this many seconds."""
    began = time.monotonic()
    groups = [part.commands] if part.at_once else [(command,) for command in part.commands]
    outputs: list[str] = []
    status = "done"
    for group in groups:
        processes = [start(command) for command in group]
        for process in processes:
            try:
                output, _ = process.communicate(
                    timeout=max(0.1, seconds - time.monotonic() + began)
                )
                if process.returncode:
                    status = f"failed (exit code {process.returncode})"
            except subprocess.TimeoutExpired:
                # With the processes that it started.
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
                status = "timed out"
            outputs.append(output)
        if status != "done":
            break
    return {
        "status": status,
        "seconds": round(time.monotonic() - began, 1),
        "records": [record for output in outputs for record in records_in(output)],
        "tail": outputs[-1][-_TAIL:],
    }


def start(command: Sequence[str]) -> "subprocess.Popen[str]":
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)},
    )


def records_in(output: str) -> list[dict[str, Any]]:
    """Return the JSON objects that begin a line of an output."""
    decoder = json.JSONDecoder()
    results: list[dict[str, Any]] = []
    place = 0
    while place < len(output):
        if output[place] == "{":
            try:
                value, end = decoder.raw_decode(output, place)
            except ValueError:
                end = place + 1
            else:
                results.append(value)
            place = end
        # On to the next line.
        following = output.find("\n", place)
        place = len(output) if following < 0 else following + 1
    return results


def summarise(out: Path, names: Sequence[str]) -> None:
    """Write one JSON file and one table of all parts so far."""
    results = {}
    for name in names:
        path = out / f"{name}.json"
        results[name] = {"status": "not run", "seconds": 0.0, "records": [], "tail": ""}
        if path.exists():
            results[name] = json.loads(path.read_text(encoding="utf-8"))
    about = {"device": torch.cuda.get_device_name(0), "torch": torch.__version__}
    write(out / "gpu.json", json.dumps(about | {"parts": results}, indent=1))
    write(out / "gpu.md", "\n".join(table(about, results)) + "\n")
    print(f"{out / 'gpu.json'}, {out / 'gpu.md'}")


def table(about: Mapping[str, str], results: Mapping[str, Any]) -> list[str]:
    """Return all figures as lines of Markdown."""
    lines = [f"# {about['device']}, torch {about['torch']}", ""]
    lines += ["| part | status | s |", "|---|---|---|"]
    lines += [
        f"| {name} | {part['status']} | {part['seconds']:.0f} |" for name, part in results.items()
    ]
    lines += ["", f"| part | {' | '.join(SHOWN)} |", "|---" * (len(SHOWN) + 1) + "|"]
    for name, part in results.items():
        for record in part["records"]:
            stages = record.get("stages")
            for row in stages if isinstance(stages, list) else [record]:
                cells = (shown(row.get(column)) for column in SHOWN)
                lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def shown(value: Any) -> str:
    """Return a figure as text; what is unknown is blank."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write(path: Path, text: str) -> None:
    """Write a file aside first, so that a call that is cut off leaves no half of one."""
    aside = path.with_name(f".{path.name}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
