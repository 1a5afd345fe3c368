"""Verify a folder of shards against the checksums that were taken when it was packed."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from melpatch.config import check
from melpatch.counted import agreeing, counted
from melpatch.data.clip import Clip
from melpatch.data.manifest import load_corpus
from melpatch.data.remote import fetch, is_url, mirror
from melpatch.data.shards import Shard, digest, is_shard_folder, read_shard_set
from melpatch.data.sound import byte_range
from melpatch.errors import AudioError
from melpatch.progress import track


def damaged_shards(shards: str) -> Iterator[str]:
    """Yield a sentence for each missing or damaged shard, which names its first damaged clip.

    Args:
        shards: a folder of shards, or its URL.

    Raises:
        ConfigError: the folder does not contain shards.
        DataError: its index is damaged, or all its shards are missing.
    """
    folder, url = mirror(shards) if is_url(shards) else (Path(shards), "")
    allowed = "with --check, folders that melpatch pack wrote, or their URLs"
    check(is_shard_folder(folder), "sources", shards, allowed)
    about = read_shard_set(folder, shards)
    clips = defaultdict(list)
    for clip in load_corpus([shards]).clips:
        clips[clip.path.name].append(clip)
    for shard in track(about.shards, len(about.shards), "reading", "shard"):
        path = folder / shard.name
        lost = f"{counted(shard.clips, 'clip')} {agreeing(shard.clips, 'is', 'are')} lost"
        try:
            if url:
                fetch(f"{url}/{shard.name}", path)
            if not path.exists():
                yield f"{shards}/{shard.name}: does not exist; {lost}"
            elif digest(path) != shard.sha256:
                yield _damage(shard, f"{shards}/{shard.name}", path, clips[shard.name])
        except AudioError as error:
            yield f"{error.path}: {error.reason}; {lost}"


def _damage(shard: Shard, shown: str, path: Path, clips: list[Clip]) -> str:
    """Return a sentence on a damaged shard: its size, and the number of damaged clips."""
    size = path.stat().st_size
    bad = []
    for clip in clips:
        try:
            byte_range(clip).content()
        except AudioError:
            bad.append(clip)
    # Clips that the index does not list are lost as well.
    lost = shard.clips - len(clips) + len(bad)
    problem = "has other bytes than were packed"
    if size != shard.size:
        problem = f"has {counted(size, 'byte')}, not {shard.size:,}"
    example = f", such as {bad[0].location}" if bad else ""
    damaged = f"{lost:,} of {counted(shard.clips, 'clip')} {agreeing(lost, 'is', 'are')} damaged"
    return f"{shown}: {problem}; {damaged}{example}"
