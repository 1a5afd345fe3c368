"""Damaged shards: archive, index and shards.json, with checksums that are mended or not, local and from a server.

python benchmarks/fuzz/shards.py --seed 0 --count 400
"""

import csv
import hashlib
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tiny
from answers import check_answers
from driver import Case, main
from mutations import NUMBERS, TEXTS, damaged, odd_value, shown
from web import serving, within_cache

FILES = SHARD, INDEX, ABOUT = "shard-000000.tar", "index.csv", "shards.json"


def prepare(folder: Path) -> dict[str, Any]:
    """Make shards of two codecs and two runs."""
    data = tiny.sounds(folder / "sounds", 6)
    base: dict[str, Any] = {"run": tiny.pretrained(folder / "run", "ssast", data)}
    base["classifier"] = tiny.classifier(folder / "classifier", data)
    for codec in ("flac", "pcm"):
        words = ("--codec", codec, "--sample-rate", tiny.RATE, "--workers", 0)
        tiny.melpatch("pack", data, "--out", folder / codec, *words)
        base[codec] = folder / codec
    return base


def case(rng: random.Random, base: dict[str, Any], folder: Path) -> Case:
    """Damage a set of shards and use it, as a folder or from a server."""
    shards = folder / "shards"
    shutil.copytree(base[rng.choice(("flac", "pcm"))], shards)
    hows = [_damage(rng, shards) for _ in range(rng.choice((1, 1, 2, 3)))]
    if rng.random() < 0.75:
        _mend_checksums(shards)
        hows.append("checksums mended")
    remote = rng.random() < 0.4
    words, before = _use(rng, base, str(shards), folder), partial(os.chdir, folder)
    if remote:
        # The server is a thread of the case's own process, and its address is known beforehand.
        server = serving(shards)
        words = _use(rng, base, server.url, folder)
        before = partial(server.start, folder)
    name = f"{words[0]}{' remote' if remote else ''}: {'; '.join(hows)}"

    def after() -> None:
        check_answers(folder)
        within_cache(folder)

    return Case(name[:400], words=words, before=before, after=after)


def _use(rng: random.Random, base: dict[str, Any], source: str, folder: Path) -> tuple[str, ...]:
    """Return a command on shards."""
    training = ("--out", folder / "o", *tiny.TRAIN)
    alone = ("--workers", 0)
    run, classifier = base["run"], base["classifier"]
    words: Sequence[Any] = rng.choice(
        (
            ("pack", "--check", source),
            ("prepare", source, "--out", folder / "o.csv", *alone),
            ("stats", source),
            ("pretrain", "ssast", "--data", source, *training),
            ("finetune", "--init", "scratch", "--data", source, *training),
            ("embed", run, source, "--out", folder / "o.npz", *alone),
            ("predict", classifier, source, "--out", folder / "o.csv", *alone),
            ("evaluate", run, "--data", source, "--protocol", "knn", "--out", folder / "o"),
        )
    )
    return tuple(map(str, words))


def _damage(rng: random.Random, shards: Path) -> str:
    """Damage one file of a set of shards, and return in words how."""
    change = rng.choice((_bytes, _index, _index, _about, _about, _member, _replaced))
    # What has been replaced by a pipe or a device is not read here.
    whole = all(
        (shards / name).is_file() and (shards / name).stat().st_size < 1 << 24 for name in FILES
    )
    return change(rng, shards) if whole else _replaced(rng, shards)


def _bytes(rng: random.Random, shards: Path) -> str:
    path = shards / rng.choice(FILES)
    if not path.is_file():
        return "nothing"
    content, how = damaged(rng, path.read_bytes())
    path.write_bytes(content)
    return f"{path.name}: {how}"


