"""Choose recipe, encoder size, segment length and batch size from the corpus and the budget.

Each rule rests on an experiment; its comment names the file in ``lab/``. The result is a normal
config, and every choice is reported with its reason.
"""

import statistics
from collections import Counter
from dataclasses import dataclass, replace

import torch

from melpatch.audio.files import probe
from melpatch.counted import counted
from melpatch.data.manifest import Corpus
from melpatch.data.sound import with_source
from melpatch.errors import AudioError, DataError
from melpatch.progress import notice
from melpatch.workflows.budget import parse_budget
from melpatch.workflows.corpus import read_corpus, without_splits
from melpatch.workflows.pretrain import PretrainConfig, pretrain_defaults

AUTO = "auto"
"""The recipe name that asks for a choice by these rules."""
# Reading this many headers takes well under a second, even from a network disk.
_PROBED_CLIPS = 64
# lab/masked-views.md: nano has .730 after 200 CPU-seconds, MaskSpec .693 after 370.
# lab/tiny-hour.md: tiny is level with MaskSpec after a quarter of an hour, and ahead by neighbours
# and with few labels.
_RECIPE = "masked_views"
# lab/ssast.md: segments of up to 2 s, in batches of at most this much audio.
_CPU_SEGMENT_SECONDS = 2.0
_BATCH_SECONDS = 48 * 2.0
# lab/step-cost.md: up to 10 s, every second of audio costs the same; from 20 s on, attention adds.
_LONGEST_SEGMENT_SECONDS = 10.0
# lab/equal-budget.md: after 120 CPU-seconds tiny is undertrained, after 480 it
# is not.
_TINY_BUDGET_SECONDS = 480.0
# lab/ssast.md: 80 and 240 steps are no better than random weights, 2,400 are.
_ENOUGH_STEPS = 2400


@dataclass(frozen=True)
class CorpusFacts:
    """The properties of a corpus that the rules depend on.

    Attributes:
        clips: number of clips.
        hours: total duration in hours.
        median_seconds: median duration of a clip in seconds.
        sample_rate: the most frequent sampling rate in Hz among the probed clips.
    """

    clips: int
    hours: float
    median_seconds: float
    sample_rate: int


