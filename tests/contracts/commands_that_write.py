"""Every command with an output, on a tiny corpus and tiny runs, for tests of what may go wrong around it."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from journeys.three_sounds import (
    LABELS,
    SHORT,
    SMALL,
    melpatch,
    settings,
    write_corpus,
    write_run,
)
from targets.runs import ast
from targets.runs import write_run as write_random_run

from melpatch import cli
from melpatch.errors import MelpatchError

READ_ONLY = {"bench", "datasets", "list", "push", "search", "stats"}
"""Commands that write nothing on this machine unless asked to: they print what they find, or push it."""
INTO_A_RUN = {"calibrate", "fit-embedding"}
"""Commands that add a file to the run that they read."""
SERVERS = {"page"}
"""Commands that run until they are ended; tests/page is about what they write."""


SPEC = """
title = "One way"
[[methods]]
name = "random"
trained = false
[[budgets]]
name = "small"
sizes = ["nano"]
recipe = "ssast"
flags = "{}"
steps = [1]
seeds = [0]
protocols = ["knn k=3"]
"""


class Writing(NamedTuple):
    """A command with an output.

    Attributes:
        words: the command, up to its output.
        flag: the flag of its output.
        out: the output.
        lock: the file that it locks, if it does more than to move one whole file into place.
    """

    words: tuple[str, ...]
    flag: str
    out: str
    lock: str = ""

    def at(self, folder: Path) -> list[str]:
        """Return the command with its output in a folder."""
        return [*self.words, self.flag, str(folder / self.out)]


class InThisProcess:
    """The commands of a comparison in this process, with the faults and the system that a test simulates."""

    def melpatch(self, words: Sequence[str], log: Path) -> None:
        """Run a command."""
        if cli.main([*words]):
            raise MelpatchError("failed")

    def stop(self) -> None:
        """Nothing is running."""


def write_inputs(folder: Path) -> Path:
    """Write a corpus, a pretrained run, a classifier and a comparison; return the folder."""
    write_corpus(folder / "sounds")
    write_run(folder / "pretrained", settings())
    write_run(folder / "classifier", settings(LABELS))
    write_random_run(folder / "ast", ast())
    melpatch("export", folder / "ast", "--to", "timm", "--out", folder / "ast.safetensors")
    (folder / "one.toml").write_text(
        SPEC.format(shlex.join((*SHORT, *SMALL, "--stats-clips", "3"))),
        encoding="utf-8",
    )
    return folder


def commands(folder: Path) -> dict[str, Writing]:
    """Return the commands by their names, with the inputs in a folder."""
    csv = str(folder / "sounds" / "corpus.csv")
    sounds = str(folder / "sounds")
    pretrained = str(folder / "pretrained")
    training = ("--data", csv, "--steps", "2", *SHORT, *SMALL, "--save-every", "1")
    return {
        "prepare": Writing(("prepare", sounds, "--workers", "0"), "--out", "c.csv", ".c.csv.lock"),
        "embed": Writing(("embed", pretrained, sounds), "--out", "e.npz", ".e.npz.lock"),
        "index": Writing(("index", pretrained, sounds), "--out", "i", "i/.000001.lock"),
        "labels": Writing(("labels", csv), "--out", "l.csv", ".l.csv.lock"),
        "predict": Writing(
            ("predict", str(folder / "classifier"), sounds), "--out", "p.csv", ".p.csv.lock"
        ),
        "evaluate": Writing(
            ("evaluate", pretrained, "--data", csv, "--protocol", "knn"),
            "--out",
            "scores",
            "scores/.knn.lock",
        ),
        "pack": Writing(
            ("pack", sounds, "--workers", "0"), "--out", "shards", "shards/.packing/lock"
        ),
        "pretrain": Writing(("pretrain", "ssast", *training), "--out", "run", "run/lock"),
        "finetune": Writing(
            ("finetune", "--init", "scratch", *training), "--out", "tuned", "tuned/lock"
        ),
        "compare": Writing(
            (
                *("compare", str(folder / "one.toml"), "--no-floors"),
                *("--data", csv, "--task", f"three={csv}"),
            ),
            "--out",
            "cmp",
            "cmp/.lock",
        ),
        "import": Writing(
            ("import", str(folder / "ast.safetensors")), "--out", "imported", "imported/lock"
        ),
        "demo": Writing(("demo", "--size", "nano"), "--out", "demo", "demo/.lock"),
        "export": Writing(("export", pretrained, "--to", "timm"), "--out", "w.safetensors"),
        "report": Writing(("report", pretrained, "--clips", "4"), "--out", "r.html"),
        "show": Writing(("show", pretrained), "--curve", "curve.png"),
    }
