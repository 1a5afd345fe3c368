"""Pack a corpus into shards: decoded, mixed down and resampled once, for fast reading from any disk or store."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.table import Table

from melpatch.audio.sound_file import LOWEST_RATE
from melpatch.audio.sound_writer import HIGHEST_FLAC_RATE, Codec
from melpatch.config import check
from melpatch.data.archive import Packing
from melpatch.data.corpus import Corpus
from melpatch.data.manifest import load_corpus
from melpatch.data.packing import REJECTED, pack
from melpatch.data.remote import is_url
from melpatch.data.shards import ShardSet
from melpatch.data.sources import dataset_name
from melpatch.data.verify import damaged_shards
from melpatch.errors import DataError
from melpatch.progress import console, notice


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to pack, and how; what is cut off goes on where it was, with the same command."""

    sources: tyro.conf.Positional[tuple[str, ...]]
    """Folders of audio, and CSV files with the header path,label,split; with --check, folders of shards or their
    URLs."""
    out: Path | None = None
    """Folder for the shards."""
    check: bool = False
    """Pack nothing; read every byte of the shards that are named, and tell what is damaged."""
    sample_rate: int = 16_000
    """Rate that clips are resampled to, in Hz."""
    codec: Codec = "flac"
    """flac is without loss and half as large as pcm, which needs no decoding; both have 16 bits."""
    shard_mib: float = 256.0
    """Mebibytes of samples in a shard, before they are coded."""
    split_column: str = "split"
    """Column of the CSV files that holds the split or fold."""
    label_column: str = "label"
    """Column of the CSV files that holds the label; several are parted by semicolons."""
    workers: int = 2
    """Processes that share the work; 0 does it in this one."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        allowed = f"{LOWEST_RATE} to {HIGHEST_FLAC_RATE} Hz"
        check(
            LOWEST_RATE <= self.sample_rate <= HIGHEST_FLAC_RATE,
            "sample_rate",
            self.sample_rate,
            allowed,
        )
        check(self.shard_mib > 0, "shard_mib", self.shard_mib, "above 0")
        check(self.workers >= 0, "workers", self.workers, "0 or more")
        check(self.check or self.out is not None, "out", None, "the folder for the shards")


def run(config: Config) -> None:
    """Write the shards and say what they hold; or read them all and say what is damaged."""
    if config.check or config.out is None:
        _check(config)
        return
    folders = {_folder(source).resolve() for source in config.sources if not is_url(source)}
    check(
        config.out.resolve() not in folders,
        "out",
        str(config.out),
        "a folder that is none of the sources'",
    )
    columns = {"split_column": config.split_column, "label_column": config.label_column}
    corpus = load_corpus(config.sources, **columns, workers=config.workers)
    settings = Packing(
        sample_rate=config.sample_rate, codec=config.codec, shard_mib=config.shard_mib
    )
    names = _names(corpus, config.sources)
    about = pack(
        corpus, names, config.out, settings, workers=config.workers, command=_command(config)
    )
    _report(about, config.out)


def _check(config: Config) -> None:
    found = [fault for source in config.sources for fault in damaged_shards(source)]
    for fault in found:
        notice(fault)
    if found:
        raise DataError(
            f"{len(found)} shards are damaged or missing; copy them again, or pack anew"
        )
    console().print("every byte is as it was packed")


def _names(corpus: Corpus, sources: Sequence[str]) -> list[str]:
    """Return what each clip is called below its source, with the source's name in front and not where it lies on this
    machine."""
    roots = {}
    for source in sources:
        roots[f"{source if is_url(source) else _folder(source).absolute()}/"] = dataset_name(source)
    return [_name(clip.location, roots) for clip in corpus.clips]


def _folder(source: str) -> Path:
    """Return the folder that is a source, or in which its list lies."""
    return Path(source) if Path(source).is_dir() else Path(source).parent


def _name(place: str, roots: dict[str, str]) -> str:
    root = max((root for root in roots if place.startswith(root)), key=len, default="")
    return f"{roots[root]}/{place[len(root) :]}" if root else place


def _command(config: Config) -> str:
    words = [
        "melpatch",
        "pack",
        *config.sources,
        "--sample-rate",
        str(config.sample_rate),
        "--codec",
        config.codec,
    ]
    return shlex.join([*words, "--shard-mib", str(config.shard_mib)])


def _report(about: ShardSet, out: Path) -> None:
    table = Table(title=out.name, title_justify="left", show_header=False, box=None)
    table.add_row("clips", f"{about.clips:,}")
    table.add_row("hours", f"{about.seconds / 3600:.3f}")
    table.add_row("shards", f"{len(about.shards):,}, {about.size / 2**20:,.1f} MiB")
    table.add_row("stored as", f"16-bit {about.codec}, {about.sample_rate} Hz")
    console().print(table)
    if about.clipped:
        notice(
            f"{about.clipped:,} clips have samples beyond full scale, which are cut off as 16 bits must"
        )
    if about.rejected:
        notice(f"{about.rejected:,} clips are left out, listed in {out / REJECTED}")
    console().print(f"written: {out}")