def corpus_facts(corpus: Corpus) -> CorpusFacts:
    """Return the facts of a corpus; its sampling rate is the most frequent of about 64 clips.

    Raises:
        DataError: none of these clips can be read.
    """
    durations = [clip.duration for clip in corpus.clips]
    # Evenly spread over the corpus, since neighbouring clips often come from the same source.
    probed = corpus.clips[:: max(1, len(corpus.clips) // _PROBED_CLIPS)]
    rates: Counter[int] = Counter()
    for clip in probed:
        try:
            rates[with_source(clip, probe).sample_rate] += 1
        except AudioError:
            continue
    if not rates:
        raise DataError(
            f"{corpus.shown_name}: none of {counted(len(probed), 'clip')} can be read; "
            "run melpatch prepare on it to see why"
        )
    return CorpusFacts(
        clips=len(durations),
        hours=sum(durations) / 3600,
        median_seconds=statistics.median(durations),
        sample_rate=rates.most_common(1)[0][0],
    )


def choose(config: PretrainConfig, size: str | None = None) -> PretrainConfig:
    """Return a config chosen for the data and the budget of ``config``, and report the reasons.

    Args:
        config: a config with the data, the splits to leave out, and the budget, if any.
        size: size of the encoder; None chooses it too.

    Raises:
        MelpatchError: the corpus cannot be read.
    """
    facts = corpus_facts(without_splits(read_corpus(config.training), config.exclude_splits))
    budget_seconds = None
    if config.budget is not None:
        budget_seconds = parse_budget(config.budget)
    on_gpu = torch.cuda.is_available()
    chosen, reasons = choose_from(facts, budget_seconds, size=size, on_gpu=on_gpu)
    clips = counted(facts.clips, "clip")
    notice(f"auto: {clips}, {facts.hours:.2f} h, mostly {facts.sample_rate} Hz")
    for reason in reasons:
        notice(f"auto: {reason}")
    # What the user named stays; everything else is as chosen.
    training = replace(
        chosen.training,
        data=config.training.data,
        split_column=config.training.split_column,
        label_column=config.training.label_column,
        channel=config.training.channel,
        group_column=config.training.group_column,
    )
    return replace(
        chosen,
        training=training,
        exclude_splits=config.exclude_splits,
        budget=config.budget,
    )


def choose_from(
    facts: CorpusFacts, budget_seconds: float | None, *, on_gpu: bool, size: str | None = None
) -> tuple[PretrainConfig, list[str]]:
    """Return a config for a corpus with these facts, and one reason for each choice.

    Args:
        facts: the properties of the corpus.
        budget_seconds: wall-clock time of the run in seconds; None derives the length of the run
            from the corpus.
        on_gpu: whether the run has a GPU.
        size: size of the encoder; None chooses it too.
    """
    why_size = "as given"
    if size is None:
        size, why_size = _size(budget_seconds, on_gpu)
    seconds, why_seconds = _segment(facts, on_gpu)
    base = pretrain_defaults(_RECIPE, size=size)
    batch_size, why_batch = _batch(facts, seconds, base.training.loader.batch_size)
    rate = min(16000, facts.sample_rate)
    training = replace(
        base.training,
        front_end=replace(base.training.front_end, sample_rate=rate),
        loader=replace(
            base.training.loader,
            seconds=seconds,
            batch_size=batch_size,
            # Short clips are repeated, so clips need not be batched by length.
            short_clips="repeat",
            bucket_steps=1,
        ),
    )
    reasons = [
        f"recipe {_RECIPE}: it learns most per minute of computing for few labels and for searches",
        f"size {size}: {why_size}",
        f"--seconds {seconds:g}: {why_seconds}",
        f"--batch-size {batch_size}: {why_batch}",
        f"--front-end.sample-rate {rate}: the most common rate of the clips, but at most 16000",
    ]
    # lab/ssast.md: a short run learns nothing, so a small corpus gets more epochs.
    steps_of_epochs = training.train.epochs * facts.clips / batch_size
    if budget_seconds is None and steps_of_epochs < _ENOUGH_STEPS:
        training = replace(training, train=replace(training.train, steps=_ENOUGH_STEPS))
        reasons.append(f"--steps {_ENOUGH_STEPS}: fewer steps were no better than random weights")
    return replace(base, training=training), reasons


def _size(budget_seconds: float | None, on_gpu: bool) -> tuple[str, str]:
    if on_gpu:
        # There is no experiment on a GPU yet, so this is the recipes' default.
        return "tiny", "the default; larger encoders have not been compared on a GPU yet"
    if budget_seconds is not None and budget_seconds < _TINY_BUDGET_SECONDS:
        return "nano", "in less than 8 minutes on a CPU, tiny stays undertrained"
    return "tiny", "in 8 minutes or more on a CPU, it learns more than nano"


def _segment(facts: CorpusFacts, on_gpu: bool) -> tuple[float, str]:
    longest = _CPU_SEGMENT_SECONDS
    if on_gpu:
        longest = _LONGEST_SEGMENT_SECONDS
    if facts.median_seconds < longest:
        return round(facts.median_seconds, 3), "the median length of a clip"
    if on_gpu:
        return longest, "longer segments cost more per second of audio"
    return longest, "on a CPU, many short segments teach more than few long ones"


def _batch(facts: CorpusFacts, seconds: float, most: int) -> tuple[int, str]:
    # The recipe's own batch is the largest (lab/ssast.md: 48; lab/budget-curve.md: 16 for MaskSpec).
    by_audio = min(most, max(8, int(_BATCH_SECONDS / seconds)))
    # At least four batches an epoch, so that the batches of a small corpus differ.
    by_clips = max(2, facts.clips // 4)
    if by_clips < by_audio:
        return by_clips, "a quarter of the clips"
    if by_audio == most:
        return most, "the recipe's own"
    return by_audio, f"about {_BATCH_SECONDS:g} s of audio, from 8 to {most} clips"
