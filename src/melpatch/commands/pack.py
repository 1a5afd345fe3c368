"""Pack a corpus into shards: decoded, mixed down and resampled once, for fast reading."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.table import Table

from melpatch.audio.files import Channel
from melpatch.audio.sound_file import LOWEST_RATE
from melpatch.audio.sound_writer import HIGHEST_FLAC_RATE, Codec
from melpatch.config import check, check_workers
from melpatch.counted import agreeing, counted
from melpatch.data.archive import Packing
from melpatch.data.corpus import Corpus
from melpatch.data.manifest import load_corpus
from melpatch.data.packing import REJECTED, pack
from melpatch.data.remote import is_url
from melpatch.data.shards import ShardSet
from melpatch.data.sources import dataset_name
from melpatch.data.verify import damaged_shards
from melpatch.errors import DataError
from melpatch.outputs import require_usable_name
from melpatch.progress import console, notice


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to pack, and how. The same command resumes an interrupted packing."""

    sources: tyro.conf.Positional[tuple[str, ...]]
    """Folders of audio, CSV files (path,label,split), or data of others (docs/data.md); with
    --check, folders or URLs of shards."""
    out: Path | None = None
    """Folder for the shards."""
    check: bool = False
    """Read every byte of the named shards and report damage; pack nothing."""
    sample_rate: int = 16_000
    """Sampling rate of the shards, in Hz; clips are resampled to it."""
    codec: Codec = "flac"
    """flac is lossless and half as large; pcm needs no decoding. Both have 16 bits."""
    shard_mib: float = 256.0
    """Size of a shard before coding, in MiB."""
    split_column: str = "split"
    """Column of the CSV files that holds the split or fold."""
    label_column: str = "label"
    """Column of the CSV files that holds the labels, separated by semicolons."""
    channel: Channel = "mean"
    """Of several channels: their mean, the left or right one, or the loudest of each file."""
    group_column: str = "group"
    """Column of the CSV files that holds the recording, speaker or patient of a clip."""
    workers: int = 2
    """Worker processes; 0 packs in this one."""

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
        check_workers(self.workers)
        check(self.check or self.out is not None, "out", None, "the folder for the shards")


def run(config: Config) -> None:
    """Write the shards and report what they hold; or read them and report what is damaged."""
    if config.check or config.out is None:
        _check(config)
        return
    require_usable_name(config.out)
    folders = {_folder(source).resolve() for source in config.sources if not is_url(source)}
    check(
        config.out.resolve() not in folders,
        "out",
        str(config.out),
        "a folder other than those of the sources",
    )
    columns = {
        "split_column": config.split_column,
        "label_column": config.label_column,
        "group_column": config.group_column,
    }
    corpus = load_corpus(config.sources, **columns, workers=config.workers)
    corpus = corpus.on_channel(config.channel)
    settings = Packing(
        sample_rate=config.sample_rate, codec=config.codec, shard_mib=config.shard_mib
    )
    names = _names(corpus, config.sources)
    about = pack(
        corpus, names, config.out, settings, workers=config.workers, command=_command(config)
    )
    _report(about, config.out)


def _check(config: Config) -> None:
    damaged = [fault for source in config.sources for fault in damaged_shards(source)]
    for fault in damaged:
        notice(fault)
    if damaged:
        raise DataError(
            f"{counted(len(damaged), 'shard')} {agreeing(len(damaged), 'is', 'are')} damaged or "
            "missing; copy again, or pack again"
        )
    console().print("no damage: every byte is as it was packed")


def _names(corpus: Corpus, sources: Sequence[str]) -> list[str]:
    """Return the path of each clip below its source, behind the name of the source."""
    roots = {}
    for source in sources:
        roots[f"{source if is_url(source) else _folder(source).absolute()}/"] = dataset_name(source)
    return [_name(clip.location, roots) for clip in corpus.clips]


def _folder(source: str) -> Path:
    """Return the folder of a source: itself, or that of a CSV file."""
    path = Path(source)
    return path if path.is_dir() else path.parent


def _name(place: str, roots: dict[str, str]) -> str:
    root = max((root for root in roots if place.startswith(root)), key=len, default="")
    if not root:
        return place
    return f"{roots[root]}/{place[len(root) :]}"


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
    if config.channel != "mean":
        words += ["--channel", config.channel]
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
            f"{counted(about.clipped, 'clip')} {agreeing(about.clipped, 'has', 'have')} samples beyond "
            "full scale, which 16 bits cannot hold; these are clipped"
        )
    if about.rejected:
        clips = f"{counted(about.rejected, 'clip')} {agreeing(about.rejected, 'is', 'are')}"
        notice(f"{clips} left out, listed in {out / REJECTED}")
    console().print(f"written: {out}")
