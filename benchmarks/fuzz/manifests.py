"""Damaged lists of clips and folders: cells, columns, quotes, encodings, odd paths, pipes and links among recordings.

python benchmarks/fuzz/manifests.py --seed 0 --count 400
"""

import csv
import io
import os
import random
import shutil
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tiny
from answers import check_answers
from driver import Case, main
from mutations import NUMBERS, TEXTS, damaged, odd_text

COLUMNS = ("path", "label", "split", "start", "duration", "end", "group", "key", "offset", "size")
PATHS = (
    "a/0.wav", "./a/../a/0.wav", "a", "a/", "pipe.wav", "loop.wav", "zero.wav", "huge.wav", "sparse.wav",
    "dangling.wav", "empty.wav", "socket.wav", "http://127.0.0.1:1/shard-000000.tar", "file:///etc/passwd",
    "s3://", "~/.ssh/id_rsa", "$HOME/x.wav", "C:\\x.wav", "a\\0.wav", "shard-000000.tar", "-", "list.csv",
)  # fmt: skip
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-7")


def prepare(folder: Path) -> dict[str, Any]:
    """Make recordings and two runs."""
    data = tiny.sounds(folder / "sounds", 6)
    run = tiny.pretrained(folder / "run", "ssast", data)
    classifier = tiny.classifier(folder / "classifier", data)
    return {"data": data, "run": run, "classifier": classifier}


def case(rng: random.Random, base: dict[str, Any], folder: Path) -> Case:
    """Damage a list of clips, or put odd things into a folder, and use it."""
    data = folder / "data"
    shutil.copytree(base["data"], data)
    if rng.random() < 0.35:
        source, how = data, "; ".join(_odd_file(rng, data) for _ in range(rng.randrange(1, 4)))
    else:
        _specials(data)
        source = data / "list.csv"
        how = _listing(rng, data, source)
    words = _use(rng, base, source, folder)
    name = f"{words[0]}: {how}"
    return Case(name[:400], words=tuple(map(str, words)), after=partial(check_answers, folder))


def _use(rng: random.Random, base: dict[str, Any], source: Path, folder: Path) -> tuple[Any, ...]:
    """Return a command on a list or folder."""
    out = folder / "o"
    run, classifier = base["run"], base["classifier"]
    training = ("--out", out, *tiny.TRAIN)
    alone = ("--workers", 0)
    return rng.choice(
        (
            ("prepare", source, "--out", folder / "o.csv", *alone),
            ("prepare", source, "--out", folder / "o.csv", "--headers-only", *alone),
            ("prepare", source, "--out", folder / "o.csv", "--salvage", *alone),
            ("stats", source),
            ("pack", source, "--out", out, *alone),
            ("pretrain", "ssast", "--data", source, *training),
            ("finetune", "--init", "scratch", "--data", source, *training),
            ("embed", run, source, "--out", folder / "o.npz", *alone),
            ("embed", run, source, "--hop", 0.2, "--out", folder / "o.csv", *alone),
            ("predict", classifier, source, "--out", folder / "o.csv", *alone),
            ("evaluate", run, "--data", source, "--protocol", "knn", "--out", out, *alone),
            ("evaluate", classifier, "--data", source, "--out", out, *alone),
        )
    )


