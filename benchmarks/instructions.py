"""Count the instructions of a few fixed workloads, which no other work on the machine changes.

    python benchmarks/instructions.py            # beside the expected counts; fails where they differ
    python benchmarks/instructions.py --write    # expect what is counted now

Needs Valgrind (apt install valgrind) and a processor with AVX2, which is the most that Valgrind
simulates. The workloads run in one process of its callgrind, one thread, each after a pass to warm
up; counting is on during a workload only. It takes three minutes of CPU time. Expected are the counts
in ``instructions.json``, which hold for the versions of Python, torch and NumPy that stand there.

Prints one JSON line per workload: the instructions in millions, and their ratio to those expected.
"""

import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import tyro
from search import write_index

from melpatch import LogMel, ViT
from melpatch.data.clip import Batch
from melpatch.encoders.vit import ViT as ViTEncoder
from melpatch.objectives.base import Plan
from melpatch.objectives.ssast import SSAST
from melpatch.search.index import Index
from melpatch.search.nearest import best_rows
from melpatch.training.config import RunConfig, build

TABLE = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.03
"""Share by which a count may differ: two runs on a busy machine differed by a ten-thousandth."""
RATE = 16000
NOTHING = "nothing"
"""The workload whose count is of the switching on and off, and is subtracted from the others."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to do with the counts."""

    write: bool = False
    """Write them down as those expected."""
    child: Path | None = None
    """Folder of what runs the workloads: for the process that Valgrind runs."""


class Finding(NamedTuple):
    """A workload beside its expected count."""

    name: str
    count: int
    ratio: float | None
    """Count relative to the expected one; None without one."""
    fits: bool


def compare(
    counts: Mapping[str, int], expected: Mapping[str, int], tolerance: float = TOLERANCE
) -> list[Finding]:
    """Return a finding per workload; one that is new, gone, slower or faster does not fit."""
    findings = []
    for name in sorted({*counts, *expected}):
        ratio = None
        if counts.get(name) and expected.get(name):
            ratio = counts[name] / expected[name]
        fits = ratio is not None and abs(ratio - 1) <= tolerance
        findings.append(Finding(name, counts.get(name, 0), ratio, fits))
    return findings


def versions() -> dict[str, str]:
    """Return the versions that counts depend on."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, "torch": torch.__version__, "numpy": version("numpy")}


def front_end() -> Callable[[], object]:
    """Log-mels of ten seconds."""
    transform = LogMel()
    wave = noise(1, 10 * RATE)
    return lambda: transform(wave)


def encoder() -> Callable[[], object]:
    """The nano encoder on ten seconds."""
    network = ViT(size="nano").eval()
    spectrogram = noise(1, 128, 998)
    return torch.inference_mode()(lambda: network(spectrogram))


def training_step() -> Callable[[], object]:
    """A step of SSAST, nano, on two clips of two seconds."""
    settings = RunConfig(
        front_end=LogMel.Config(scale=1.0),
        encoder=ViTEncoder.Config.of_size("nano"),
        objective=SSAST.Config(),
    )
    objective = build(settings)
    objective.begin(Plan(steps=10, batch_size=2, seconds=2.0, longest_segment=2.0))
    optimizer = torch.optim.AdamW(objective.parameters())
    batch = Batch(noise(2, 2 * RATE), torch.full((2,), 2 * RATE), torch.arange(2))

    def step() -> None:
        objective(batch, 0).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def search(folder: Path) -> Callable[[], object]:
    """The ten nearest of 100,000 vectors of 192 channels."""
    index = Index(write_index(folder / "index", 100_000, 192))
    query = index.vectors(np.array([50_000]))
    return lambda: [*best_rows(index, index.similarity(query), 10)]


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def run_workloads(folder: Path) -> None:
    """Run every workload with counting on; for the process that Valgrind runs."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    workloads: dict[str, Callable[[], object]] = {
        NOTHING: lambda: None,
        "front end, 10 s": front_end(),
        "nano encoder, 10 s": encoder(),
        "SSAST nano step, 2 x 2 s": training_step(),
        "search, 100,000 x 192": search(folder),
    }
    gc.disable()
    for name, run in workloads.items():
        run()
        control("--instr=on")
        run()
        control("--instr=off")
        control(f"--dump={name}")  # which sets the counts to 0


def control(word: str) -> None:
    command = ["callgrind_control", word, str(os.getpid())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def count() -> dict[str, int]:
    """Return the instructions of every workload."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        out = folder / "callgrind.out"
        command = [
            *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet"),
            f"--callgrind-out-file={out}",
            *(sys.executable, __file__, "--child", str(folder)),
        ]
        fixed = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        subprocess.run(command, check=True, env=os.environ | fixed)
        counts = dict(counted(path.read_text()) for path in folder.glob("callgrind.out.*"))
    nothing = counts.pop(NOTHING)
    return {name: number - nothing for name, number in counts.items()}


def counted(dump: str) -> tuple[str, int]:
    """Return the name that a dump of callgrind was given, and its number of instructions."""
    name = re.search(r"^desc: Trigger: .*?(?:dump )(.*)$", dump, re.MULTILINE)
    total = re.search(r"^totals: (\d+)$", dump, re.MULTILINE)
    assert name is not None
    assert total is not None
    return name[1], int(total[1])


def main(config: Config) -> int:
    """Return 0 if all counts are as expected."""
    if config.child is not None:
        run_workloads(config.child)
        return 0
    if shutil.which("valgrind") is None or shutil.which("callgrind_control") is None:
        print("valgrind is not installed, so nothing was counted; apt install valgrind")
        return 2
    if config.write:
        counts = count()
        table = {"versions": versions(), "counts": dict(sorted(counts.items()))}
        TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        print(f"{TABLE}: expects {', '.join(counts)}")
        return 0
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    if table["versions"] != versions():
        print(
            f"{TABLE}: holds for {table['versions']}, and here is {versions()}; nothing was counted. "
            "Install those, or check out what to compare with and count there with --write"
        )
        return 2
    findings = compare(count(), table["counts"])
    for finding in findings:
        ratio = None if finding.ratio is None else round(finding.ratio, 4)
        millions = round(finding.count / 1e6, 1)
        print(json.dumps(finding._asdict() | {"count": millions, "ratio": ratio}))
    if all(finding.fits for finding in findings):
        return 0
    print(
        f"counts differ by more than {TOLERANCE:.0%}; find the cause or, where it is meant, write "
        "them down with --write"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
