"""A pretraining that is killed over and over, beside the same one left in peace.

    OMP_NUM_THREADS=1 python benchmarks/survival.py [--kills 20 --steps 300 --save-every 10]

Every kill is ``kill -9`` at a random moment: one in five while the process starts, the others a moment after a random
step, spread over the whole run, while it trains or saves; then the same command goes on with --resume. Prints one JSON
line per kill (the step that was logged last, the newest state to go on from, and whether a half-written file was left
behind) and one that says whether, in the end, metrics and weights are those of the run left in peace, to the byte. The
exit code is 1 if they are not.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import tyro


@dataclass(frozen=True, kw_only=True)
class Config:
    """How often to kill what."""

    kills: int = 20
    """How many there are."""
    steps: int = 300
    """Steps of the run."""
    save_every: int = 10
    """Steps between saves."""
    recipe: str = "ssast"
    """What is pretrained, on noise."""
    size: str = "nano"
    """Size of the encoder."""
    seed: int = 0
    """Of the moments."""


def main(config: Config) -> int:
    rng = np.random.default_rng(config.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed, data = (Path(folder, name) for name in ("whole", "killed", "noise"))
        data.mkdir()
        for number in range(16):
            wave = 0.1 * np.random.default_rng(number).normal(size=8000 + 500 * number)
            soundfile.write(data / f"{number:02}.wav", wave, 16000)
        starting, training = _left_in_peace(config, data, whole)
        after = np.sort(rng.integers(0, config.steps - config.save_every, config.kills)).tolist()
        for number, step in enumerate(after):
            in_start = number % 5 == 0
            wait = rng.uniform(0, starting if in_start else 3 * training / config.steps)
            record = _killed(config, data, killed, None if in_start else step, wait)
            print(json.dumps({"kill": number + 1, **record}), flush=True)
        _started(config, data, killed).communicate()
        same = {
            name: (whole / name).read_bytes() == (killed / name).read_bytes()
            for name in ("metrics.jsonl", "model.safetensors")
        }
    equal = {f"equal_{name.partition('.')[0]}": value for name, value in same.items()}
    print(json.dumps({**vars(config), "training_seconds": round(training, 6), **equal}), flush=True)
    return 0 if all(same.values()) else 1


def _started(config: Config, data: Path, out: Path) -> subprocess.Popen[bytes]:
    words = [
        "--size",
        config.size,
        "--steps",
        str(config.steps),
        "--save-every",
        str(config.save_every),
    ]
    words += [
        "--log-every",
        "1",
        "--seconds",
        "0.5",
        "--batch-size",
        "4",
        "--stats-clips",
        "8",
        "--workers",
        "0",
    ]
    command = [
        sys.executable,
        "-m",
        "melpatch",
        "pretrain",
        config.recipe,
        "--data",
        str(data),
        *words,
    ]
    return subprocess.Popen([*command, "--out", str(out), "--resume"], stderr=subprocess.DEVNULL)


def _left_in_peace(config: Config, data: Path, out: Path) -> tuple[float, float]:
    """Train; return the seconds until the first step was logged, and from then to the end."""
    start = time.monotonic()
    process = _started(config, data, out)
    _wait_for_a_line(process, out / "metrics.jsonl")
    first = time.monotonic()
    if process.wait():
        sys.exit("the run left in peace failed")
    return first - start, time.monotonic() - first


def _killed(
    config: Config, data: Path, out: Path, step: int | None, wait: float
) -> dict[str, object]:
    """Resume the run, and kill it some seconds after it has logged a step or was started."""
    metrics = out / "metrics.jsonl"
    process = _started(config, data, out)
    if step is not None:
        _wait_for_a_line(process, metrics)
        while process.poll() is None and _logged(metrics) < step:
            time.sleep(0.002)
    time.sleep(wait)
    process.kill()
    if process.wait() == 0:
        sys.exit(
            "the run was over before it could be killed so often; give more --steps or fewer --kills"
        )
    states = sorted(path.name for path in out.glob("resume/step-*"))
    return {
        "after": "start" if step is None else f"step {step}",
        "seconds": round(wait, 6),
        "logged": _logged(metrics),
        "saved": int(states[-1].removeprefix("step-")) if states else 0,
        "half_written": bool([*out.glob(".*"), *out.glob("resume/.*")]),
    }


def _logged(metrics: Path) -> int:
    """Return the step of the last whole line; 0 without any."""
    lines = metrics.read_bytes().splitlines(keepends=True) if metrics.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith(b"\n")), default=0)


def _wait_for_a_line(process: subprocess.Popen[bytes], metrics: Path) -> None:
    """Wait until the file grows; that a resumed run first cuts it to what it goes on from does not count."""
    before = now = _size(metrics)
    while process.poll() is None and now <= before:
        time.sleep(0.002)
        before, now = now, _size(metrics)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
