"""What commands share: flags that decide the defaults of other flags, opening a run folder, drawing a clip."""

from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import torch
import tyro

from melpatch.config import from_toml, to_dict
from melpatch.data.clip import Batch, Clip
from melpatch.data.manifest import Corpus, load_corpus
from melpatch.data.sound import decode
from melpatch.data.splits import few_labels, scarce
from melpatch.distributed import on_rank_zero, restarted
from melpatch.errors import ConfigError
from melpatch.inference.model import Model
from melpatch.interop.base import is_weights, require_weights
from melpatch.plots.pseudo_labels import pseudo_labels
from melpatch.plots.spectrogram import reconstruction
from melpatch.progress import notice
from melpatch.training.config import RunConfig
from melpatch.training.run import COMMAND, Run

T = TypeVar("T")


def early(arguments: list[str], flag: str, default: str | None) -> str | None:
    """Return the value of a flag that has to be known before the others can be read."""
    for number, word in enumerate(arguments):
        if word == flag and number + 1 < len(arguments):
            return arguments[number + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return default


def read_flags(
    kind: type[T],
    default: Callable[[list[str]], T],
    arguments: list[str],
    *,
    prog: str,
    about: str,
    required: Sequence[str],
) -> T:
    """Return a training command's settings: the flags that are given, the defaults of the others.

    With --resume and a run in --out, what is left out is as the run was started. Processes that torchrun starts in the
    place of others that failed go on as if they had been given it.
    """
    if restarted() and "--resume" not in arguments:
        arguments = [*arguments, "--resume"]
    started = Path(early(arguments, "--out", "") or "", COMMAND)
    if "--resume" in arguments and started.exists():
        settings = from_toml(kind, started)
    else:
        settings = default(arguments)
        for name in required:  # the command line must give them
            object.__setattr__(settings, name, tyro.MISSING)
    return tyro.cli(kind, default=settings, args=arguments, prog=prog, description=about)


def corpus_of(config: RunConfig) -> Corpus:
    """Read the corpus of a run, and say how much of it there is."""
    if not config.data:
        raise ConfigError(
            "--data is missing; give a folder of audio or shards, or a CSV with path,label,split on top"
        )
    corpus = load_corpus(
        config.data, split_column=config.split_column, label_column=config.label_column
    )
    if corpus.rejected:
        count = len(corpus.rejected)
        notice(
            f"{count} files of {corpus.name} cannot be read and are left out; melpatch prepare lists them"
        )
    return corpus


def without(corpus: Corpus, exclude: tuple[str, ...] | None) -> Corpus:
    """Return the corpus less some splits; None leaves out val and test where they exist."""
    return corpus.without(exclude if exclude is not None else {"val", "test"} & set(corpus.splits))


def extent(corpus: Corpus) -> str:
    """Return in words how long a corpus is, and which splits it stands in."""
    total = sum(clip.duration for clip in corpus.clips) / 3600
    splits = ", ".join(split for split in corpus.splits if split)
    return f"{total:.2f} h" + (f", splits {splits}" if splits else "")


def share_heard(corpus: Corpus, seconds: float) -> str | None:
    """Return a sentence where segments of so many seconds, one of each clip in a pass, leave out most of a corpus."""
    total, heard = (
        sum(min(clip.duration, most) for clip in corpus.clips) for most in (inf, seconds)
    )
    if heard > 0.5 * total:
        return None
    longest = max(clip.duration for clip in corpus.clips)
    return (
        f"a pass hears {heard / total:.0%} of this corpus: {seconds:g} s of each clip, of which the longest has "
        f"{longest:.0f} s; give more --epochs, longer --seconds, or list long recordings in parts (start, duration)"
    )


def few_clips(corpus: Corpus, few: int | None, seed: int) -> Corpus:
    """Return so many clips of each class, or all without a number; say so where a class has fewer."""
    if few is None:
        return corpus
    if told := scarce(corpus, few):
        notice(told)
    return few_labels(corpus, few, seed)


def open_run(config: Any) -> Run | None:
    """Return the run that a training command goes on with, or None if a new one is to be started.

    Raises:
        CheckpointError: there is a run and no --resume, or the folder cannot be written, or --init names a weight file
            that is not there.
        ConfigError: a setting is not that which the run was started with.
    """
    if config.init is not None and is_weights(config.init):  # now, not once the corpus is measured
        require_weights(config.init)
    # By one of several processes, since what it does next another, which is late, would find done.
    return Run.reopen(config.out) if on_rank_zero(lambda: _goes_on(config)) else None


def _goes_on(config: Any) -> bool:
    Run.require_writable(config.out)
    if not config.resume:
        Run.refuse(config.out)
        return False
    if not (config.out / "config.toml").exists():
        notice(f"{config.out} holds no run yet; starting one")
        return False
    wanted, kept = (
        _flat(to_dict(each)) for each in (config, from_toml(type(config), config.out / COMMAND))
    )
    for name in sorted((wanted.keys() | kept.keys()) - {"out", "resume", "track"}):
        if wanted.get(name) != kept.get(name):
            raise ConfigError(
                f"--{name.replace('_', '-')} = {wanted.get(name)!r}, but {config.out} was started with "
                f"{kept.get(name)!r}, which --resume keeps; leave the flag out, or start a new run with another --out"
            )
    return True


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under the names of their flags."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            found |= _flat(value, "" if key in ("run", "loader", "train") else f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def draw_pictures(folder: Path, model: Model, clip: Clip) -> list[Path]:
    """Draw what a run's method hides, sees and makes of a clip; return the files, none if it has nothing to show.

    Raises:
        AudioError: the clip cannot be read.
    """
    wave = decode(clip, model.sample_rate)
    batch = Batch(torch.from_numpy(wave)[None], torch.tensor([len(wave)]), torch.tensor([clip.key]))
    with torch.inference_mode():
        picture = model.objective.picture(batch.to(model.device), 0)
    if picture is None:
        return []
    hop, title = model.objective.front_end.hop_seconds, clip.place.rpartition("/")[2]
    files = [folder / "reconstruction.png"]
    reconstruction(files[0], picture, seconds_per_frame=hop, title=title)
    if picture.classes is not None:
        files.append(folder / "classes.png")
        stride = model.objective.encoder.grid.stride
        pseudo_labels(files[1], picture, stride=stride, seconds_per_frame=hop, title=title)
    return files
