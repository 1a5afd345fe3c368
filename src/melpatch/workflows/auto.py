"""Choose recipe, size, segment length and batch from the corpus and the budget, and give the reasons.

Every rule stands on a question of LAB.md, named in its comment. The result is a normal config.
"""

import statistics
from collections import Counter
from dataclasses import dataclass, replace

import torch

from melpatch.audio.files import probe
from melpatch.data.manifest import Corpus
from melpatch.data.sound import with_source
from melpatch.errors import AudioError, DataError
from melpatch.progress import notice
from melpatch.workflows.budget import parse_budget
from melpatch.workflows.corpus import read_corpus, without_splits
from melpatch.workflows.pretrain import PretrainConfig, pretrain_defaults

AUTO = "auto"
"""The recipe that stands for a choice by these rules."""
_PROBED_CLIPS = 64
# "What a small masked autoencoder needs" was asked on digits of up to a second.
_SHORT_CLIP_SECONDS = 1.0
# "SSAST on real sound, tiny": segments of up to 2 s in batches of 48.
_CPU_SEGMENT_SECONDS = 2.0
_BATCH_SECONDS = 48 * 2.0
# "What a step costs": up to ten seconds, a second of audio costs the same; attention shows from twenty on.
_LONGEST_SEGMENT_SECONDS = 10.0
# "Every objective under the same budget": at 120 CPU-seconds tiny is undertrained, at 480 it is not.
_TINY_BUDGET_SECONDS = 480.0
# "SSAST on real sound, tiny": 80 and 240 steps are no better than random weights, 2,400 are.
_ENOUGH_STEPS = 2400


@dataclass(frozen=True)
class CorpusFacts:
    """What the rules look at.

    Attributes:
        clips: how many there are.
        hours: how long they are together.
        median_seconds: length of the middle clip.
        longest_seconds: length of the longest clip.
        sample_rate: the most frequent rate in Hz of some probed clips.
    """

    clips: int
    hours: float
    median_seconds: float
    longest_seconds: float
    sample_rate: int


def corpus_facts(corpus: Corpus) -> CorpusFacts:
    """Return what the rules look at; the sampling rate is that of most of 64 clips, evenly spread.

    Raises:
        DataError: the corpus is empty, or none of these clips can be read.
    """
    durations = [clip.duration for clip in corpus.clips]
    spread = corpus.clips[:: max(1, len(corpus.clips) // _PROBED_CLIPS)]
    rates: Counter[int] = Counter()
    for clip in spread:
        try:
            rates[with_source(clip, probe).sample_rate] += 1
        except AudioError:
            continue
    if not rates:
        raise DataError(
            f"{corpus.name}: none of {len(spread)} clips can be read; run melpatch prepare on it to see why"
        )
    return CorpusFacts(
        clips=len(durations),
        hours=sum(durations) / 3600,
        median_seconds=statistics.median(durations),
        longest_seconds=max(durations),
        sample_rate=rates.most_common(1)[0][0],
    )


def choose(config: PretrainConfig, size: str | None = None) -> PretrainConfig:
    """Return a config for the corpus and the budget of another one, and report each choice with its reason.

    Args:
        config: names the data, the splits to leave out, and the budget if there is one.
        size: size of the encoder, if it is given.

    Raises:
        MelpatchError: the corpus cannot be read.
    """
    facts = corpus_facts(without_splits(read_corpus(config.training), config.exclude_splits))
    seconds = None if config.budget is None else parse_budget(config.budget)
    chosen, reasons = choose_from(facts, seconds, size=size, on_gpu=torch.cuda.is_available())
    notice(f"auto: {facts.clips} clips, {facts.hours:.2f} h, {facts.sample_rate} Hz")
    for reason in reasons:
        notice(f"auto: {reason}")
    training = replace(
        chosen.training,
        data=config.training.data,
        split_column=config.training.split_column,
        label_column=config.training.label_column,
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
    """Return a config for a corpus, and a sentence for each choice.

    Args:
        facts: of the corpus.
        budget_seconds: wall-clock time of the run; None leaves the length to the corpus.
        on_gpu: whether the run has a GPU.
        size: size of the encoder, if it is given.
    """
    recipe, why_recipe = _recipe(facts)
    why_size = "as given"
    if size is None:
        size, why_size = _size(budget_seconds, on_gpu)
    seconds, why_seconds = _segment(facts, on_gpu)
    batch_size, why_batch = _batch(facts, seconds)
    rate = min(16000, facts.sample_rate)
    base = pretrain_defaults(recipe, size=size)
    training = replace(
        base.training,
        front_end=replace(base.training.front_end, sample_rate=rate),
        loader=replace(
            base.training.loader,
            seconds=seconds,
            batch_size=batch_size,
            # Repeated short clips: see _recipe. Batches as the corpus is, not of one length, go with it.
            short_clips="repeat",
            bucket_steps=1,
        ),
    )
    reasons = [
        f"recipe {recipe}: {why_recipe}",
        f"size {size}: {why_size}",
        f"--seconds {seconds:g}: {why_seconds}",
        f"--batch-size {batch_size}: {why_batch}",
        f"--front-end.sample-rate {rate}: that of most clips, at most 16000",
    ]
    # Short pretrainings mislead ("SSAST on real sound, tiny"): a small corpus is repeated until there are enough steps.
    by_epochs = training.train.epochs * facts.clips / batch_size
    if budget_seconds is None and by_epochs < _ENOUGH_STEPS:
        training = replace(training, train=replace(training.train, steps=_ENOUGH_STEPS))
        reasons.append(f"--steps {_ENOUGH_STEPS}: fewer steps were no better than random weights")
    return replace(base, training=training), reasons


def _recipe(facts: CorpusFacts) -> tuple[str, str]:
    if facts.longest_seconds <= _SHORT_CLIP_SECONDS:
        # "What a small masked autoencoder needs": 0.813 against 0.720 (linear) after 600 steps.
        return "ssast", "clips are a second or shorter, where SSAST on repeated clips learns most"
    # "Every objective under the same budget": first by every score but two, at a third of SSAST's cost per step.
    return "maskspec", "it scores best per minute of computing on clips longer than a second"


def _size(budget_seconds: float | None, on_gpu: bool) -> tuple[str, str]:
    if on_gpu:
        # No run on a GPU is on record, so this is the recipes' default.
        return "tiny", "the default; no larger one has been compared here on a GPU"
    if budget_seconds is not None and budget_seconds < _TINY_BUDGET_SECONDS:
        return "nano", "on a CPU in less than 8 minutes, tiny stays undertrained"
    return "tiny", "from 8 minutes of CPU on, it learns more than nano"


def _segment(facts: CorpusFacts, on_gpu: bool) -> tuple[float, str]:
    longest = _LONGEST_SEGMENT_SECONDS if on_gpu else _CPU_SEGMENT_SECONDS
    seconds = min(longest, facts.median_seconds)
    if seconds < longest:
        return round(seconds, 3), "the length of the middle clip"
    if on_gpu:
        return seconds, "longer segments cost more for each second of audio"
    return seconds, "more, shorter segments serve a CPU better"


def _batch(facts: CorpusFacts, seconds: float) -> tuple[int, str]:
    by_audio = min(48, max(8, int(_BATCH_SECONDS / seconds)))
    # Masks and negatives want several batches an epoch, so a small corpus takes smaller ones.
    by_clips = max(2, facts.clips // 4)
    if by_clips < by_audio:
        return by_clips, "a quarter of the clips"
    return by_audio, f"about {_BATCH_SECONDS:g} s of audio, from 8 to 48 clips"
