"""Parts of a benchmark: commands with a limit of seconds, whose results are kept for the next call."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "benchmarks"
_TAIL = 2000  # characters of the output that are kept of a part that failed


@dataclass(frozen=True)
class Part:
    """Commands that run one after the other, or all at once, and the seconds that they may take."""

    seconds: float
    commands: tuple[tuple[str, ...], ...]
    at_once: bool = False


def carry_out_missing(
    out: Path, parts: Mapping[str, Part], limit: float, again: Sequence[str] = ()
) -> None:
    """Run the parts that are not done, and those to be done again; keep what they printed in OUT/PART.json.

    Args:
        out: folder of the results.
        parts: the parts by name, in the order in which they run.
        limit: seconds for all together; a part that would not have half of its own is left for the next call.
        again: parts to run although they are done.
    """
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    for name, part in parts.items():
        if name not in again and is_done(out, name):
            continue
        left = limit - (time.monotonic() - began)
        if left < part.seconds / 2:
            print(
                f"{name}: left for the next call, {left:.0f} s are left of {limit:.0f}", flush=True
            )
            continue
        result = carry_out(part, min(part.seconds, left))
        write(out / f"{name}.json", json.dumps(result, indent=1))
        print(f"{name}: {result['status']} in {result['seconds']:.0f} s", flush=True)


def results_of(out: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return the results of all parts so far."""
    results = {}
    for name in names:
        path = out / f"{name}.json"
        results[name] = {"status": "not run", "seconds": 0.0, "records": [], "tail": ""}
        if path.exists():
            results[name] = json.loads(path.read_text(encoding="utf-8"))
    return results


def statuses(results: Mapping[str, Any]) -> list[str]:
    """Return what became of each part, as lines of Markdown."""
    lines = ["| part | status | s |", "|---|---|---|"]
    for name, part in results.items():
        lines.append(f"| {name} | {part['status']} | {part['seconds']:.0f} |")
    return lines


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
