"""How fast melpatch is beside what else there is on a processor: one command, one page.

    OMP_NUM_THREADS=1 python benchmarks/performance.py [--out performance] [--parts vectors blocks] [--again blocks]

Times, side by side on this machine: vectors of WAV files beside AST of transformers (needs pip install transformers),
training and vectors beside the blocks of torch, the steps of SSAST and ASiT beside the published ones, and decoding
beside libsndfile. Each part is a command of its own, whose result is kept in OUT/PART.json, so a call that was cut off
goes on with what is missing. Writes OUT/performance.json, and OUT/performance.md with the ratios.

A ratio is that of our CPU seconds to those of the other side in one round: the median, the least and the largest of the
rounds, in which both take turns.
"""

import json
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
import tyro
from parts import HERE, Part, carry_out_missing, results_of, statuses, write

LIMIT = 3600.0
"""Seconds for all parts together."""
OTHERS = {"ssast_patch": "ssast_published", "asit_2023": "asit_published"}
"""The published step beside which a task stands."""
TITLES = {
    "vectors": "Vectors of WAV files beside transformers",
    "blocks": "Blocks beside those of torch (torch.nn.TransformerEncoderLayer)",
    "ssast": "A step of SSAST base beside the published one",
    "asit": "A step of ASiT small beside the published one",
    "decoding": "Decoding beside libsndfile",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to run."""

    out: Path = Path("performance")
    """Folder of the results."""
    parts: tuple[str, ...] = ()
    """Parts to run; none: all."""
    again: tuple[str, ...] = ()
    """Parts to run although they are done."""


class Ratio(NamedTuple):
    """Our CPU seconds beside those of another way."""

    what: str
    ratio: tuple[float, float, float]
    ours: float
    other: float
    unit: str


def parts() -> dict[str, Part]:
    """Return all parts by name, in the order in which they run."""
    arithmetic = ("--precisions", *precisions())

    def python(script: str, *words: str) -> tuple[str, ...]:
        return (sys.executable, str(HERE / script), *words)

    return {
        "vectors": Part(
            900, (python("inference.py", "--clips", "4", "--rounds", "3", *arithmetic),)
        ),
        "blocks": Part(600, (python("speed.py", "blocks", *arithmetic),)),
        "ssast": Part(1200, (python("speed.py", "aim-ssast", *arithmetic),)),
        "asit": Part(900, (python("speed.py", "aim-asit", *arithmetic),)),
        "decoding": Part(120, (python("decoding.py"),)),
    }


def precisions() -> tuple[str, ...]:
    """Return the kinds of arithmetic that this processor has instructions for."""
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return ("bf16-mixed", "32-true")
    return ("32-true",)


def main(config: Config) -> None:
    known = parts()
    for name in (*config.parts, *config.again):
        if name not in known:
            sys.stderr.write(f"performance.py: no part {name!r}; there are: {', '.join(known)}\n")
            raise SystemExit(2)
    chosen = (*(config.parts or known), *config.again)
    wanted = {name: part for name, part in known.items() if name in chosen}
    carry_out_missing(config.out, wanted, LIMIT, config.again)
    results = results_of(config.out, list(known))
    about = {
        "date": date.today().isoformat(),
        "processor": processor(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }
    write(config.out / "performance.json", json.dumps(about | {"parts": results}, indent=1))
    write(config.out / "performance.md", "\n".join(page(about, results, known)) + "\n")
    print(config.out / "performance.md")


def processor() -> str:
    """Return the name of the processor, with its instructions for matrix products."""
    name = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.exists():
        lines = about.read_text(encoding="utf-8").splitlines()
        name = next((line.split(": ", 1)[1] for line in lines if "model name" in line), name)
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def page(
    about: Mapping[str, str], results: Mapping[str, Any], known: Mapping[str, Part]
) -> list[str]:
    """Return the page, as lines of Markdown."""
    lines = ["# Performance", "", ", ".join(f"{name} {value}" for name, value in about.items()), ""]
    lines += statuses(results)
    for name, part in results.items():
        lines += ["", f"## {TITLES[name]}", ""]
        for python, script, *words in known[name].commands:
            command = shlex.join([Path(python).name, f"benchmarks/{Path(script).name}", *words])
            lines += [f"`{command}`", ""]
        if part["status"] != "done":
            last = part["tail"].strip().splitlines()[-1:] or [""]
            lines.append(f"{part['status']}: {last[0]}".removesuffix(": "))
            continue
        lines += ["| | ratio | ours | other | |", "|---|---|---|---|---|"]
        for row in ratios(name, part["records"]):
            middle, least, largest = row.ratio
            spread = f"{middle:.2f} ({least:.2f} to {largest:.2f})"
            lines.append(
                f"| {row.what} | {spread} | {row.ours:.3g} | {row.other:.3g} | {row.unit} |"
            )
    return lines


def ratios(name: str, records: list[dict[str, Any]]) -> Iterator[Ratio]:
    """Yield what the records of a part compare."""
    if name == "vectors":
        for record in records:
            ours, other = (
                record[f"{side}_cpu_seconds_per_clip"] for side in ("ours", "transformers")
            )
            what = f"{record['size']}, {record['precision']}"
            yield Ratio(what, tuple(record["ratio"]), ours, other, "CPU-s per clip")
    elif name == "decoding":
        for record in records:
            spread = record["ratio"], record["least"], record["largest"]
            ours, other = record["melpatch_cpu_ms"], record["soundfile_cpu_ms"]
            yield Ratio(
                f"{record['format']}, {record['part']}", spread, ours, other, "CPU-ms per clip"
            )
    else:
        for record in records:
            other = beside(record, records)
            if other is not None:
                what = f"{record['task']}, {record['size']}, {record['precision']}"
                yield pairwise(what, record, other)


def beside(record: Mapping[str, Any], records: list[dict[str, Any]]) -> Mapping[str, Any] | None:
    """Return the record that stands beside one of ours; None for those of the other side."""
    if record["way"] != "eager" or record["task"] in OTHERS.values():
        return None
    for other in records:
        alike = all(record[key] == other[key] for key in ("size", "precision", "batch_size"))
        blocks = other["task"] == record["task"] and other["way"] == "torch"
        if alike and (blocks or other["task"] == OTHERS.get(record["task"])):
            return other
    return None


def pairwise(what: str, record: Mapping[str, Any], other: Mapping[str, Any]) -> Ratio:
    """Return the ratio of two records of speed.py, round by round."""
    pairs = zip(record["cpu_seconds_of_rounds"], other["cpu_seconds_of_rounds"], strict=True)
    each = [ours / theirs for ours, theirs in pairs]
    spread = median(each), min(each), max(each)
    costs = (side["median_cpu_seconds_per_clip"] for side in (record, other))
    return Ratio(what, spread, *costs, "CPU-s per clip")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