def _index(rng: random.Random, shards: Path) -> str:
    """Change cells of the index, such as offsets, sizes and keys."""
    try:
        with (shards / INDEX).open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, ValueError, csv.Error):
        return "nothing"
    if not rows or not rows[0]:
        return "nothing"
    column = rng.randrange(len(rows[0]))
    numbers = [str(number) for number in NUMBERS if abs(number) < 1e300]
    value = rng.choice((*numbers, "nan", "inf", *TEXTS))
    chosen = range(len(rows)) if rng.random() < 0.3 else [rng.randrange(len(rows))]
    for number in chosen:
        if column < len(rows[number]):
            rows[number][column] = value
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    (shards / INDEX).write_text(text.getvalue(), encoding="utf-8", errors="replace")
    return f"{rows[0][column][:20]} of {len(chosen)} rows = {value[:30]!r}"


def _about(rng: random.Random, shards: Path) -> str:
    """Change a value of shards.json, of the whole set or of a shard."""
    path = shards / ABOUT
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        table = about
        if rng.random() < 0.5:
            table = rng.choice(about["shards"])
        key = rng.choice([*table])
    except (OSError, ValueError, LookupError, TypeError):
        return "nothing"
    value = rng.choice(NUMBERS) if isinstance(table[key], int | float) else odd_value(rng)
    table[key] = value
    try:
        path.write_text(json.dumps(about), encoding="utf-8", errors="replace")
    except (ValueError, RecursionError):
        path.write_text("[" * 100_000)
    return f"{key} = {shown(value)}"


def _member(rng: random.Random, shards: Path) -> str:
    """Write the archive again with one member that is odd."""
    path = shards / SHARD
    try:
        with tarfile.open(path) as archive:
            members = [
                (item, archive.extractfile(item).read()) for item in archive if item.isfile()
            ]  # type: ignore[union-attr]
    except (OSError, tarfile.TarError, ValueError):
        return "nothing"
    if not members:
        return "nothing"
    odd = rng.randrange(len(members))
    kind = rng.choice(("link", "device", "name", "bytes", "text", "order"))
    if kind == "order":
        rng.shuffle(members)
    with tarfile.open(
        path, "w", format=rng.choice((tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT))
    ) as archive:
        for number, (item, content) in enumerate(members):
            if number == odd and kind == "link":
                item.type, item.linkname = tarfile.SYMTYPE, "/etc/passwd"
            elif number == odd and kind == "device":
                item.type = tarfile.CHRTYPE
            elif number == odd and kind == "name":
                item.name = rng.choice(("../../evil", "/tmp/evil", "x" * 99, "."))
            elif number == odd and kind == "bytes":
                content, _ = damaged(rng, content)
                item.size = len(content)
            elif number == odd and kind == "text":
                content = rng.choice((b"", b"{}", b"[" * 10_000, b"null", bytes(5000)))
                item.size = len(content)
            archive.addfile(item, io.BytesIO(content))
    return f"member {odd}: {kind}"


def _replaced(rng: random.Random, shards: Path) -> str:
    """Put something else where a file was."""
    path = shards / rng.choice(FILES)
    if path.is_dir():
        return "nothing"
    path.unlink(missing_ok=True)
    kind = rng.choice(("nothing", "folder", "pipe", "zero", "loop", "sparse"))
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 27)
    return f"{path.name} is {kind}"


def _mend_checksums(shards: Path) -> None:
    """Write the true checksums into shards.json, as someone would who means harm."""
    path = shards / ABOUT
    try:
        about = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if (shards / INDEX).is_file():
            about["index"] = hashlib.sha256((shards / INDEX).read_bytes()).hexdigest()
        for shard in about["shards"]:
            file = shards / shard["name"]
            if file.is_file():
                with file.open("rb") as content:
                    shard["sha256"] = hashlib.file_digest(content, "sha256").hexdigest()
                if isinstance(shard["size"], int) and 0 <= shard["size"] < 1 << 40:
                    shard["size"] = file.stat().st_size
        path.write_text(json.dumps(about), encoding="utf-8")
    # There is nothing to mend in what is no longer JSON.
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return


if __name__ == "__main__":
    raise SystemExit(main(prepare, case))
