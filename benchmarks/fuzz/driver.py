"""What all fuzzers share: each damaged input is tried in a process of its own, and what came of it is counted.

A fuzzer is a script of this folder with two functions: ``prepare(folder)`` makes what all cases start from, and
``case(rng, base, folder)`` returns one damaged input and what to do with it. It is run by

    python benchmarks/fuzz/weights.py [--seed 0 --count 300 --first 0 --seconds 60 --mib 3000]

and prints a JSON line for every case that was neither taken nor refused in one line, then one with the counts. The
exit code is 1 if there was any. A case depends on the seed and its number alone: ``--first 37 --count 1`` repeats one.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """One damaged input, in words, and what is done with it."""

    name: str
    """What was damaged, and how."""
    words: tuple[str, ...] = ()
    """A command line of melpatch, without its first word."""
    call: Callable[[], object] | None = None
    """A function to call instead; it raises AssertionError if what it sees may not be."""
    before: Callable[[], object] | None = None
    """A function that is called first in the process of the case, such as to set its environment."""
    after: Callable[[], object] | None = None
    """A function that is called if the input was taken; it raises AssertionError like ``call``."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    number: int
    name: str
    verdict: str
    """taken, refused (one line, exit code 2), defect, hang, or killed (a signal, or memory)."""
    message: str
    seconds: float


@dataclass(frozen=True)
class Limits:
    """What a case may take."""

    seconds: float = 60.0
    mib: int = 3000
    """Address space beyond that of the process at its start."""


Prepare = Callable[[Path], Any]
MakeCase = Callable[[random.Random, Any, Path], Case]


def fuzz(
    prepare: Prepare,
    make_case: MakeCase,
    *,
    seed: int,
    count: int,
    first: int = 0,
    limits: Limits | None = None,
    report: Callable[[Outcome], object] = lambda outcome: None,
) -> list[Outcome]:
    """Return the outcomes of the cases ``first`` to ``first + count - 1``, each reported at once."""
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        base = prepare(top)
        for number in range(first, first + count):
            folder = top / f"case-{number}"
            folder.mkdir()
            case = make_case(random.Random(f"{seed} {number}"), base, folder)
            outcomes.append(_attempt(number, case, limits or Limits(), top / "outcome.json"))
            report(outcomes[-1])
            shutil.rmtree(folder, ignore_errors=True)
    return outcomes


def main(prepare: Prepare, make_case: MakeCase, words: Sequence[str] | None = None) -> int:
    """Run a fuzzer with the flags of the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=sys.modules[make_case.__module__].__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seconds", type=float, default=60.0, help="limit of a case")
    parser.add_argument("--mib", type=int, default=3000, help="memory that a case may take")
    parser.add_argument("--all", action="store_true", help="print every case")
    given = parser.parse_args(words)
    started = time.monotonic()

    def report(outcome: Outcome) -> None:
        if given.all or bad([outcome]):
            print(json.dumps(asdict(outcome)), flush=True)

    outcomes = fuzz(
        prepare,
        make_case,
        seed=given.seed,
        count=given.count,
        first=given.first,
        limits=Limits(given.seconds, given.mib),
        report=report,
    )
    summary = {
        "fuzzer": Path(sys.argv[0]).stem,
        "seed": given.seed,
        "cases": len(outcomes),
        **Counter(outcome.verdict for outcome in outcomes),
        "slowest": max((round(outcome.seconds, 2) for outcome in outcomes), default=0.0),
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(summary))
    return int(bool(bad(outcomes)))


def bad(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the cases that were neither taken nor refused in one line."""
    return [outcome for outcome in outcomes if outcome.verdict not in {"taken", "refused"}]


def _attempt(number: int, case: Case, limits: Limits, report: Path) -> Outcome:
    """Carry out a case in a forked process, which a hang, a crash or a lack of memory ends alone."""
    report.unlink(missing_ok=True)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _in_child(case, limits, report)
    status = _wait(child, start + limits.seconds)
    seconds = time.monotonic() - start
    if status is None:
        return Outcome(number, case.name, "hang", f"over {limits.seconds:g} s", seconds)
    if not report.exists():
        return Outcome(number, case.name, "killed", f"wait status {status}", seconds)
    verdict, message = json.loads(report.read_text(encoding="utf-8"))
    return Outcome(number, case.name, verdict, message, seconds)


def _wait(child: int, deadline: float) -> int | None:
    """Return the status of a process once it ends; end it at the deadline, and return None."""
    pause = 0.001
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _in_child(case: Case, limits: Limits, report: Path) -> None:
    """Carry out a case, write what came of it, and end the process."""
    try:
        os.setsid()
        os.chdir(report.parent)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = size + (limits.mib << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        printed = report.with_name("printed.txt")
        file = os.open(printed, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        with (
            os.fdopen(os.dup(file), "w", encoding="utf-8", errors="backslashreplace") as stream,
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(stream),
        ):
            if case.before:
                case.before()
            verdict, message = _called(case.call) if case.call else _command(case.words)
            if case.after and verdict == "taken":
                case.after()
            stream.flush()
        report.write_text(json.dumps([verdict, message]), encoding="utf-8")
    except BaseException:  # noqa: BLE001 - whatever it is, the parent process is to hear of it
        report.write_text(json.dumps(["defect", _last_lines()]), encoding="utf-8")
    finally:
        os._exit(0)


def _last_lines() -> str:
    """Return the end of the traceback of the current exception: where it was raised, and what."""
    kind, error, trace = sys.exc_info()
    frames = traceback.extract_tb(trace)[-3:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return f"{kind.__name__ if kind else ''}: {str(error)[:300]} ({' > '.join(places)})"


def _called(call: Callable[[], object]) -> tuple[str, str]:
    """Return the verdict on a function."""
    from melpatch.errors import MelpatchError

    try:
        call()
    except MelpatchError as error:
        return _judged(error)
    except BaseException:  # noqa: BLE001 - this is what a fuzzer looks for
        return "defect", _last_lines()
    return "taken", ""


def _command(words: Sequence[str]) -> tuple[str, str]:
    """Return the verdict on a command line; what it printed is judged later."""
    from melpatch import cli
    from melpatch.errors import MelpatchError

    try:
        # --debug lets exceptions through, so that a defect comes with its traceback.
        code = cli.main([*words, "--debug"])
    except MelpatchError as error:
        return _judged(error)
    except OSError as error:
        if error.filename is not None:
            return "refused", f"{error.filename}: {error.strerror}"
        return "defect", _last_lines()
    except BaseException:  # noqa: BLE001 - this is what a fuzzer looks for
        return "defect", _last_lines()
    return ("taken", "") if code == 0 else ("defect", f"exit code {code}")


def _judged(error: Exception) -> tuple[str, str]:
    """Return the verdict on an error of melpatch, and the line that users see of it."""
    from melpatch.errors import one_line

    return "refused", one_line(str(error))
