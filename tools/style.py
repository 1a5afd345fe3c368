"""Print how densely the code is packed: four counts per 1,000 lines, sizes, and guarded words.

``make check`` prints the report on ``src``: a thermometer, not a gate. ``python tools/style.py FOLDER``
also lists where the guarded words are.
"""

import ast
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

WIDTH = 100
AIMS = {
    "tuple assignments": "< 3",
    "conditional expressions": "< 8",
    f"lines over {WIDTH}": "< 10",
    "comment lines": "> 20",
}
PHRASES = re.compile(
    r"\bhangs? on\b|\bso many\b|\bin the place of\b|\banew\b|\bparted by\b|\btold from\b|\bears\b|\bso-manieth\b"
    r"|\bgone on with\b|\bwithout a word\b",
    re.IGNORECASE,
)
NAMES = {"said", "told", "found", "one"}


class Counts(NamedTuple):
    """What is counted in one file."""

    lines: int
    tuple_assignments: int
    conditional_expressions: int
    long_lines: int
    comment_lines: int
    functions: list[int]


def count(path: Path) -> Counts:
    """Return the counts of one Python file."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    nodes = list(ast.walk(ast.parse(text)))
    return Counts(
        lines=len(lines),
        tuple_assignments=sum(map(_assigns_tuple, nodes)),
        conditional_expressions=sum(isinstance(node, ast.IfExp) for node in nodes),
        long_lines=sum(len(line) > WIDTH for line in lines),
        comment_lines=sum(line.lstrip().startswith("#") for line in lines),
        functions=[
            (node.end_lineno or node.lineno) - node.lineno + 1
            for node in nodes
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ],
    )


def guarded(path: Path) -> Iterator[str]:
    """Yield ``file:line: word`` for every guarded phrase in a text file, and every guarded name in a Python file."""
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        for match in PHRASES.finditer(line):
            yield f"{path}:{number}: {match.group()}"
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            for name in _bound_names(node):
                if name in NAMES:
                    yield f"{path}:{node.lineno}: variable {name}"


def _assigns_tuple(node: ast.AST) -> bool:
    """Whether this is an assignment like ``a, b = 1, 2``; unpacking what a call returns does not count."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
    )


def _bound_names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg


def report(folder: Path) -> Iterator[str]:
    """Yield the lines of the report on a folder."""
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]
    counts = [count(path) for path in files]
    total = sum(each.lines for each in counts)
    functions = [length for each in counts for length in each.functions]
    sums = [
        sum(each.tuple_assignments for each in counts),
        sum(each.conditional_expressions for each in counts),
        sum(each.long_lines for each in counts),
        sum(each.comment_lines for each in counts),
    ]
    yield f"{folder}: {len(files)} files, {total} lines"
    for (name, aim), value in zip(AIMS.items(), sums, strict=True):
        yield f"  {name:24} {1000 * value / max(total, 1):6.1f} per 1,000 lines (aim {aim})"
    for name, sizes in (
        ("file length", [each.lines for each in counts]),
        ("function length", functions),
    ):
        if sizes:
            median = statistics.median(sizes)
            ninetieth = sorted(sizes)[int(0.9 * (len(sizes) - 1))]
            yield f"  {name:24} {median:6.0f} median, {ninetieth} at the 90th percentile"


def main(arguments: list[str]) -> None:
    """Print the report on each folder; below it the guarded words, where folders are named."""
    for folder in map(Path, arguments or ["src"]):
        sys.stdout.write("\n".join(report(folder)) + "\n")
        paths = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]
        words = [word for path in paths for word in guarded(path)]
        if arguments:
            sys.stdout.write("".join(f"  {word}\n" for word in words))
        else:
            sys.stdout.write(f"  {'guarded words':24} {len(words):6} in all\n")


if __name__ == "__main__":
    main(sys.argv[1:])
