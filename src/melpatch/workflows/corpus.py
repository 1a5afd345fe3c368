"""The corpus of a run: read it, leave splits out, keep a few labels, and describe it to the user."""

from melpatch.data.manifest import Corpus, load_corpus
from melpatch.data.splits import describe_scarce_classes, take_per_class
from melpatch.errors import ConfigError
from melpatch.progress import notice
from melpatch.training.config import RunConfig


def read_corpus(config: RunConfig) -> Corpus:
    """Read the corpus that a run's settings name, and report how many files are unreadable.

    Raises:
        ConfigError: the settings name no data.
        DataError: a source does not exist or holds no audio.
    """
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


def without_splits(corpus: Corpus, splits: tuple[str, ...] | None) -> Corpus:
    """Return the corpus without these splits; None leaves out val and test where they exist.

    Raises:
        DataError: there is no such split, or nothing is left.
    """
    if splits is None:
        return corpus.without({"val", "test"} & set(corpus.splits))
    return corpus.without(splits)


def limit_labels(corpus: Corpus, per_class: int | None, seed: int) -> Corpus:
    """Return at most this many clips of each class, or all clips for None; report smaller classes."""
    if per_class is None:
        return corpus
    shortage = describe_scarce_classes(corpus, per_class)
    if shortage:
        notice(shortage)
    return take_per_class(corpus, per_class, seed)


def describe_corpus(corpus: Corpus) -> str:
    """Return the corpus' length and splits in words, such as ``1.20 h, splits train, val``."""
    hours = sum(clip.duration for clip in corpus.clips) / 3600
    text = f"{hours:.2f} h"
    splits = [split for split in corpus.splits if split]
    if splits:
        text += f", splits {', '.join(splits)}"
    return text


def low_coverage(corpus: Corpus, seconds: float) -> str | None:
    """Return a warning if an epoch of one segment per clip covers less than half of the corpus.

    Args:
        corpus: the training clips.
        seconds: longest segment.
    """
    total = sum(clip.duration for clip in corpus.clips)
    covered = sum(min(clip.duration, seconds) for clip in corpus.clips)
    if covered > 0.5 * total:
        return None
    longest = max(clip.duration for clip in corpus.clips)
    return (
        f"an epoch covers {covered / total:.0%} of this corpus: {seconds:g} s of each clip, of which the "
        f"longest has {longest:.0f} s; give more --epochs, longer --seconds, or list long recordings in "
        "parts (start, duration)"
    )