def _listing(rng: random.Random, data: Path, path: Path) -> str:
    """Write a list of clips that is odd in one to three ways, and return these."""
    columns = list(rng.sample(COLUMNS[:7], rng.randrange(1, 6)))
    if "path" not in columns and rng.random() < 0.9:
        columns.insert(0, "path")
    sounds = [file.relative_to(data).as_posix() for file in sorted(data.glob("[ab]/*.wav"))]
    rows = [columns]
    for number, sound in enumerate(sounds):
        values = {
            "path": sound,
            "label": "ab"[number % 2],
            "split": rng.choice(("train", "val", "test")),
            "start": "0.1",
            "duration": "0.2",
            "end": "0.4",
            "group": "g",
        }
        rows.append([values[column] for column in columns])
    changes = [_change_rows(rng, rows) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    text = io.StringIO()
    delimiter = rng.choice((",", ",", ",", ";", "\t", "|"))
    ends = rng.choice(("\n", "\n", "\r\n", "\r"))
    quoting = rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    csv.writer(text, delimiter=delimiter, lineterminator=ends, quoting=quoting).writerows(rows)
    encoding = rng.choice(ENCODINGS) if rng.random() < 0.2 else "utf-8"
    content = text.getvalue().encode(encoding, errors="replace")
    if rng.random() < 0.3:
        content, how = damaged(rng, content)
        changes.append(how)
    path.write_bytes(content)
    return f"{delimiter!r} {ends!r} {encoding} {'; '.join(changes)}"


def _change_rows(rng: random.Random, rows: list[list[str]]) -> str:
    """Change cells, rows or columns, and return in words how."""
    row = rng.randrange(len(rows))
    if not rows[row]:
        return "nothing"
    column = rng.randrange(len(rows[row]))
    kind = rng.randrange(10)
    match kind:
        case 0:
            value = rng.choice((*map(_written, NUMBERS), *TEXTS, odd_text(rng), '"', "x" * 200_000))
        case 1 | 2 | 3:
            value = rng.choice((*map(_written, NUMBERS), *TEXTS, odd_text(rng)))
            row = max(1, row) if len(rows) > 1 else 0
        case 4 | 5:
            value = rng.choice(PATHS)
            column = rows[0].index("path") if "path" in rows[0] else column
        case 6:
            repeated = rng.choice((1, 3, 5000))
            rows.extend([rows[row]] * repeated)
            return f"row {row} {repeated} times more"
        case 7:
            del rows[row][column]
            return f"cell {row}, {column} removed"
        case 8:
            added = rng.choice(([""], ["x"] * 3, ["x"] * 50_000, ["path"], ["label"]))
            rows[row].extend(added)
            return f"{len(added)} cells more in row {row}"
        case _:
            other = rng.choice(COLUMNS)
            rows[0].append(other)
            for cells in rows[1:]:
                cells.append(rng.choice(("1", "x", "")))
            return f"column {other} more"
    if column < len(rows[row]):
        rows[row][column] = value
    return f"cell {row}, {column} = {value[:30]!r}"


def _written(number: float) -> str:
    return "9" * 401 if isinstance(number, int) and number > 10**300 else str(number)


def _specials(data: Path) -> None:
    """Put things into a folder that look like recordings but are none."""
    for kind, make in SPECIALS.items():
        make(data / f"{kind}.wav")


def _odd_file(rng: random.Random, data: Path) -> str:
    """Put one odd thing anywhere into a folder, and return in words what."""
    kind = rng.choice(sorted(SPECIALS))
    names = (
        f"{kind}.wav",
        f"a/{kind}.flac",
        f"{kind}/x.wav",
        "a\nb.wav",
        "-x.wav",
        "%s.wav",
        "é.wav",
    )
    path = data / rng.choice(
        (*names, "\udcff.wav", f"{'n' * 250}.wav", ".hidden.wav", "manifest.csv")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        return "nothing"
    SPECIALS[kind](path)
    return f"{kind} at {str(path.relative_to(data))[:40]!r}"


def _socket(path: Path) -> None:
    """Make a socket, whose address may be too long for a place; a pipe then."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    except OSError:
        os.mkfifo(path)
    finally:
        os.chdir(here)


def _deep(path: Path) -> None:
    """Make folders in each other, as deep as a path may be."""
    deepest = path
    for _ in range(400):
        deepest = deepest / "d"
    deepest.mkdir(parents=True)
    shutil.copy(path.parent / "a" / "0.wav", deepest / "x.wav") if (
        path.parent / "a"
    ).exists() else None


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.write(
            b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\xff\xff\xff\xff"
        )
        file.truncate(1 << 24)


def _sparse(path: Path) -> None:
    """Write 64 GiB of zeros that take no room."""
    with path.open("wb") as file:
        file.truncate(64 << 30)


SPECIALS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "loop": lambda path: path.symlink_to(path.name),
    "up": lambda path: path.symlink_to(".."),
    "zero": lambda path: path.symlink_to("/dev/zero"),
    "tty": lambda path: path.symlink_to("/dev/stdin"),
    "proc": lambda path: path.symlink_to("/proc/self/fd"),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "socket": _socket,
    "empty": lambda path: path.touch(),
    "folder": lambda path: path.mkdir(),
    "huge": _huge,
    "sparse": _sparse,
    "deep": _deep,
    "text": lambda path: path.write_text("path,label\n,\n"),
    "locked": lambda path: path.touch(0o000),
}
"""Things that are no recordings, by their names."""


if __name__ == "__main__":
    raise SystemExit(main(prepare, case))
