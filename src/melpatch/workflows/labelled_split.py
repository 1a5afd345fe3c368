"""Which clips a classifier learns from, which choose its weights, and what is said about them."""

from dataclasses import replace
from math import ceil

from melpatch.counted import agreeing, counted
from melpatch.data.corpus import Corpus
from melpatch.data.leaks import warn_of_shared_groups
from melpatch.data.splits import Split, describe_untrained, split_corpus
from melpatch.errors import ConfigError
from melpatch.evaluation.probe import KeptProbe
from melpatch.evaluation.splits import hold_out_validation
from melpatch.progress import notice
from melpatch.training.config import RunConfig


def labelled_split(corpus: Corpus, test_fold: str | None, val_fold: str | None) -> Split:
    """Return a labelled corpus in parts, and tell what may be wrong with them.

    Args:
        corpus: the clips.
        test_fold: split or fold that is held out; None for ``test``, if it exists.
        val_fold: split or fold that chooses weights; None for ``val``, if it exists.

    Raises:
        ConfigError: the clips have no labels.
        DataError: there is no such split, or nothing is left to train on.
    """
    if not corpus.labels:
        raise ConfigError(
            f"{corpus.shown_name}: has no labels; give a folder with one sub-folder per class, "
            "or a CSV with a column label, or name another column with --label-column"
        )
    split = split_corpus(corpus, test_fold, val_fold)
    # Recordings of one group, such as a speaker, in two splits make the scores too good.
    warn_of_shared_groups(*filter(None, (split.train, split.val, split.test)))
    for sentence in (split.describe_unused(), describe_untrained(split.train, corpus.labels)):
        if sentence is not None:
            notice(sentence)
    if split.test is None and len(corpus.splits) > 1:
        notice(
            "no clips are held out for a test: name a fold with --test-fold, "
            "or scores on these clips will be too good"
        )
    return split


def with_validation(split: Split, probe: KeptProbe) -> Split:
    """Return a split with validation clips, held out of the training clips if a probe needs them.

    Raises:
        DataError: there are too few clips.
    """
    if split.val is not None or probe.validation != "held out":
        return split
    train, val = hold_out_validation(split.train)
    training = counted(len(split.train.clips), "training clip")
    notice(
        f"no validation split: {len(val.clips)} of {training} "
        f"{agreeing(len(val.clips), 'is', 'are')} held out to choose the head's weights; name a split with --val-fold"
    )
    return replace(split, train=train, val=val)


def warn_of_missing_validation(split: Split, training: RunConfig) -> None:
    """Tell that nothing chooses the weights of a network, if so."""
    if split.val is None and training.train.average_last == 0:
        notice(
            "no validation split: the last weights are kept, not the best; name one with --val-fold"
        )


def warn_of_long_windows(train: Corpus, training: RunConfig) -> None:
    """Tell that windows of long recordings will be far longer than the labelled clips, if so."""
    longest, seconds = max(clip.duration for clip in train.clips), training.loader.seconds
    if 2 * longest <= seconds:
        notice(
            f"no labelled clip is longer than {longest:.3g} s, and windows last {seconds:g} s: to "
            "find such sounds in longer recordings (predict --hop), train with --seconds "
            f"{ceil(10 * longest) / 10:g}"
        )
