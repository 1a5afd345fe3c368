"""Read the corpus of a run, leave splits out, limit its labels, and describe it to the user."""

from melpatch import distributed
from melpatch.counted import agreeing, counted
from melpatch.data.clip_columns import durations_of
from melpatch.data.glimpses import notices_about_sound
from melpatch.data.manifest import Corpus, load_corpus
from melpatch.data.split_roles import not_trained_on
from melpatch.data.splits import describe_scarce_classes, take_per_class
from melpatch.errors import ConfigError
from melpatch.progress import notice
from melpatch.training.clip_record import dataset_names
from melpatch.training.config import RunConfig
from melpatch.training.run import Run


def read_corpus(config: RunConfig, run: Run | None = None) -> Corpus:
    """Read the corpus that a run's settings name, and report how many files are unreadable.

    Args:
        config: the settings.
        run: the run that is resumed, if any, whose clips may have moved to another folder.

    Raises:
        ConfigError: the settings name no data.
        DataError: a source does not exist or holds no audio.
    """
    if not config.data:
        raise ConfigError(
            "--data is missing; give a folder of audio or shards, "
            "or a CSV with the columns path, label and split"
        )
    corpus = load_corpus(
        config.data,
        split_column=config.split_column,
        label_column=config.label_column,
        group_column=config.group_column,
        datasets=dataset_names(run.folder, config.data) if run is not None else None,
    ).on_channel(config.channel)
    if corpus.rejected:
        files = len(corpus.rejected)
        notice(
            f"{counted(files, 'file')} of {corpus.shown_name} cannot be read and "
            f"{agreeing(files, 'is', 'are')} left out; see melpatch prepare"
        )
    return corpus


def tell_about_sound(corpus: Corpus, config: RunConfig) -> None:
    """Tell what the front end of a run leaves out of a corpus, from a look at a few clips."""
    if distributed.is_rank_zero():
        for text in notices_about_sound(corpus.clips, config.front_end):
            notice(text)


def without_splits(corpus: Corpus, splits: tuple[str, ...] | None) -> Corpus:
    """Return the corpus without these splits; None leaves out those that are not for training.

    These are splits for validation and test and, beside a split ``train``, those of unknown names;
    they are reported unless they are called val and test.

    Raises:
        DataError: a split does not exist, or no clip is left.
    """
    if splits is None:
        splits = tuple(not_trained_on(corpus.splits))
        if not {"val", "test"}.issuperset(splits):
            listed = ", ".join(f"{name} ({corpus.splits[name]})" for name in splits)
            notice(f"splits that are left out: {listed}; name others with --exclude-splits")
    return corpus.without(splits)


def limit_labels(corpus: Corpus, per_class: int | None, seed: int) -> Corpus:
    """Return at most ``per_class`` clips of each class, or all for None; report smaller classes."""
    if per_class is None:
        return corpus
    shortage = describe_scarce_classes(corpus, per_class)
    if shortage:
        notice(shortage)
    return take_per_class(corpus, per_class, seed)


def describe_corpus(corpus: Corpus) -> str:
    """Return duration and splits of a corpus in words, such as ``1.20 h, splits train, val``."""
    hours = float(durations_of(corpus.clips).sum()) / 3600
    text = f"{hours:.2f} h"
    if any(corpus.splits):
        text += f", splits {', '.join(split or '(none)' for split in corpus.splits)}"
    return text


def clips_without_a_mask(corpus: Corpus, least: float) -> str | None:
    """Return a warning if some clips are too short for a masked patch, and so teach nothing.

    Args:
        corpus: the training clips.
        least: length of the shortest clip that teaches something, in seconds.
    """
    short = int((durations_of(corpus.clips) < least).sum())
    if not short:
        return None
    return (
        f"of {counted(len(corpus.clips), 'clip')} {short} are shorter than {least:.3g} s, too short "
        "for a masked patch, and teach nothing; --short-clips repeat repeats them up to --seconds, "
        "and smaller patches (--encoder.patch) leave some to mask"
    )


def low_coverage(corpus: Corpus, seconds: float) -> str | None:
    """Return a warning if an epoch of one segment per clip covers less than half of the corpus.

    Args:
        corpus: the training clips.
        seconds: longest segment in seconds.
    """
    # An epoch takes one segment of each clip.
    durations = durations_of(corpus.clips)
    total = float(durations.sum())
    covered = float(durations.clip(max=seconds).sum())
    if covered > 0.5 * total:
        return None
    longest = float(durations.max())
    return (
        f"an epoch covers {covered / total:.0%} of this corpus: at most {seconds:g} s of each "
        f"clip, and the longest clip has {longest:.0f} s; give more --epochs, longer --seconds, "
        "or list long recordings in parts (start, duration)"
    )
