import multiprocessing
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import RATE, noises
from torch.utils.data import _utils
from torch.utils.data._utils.pin_memory import pin_memory

from melpatch.audio.files import read
from melpatch.data import loader
from melpatch.data.clip import Clip
from melpatch.data.loader import (
    ClipDraw,
    LoaderConfig,
    collate_clips,
    evaluation_batches,
    repeat_to_length,
    step_draws,
    step_share,
    training_batches,
    training_order,
)
from melpatch.data.manifest import Corpus, Rejected
from melpatch.errors import ConfigError, DataError, MelpatchError

SEEDS, SIZES = st.integers(0, 5), st.integers(1, 30)


def imagined(size, labels=("",), longest=10.0):
    """Return a corpus whose files do not exist, with durations from 1 s upward."""
    durations = np.linspace(1, longest, size)[np.random.default_rng(0).permutation(size)]
    names = [tuple(labels[number % len(labels)].split()) for number in range(size)]
    clips = [Clip(Path(f"{n}.wav"), n, 0.0, float(durations[n]), names[n]) for n in range(size)]
    closed = sorted({label for several in names for label in several})
    return Corpus(
        "imagined", tuple(clips), tuple(closed), any(len(several) > 1 for several in names)
    )


def config(**changes):
    return LoaderConfig(**({"batch_size": 4, "seconds": 0.4, "workers": 0} | changes))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return noises(tmp_path_factory.mktemp("noise"), labels=("a", "b", "b"))


def taken(corpus, count, loader, **settings):
    return list(islice(training_batches(corpus, loader, RATE, **({"seed": 0} | settings)), count))


def same(first, second):
    """Return whether two sequences of loaded batches are equal to the last bit."""
    return len(first) == len(second) and all(
        torch.equal(x.batch.wave, y.batch.wave)
        and torch.equal(x.batch.lengths, y.batch.lengths)
        and torch.equal(x.batch.keys, y.batch.keys)
        for x, y in zip(first, second, strict=True)
    )


# ------------------------------------------------------------------------------------------------------------- order


@given(SIZES, SEEDS)
def test_every_clip_occurs_once_per_epoch(size, seed):
    draws = islice(training_order(imagined(size), config(), seed, 0), 3 * size)
    for epoch, epoch_draws in enumerate(zip(*[draws] * size, strict=True)):
        assert {draw.epoch for draw in epoch_draws} == {epoch}
        assert sorted(draw.clip for draw in epoch_draws) == list(range(size))


@given(SIZES, SEEDS, st.integers(0, 100), st.booleans())
def test_the_order_can_start_at_any_draw(size, seed, first, balanced):
    many, loader = imagined(size, labels=("a", "b")), config(balanced_sampling=balanced)
    assert list(islice(training_order(many, loader, seed, first), 40)) == list(
        islice(training_order(many, loader, seed, 0), first, first + 40)
    )


def test_every_epoch_and_every_seed_has_its_own_order():
    orders = {
        tuple(
            draw.clip
            for draw in islice(training_order(imagined(20), config(), seed, 20 * epoch), 20)
        )
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


@given(SIZES, SEEDS, st.integers(1, 8), st.integers(1, 6), st.integers(0, 50))
def test_steps_can_start_anywhere(size, seed, bucket, per_step, first):
    many, loader = imagined(size), config(bucket_steps=bucket)
    whole = list(islice(step_draws(many, loader, seed, per_step, 0), first, first + 12))
    assert list(islice(step_draws(many, loader, seed, per_step, first), 12)) == whole


@given(SIZES, SEEDS, st.integers(1, 8), st.integers(1, 6))
def test_bucketed_steps_contain_every_draw(size, seed, bucket, per_step):
    many, loader = imagined(size), config(bucket_steps=bucket)
    steps = max(1, min(bucket, size // per_step))
    draws = [
        draw
        for step in islice(step_draws(many, loader, seed, per_step, 0), 3 * steps)
        for draw in step
    ]
    assert Counter(draws) == Counter(
        islice(training_order(many, loader, seed, 0), 3 * steps * per_step)
    )


def test_without_buckets_steps_follow_the_order():
    many = imagined(20)
    draws = [
        draw
        for step in islice(step_draws(many, config(bucket_steps=1), 0, 4, 0), 10)
        for draw in step
    ]
    assert sorted(draws) == sorted(islice(training_order(many, config(), 0, 0), 40))
    assert [set(draws[at : at + 4]) for at in range(0, 40, 4)] == [
        set(found)
        for found in zip(*[islice(training_order(many, config(), 0, 0), 40)] * 4, strict=True)
    ]


def test_bucketed_steps_are_padded_less():
    many = imagined(400)

    def padding(bucket):
        steps = islice(step_draws(many, config(bucket_steps=bucket, seconds=100.0), 0, 8, 0), 50)
        lengths = [[many.clips[draw.clip].duration for draw in step] for step in steps]
        return sum(len(step) * max(step) - sum(step) for step in lengths) / sum(map(sum, lengths))

    assert padding(16) < 0.3 * padding(1)


def test_bucketed_steps_are_not_sorted_by_length():
    many = imagined(400)
    steps = islice(step_draws(many, config(bucket_steps=16, seconds=100.0), 0, 8, 0), 50)
    longest = [max(many.clips[draw.clip].duration for draw in step) for step in steps]
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.5


# ---------------------------------------------------------------------------------------------------------- locality


def in_shards(size, per_shard):
    """Return a corpus whose clips lie in shards, not in the order of their numbers."""
    many = imagined(size)
    places = np.random.default_rng(1).permutation(size) // per_shard
    clips = (
        replace(clip, path=Path(f"{place}.tar"))
        for clip, place in zip(many.clips, places, strict=True)
    )
    return replace(many, clips=tuple(clips))


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 5), SEEDS)
def test_with_shards_at_once_every_clip_occurs_once_and_few_shards_are_mixed_at_a_time(
    size, per_shard, at_once, seed
):
    many, shards = in_shards(size, per_shard), -(-size // per_shard)
    draws = list(islice(training_order(many, config(shards_at_once=at_once), seed, 0), 3 * size))
    for epoch in range(3):
        epoch_draws = draws[epoch * size : (epoch + 1) * size]
        assert {draw.epoch for draw in epoch_draws} == {epoch}
        assert sorted(draw.clip for draw in epoch_draws) == list(range(size))
        windows, left = [], [many.clips[draw.clip].path for draw in epoch_draws]
        while left:
            opened = [*dict.fromkeys(left)][
                :at_once
            ]  # of which all clips come before the next shard is opened
            end = sum(path in opened for path in left)
            windows.append({*left[:end]})
            left = left[end:]
        assert all(len(window) <= at_once for window in windows)
        assert sum(map(len, windows)) == shards


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 5), SEEDS, st.integers(0, 100))
def test_an_order_with_shards_at_once_can_start_at_any_draw(size, per_shard, at_once, seed, first):
    many, loader = in_shards(size, per_shard), config(shards_at_once=at_once)
    whole = list(islice(training_order(many, loader, seed, 0), first, first + 40))
    assert list(islice(training_order(many, loader, seed, first), 40)) == whole


@given(SIZES, SEEDS)
def test_mixing_all_shards_at_once_equals_the_plain_order(size, seed):
    many = in_shards(size, 3)
    wide = list(islice(training_order(many, config(shards_at_once=99), seed, 0), 2 * size))
    assert wide == list(islice(training_order(many, config(), seed, 0), 2 * size))


def test_with_shards_at_once_shards_and_clips_are_shuffled_in_every_epoch():
    many = in_shards(60, 5)
    epochs = [
        list(islice(training_order(many, config(shards_at_once=3), 0, 60 * epoch), 60))
        for epoch in range(4)
    ]
    firsts = {frozenset(many.clips[draw.clip].path for draw in draws[:15]) for draws in epochs}
    assert len(firsts) == 4
    assert len({tuple(draw.clip for draw in draws) for draws in epochs}) == 4
    # Within a window the shards are mixed: the clips of a shard do not come one after the other.
    assert len({many.clips[draw.clip].path for draw in epochs[0][:6]}) > 1


def test_the_order_with_shards_at_once_does_not_depend_on_the_listing():
    many = in_shards(30, 4)
    turned = replace(many, clips=many.clips[::-1])
    keys, turned_keys = (
        [
            corpus.clips[draw.clip].key
            for draw in islice(training_order(corpus, config(shards_at_once=2), 0, 0), 60)
        ]
        for corpus in (many, turned)
    )
    assert keys == turned_keys


def test_invalid_shards_at_once_is_rejected():
    with pytest.raises(ConfigError, match="shards_at_once = 0; allowed: 1 or more, or none"):
        config(shards_at_once=0)
    with pytest.raises(
        ConfigError, match="shards_at_once = 2; allowed: none, with balanced_sampling"
    ):
        config(shards_at_once=2, balanced_sampling=True)


# ---------------------------------------------------------------------------------------------------------- balanced


def counts(corpus, draws=6000):
    drawn = islice(training_order(corpus, config(balanced_sampling=True), 0, 0), draws)
    return Counter(label for draw in drawn for label in corpus.clips[draw.clip].labels)


def test_balanced_sampling_draws_every_label_equally_often():
    drawn = counts(imagined(200, labels=("a", "a", "a", "a", "a", "a", "b", "b", "b", "c")))
    assert sum(drawn.values()) == 6000
    assert all(abs(drawn[label] - 2000) < 5 * (6000 * 2 / 9) ** 0.5 for label in "abc"), drawn


def test_balanced_sampling_draws_the_clips_of_a_label_equally_often():
    many = imagined(60, labels=("a", "a", "b"))
    drawn = Counter(
        draw.clip
        for draw in islice(training_order(many, config(balanced_sampling=True), 0, 0), 6000)
    )
    share = {number: 6000 / 2 / (40 if number % 3 < 2 else 20) for number in range(60)}
    assert all(
        abs(drawn[number] - expected) < 5 * expected**0.5 for number, expected in share.items()
    )


def test_balanced_sampling_draws_a_label_and_then_a_clip_that_has_it():
    # Half of the draws are of b, which is all of "a b"; the other half are of a, which is half of them "a b" too.
    drawn = counts(imagined(16, labels=("a", "a b")))
    assert drawn["b"] / drawn["a"] == pytest.approx(3 / 4, abs=0.03)


def test_balanced_sampling_ignores_labels_without_clips():
    many = replace(imagined(10, labels=("a", "b")), labels=("a", "b", "unheard"))
    assert set(counts(many, 100)) == {"a", "b"}


def test_balanced_sampling_draws_clips_of_the_smallest_weight():
    # One clip has nearly all the weight, each of the others 2^-26 of it: draws of 24 bits would never meet three of
    # four of these.
    clips = tuple(Clip(Path(f"{n}.wav"), n, 0.0, 1.0, ("a",)) for n in range(1 + (1 << 15)))
    weights = torch.full((len(clips),), 2.0**-26, dtype=torch.float64)
    weights[0] = 1 - weights[1:].sum()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "_balance", lambda corpus: weights)
        many = Corpus("many", clips, ("a",), False)
        drawn = islice(training_order(many, config(balanced_sampling=True), 0, 0), 8 * len(clips))
        rare = Counter(draw.clip % 4 for draw in drawn if draw.clip)
    assert sum(rare.values()) == pytest.approx(8 * len(clips) * 2**-11, rel=0.5)
    assert set(rare) == {0, 1, 2, 3}


def test_balanced_sampling_allocates_no_matrix_of_clips_and_labels():
    many = imagined(4000, labels=[f"{number}" for number in range(500)])
    tracemalloc.start()
    next(training_order(many, config(balanced_sampling=True), 0, 0))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4000 * 500  # bytes, of which a matrix has four times as many


def test_balanced_sampling_needs_labels():
    with pytest.raises(
        DataError, match="imagined: --balanced-sampling needs a label on every clip"
    ):
        next(training_order(imagined(4, labels=("a", "")), config(balanced_sampling=True), 0, 0))


# ----------------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers(corpus, workers):
    alone = taken(corpus, 7, config())
    assert same(taken(corpus, 7, config(workers=workers)), alone)


@pytest.mark.parametrize("first", [1, 3, 5])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_can_start_at_any_step(corpus, first, workers):
    whole = taken(corpus, 2 * 8, config(), accumulate=2)
    rest = taken(corpus, 2 * (8 - first), config(workers=workers), accumulate=2, first_step=first)
    assert same(rest, whole[2 * first :])


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 2), (1, 4), (2, 1), (2, 2), (4, 1)])
@pytest.mark.parametrize(
    "loader",
    [config(), config(balanced_sampling=True), config(bucket_steps=1)],
    ids=["", "balanced", "flat"],
)
def test_a_step_has_the_same_clips_for_any_number_of_ranks_and_batches(
    corpus, world_size, accumulate, loader
):
    def steps(shares, **division):
        found = taken(corpus, 6 * shares, loader, **division)
        keys = [loaded.batch.keys.tolist() for loaded in found]
        return [[keys[at : at + shares]] for at in range(0, len(keys), shares)]

    alone = [Counter(loaded.batch.keys.tolist()) for loaded in taken(corpus, 6, loader)]
    ranks = [
        steps(accumulate, rank=rank, world_size=world_size, accumulate=accumulate)
        for rank in range(world_size)
    ]
    for expected, *parts in zip(alone, *ranks, strict=True):
        batches = [batch for part in parts for step in part for batch in step]
        assert {len(batch) for batch in batches} == {4 // world_size // accumulate}
        assert Counter(key for batch in batches for key in batch) == expected


@pytest.mark.parametrize(
    ("batch_size", "shares", "view"), [(8, 1, 0), (8, 2, 0), (8, 4, 0), (6, 1, 0), (8, 2, 1)]
)
def test_neighbours_stay_together_and_are_partners(corpus, batch_size, shares, view):
    def pairs(count, shares):
        batches = [
            loaded.batch
            for loaded in taken(corpus, count, config(batch_size=batch_size), accumulate=shares)
        ]
        keys = [
            (batch.keys.tolist(), batch.keys[batch.partners_of(view)].tolist()) for batch in batches
        ]
        return Counter(pair for both in keys for pair in zip(*both, strict=True))

    assert pairs(3 * shares, shares) == pairs(3, 1)
    assert all(loaded != other for loaded, other in pairs(1, 1))


@pytest.mark.parametrize(
    ("clips", "shares", "first"),
    [
        (6, 2, [0, 2, 4]),
        (5, 1, [0, 1, 2, 3, 4]),
        (8, 2, [0, 1, 2, 3]),
        (8, 4, [0, 1]),
        (12, 2, [0, 1, 4, 5, 8, 9]),
        (4, 4, [0]),
    ],
)
def test_a_step_is_split_in_fours_or_pairs_if_every_share_has_whole_ones(clips, shares, first):
    draws = [ClipDraw(number, 0) for number in range(clips)]
    dealt_out = [step_share(draws, number, shares) for number in range(shares)]
    assert [draw.clip for draw in dealt_out[0]] == first
    assert sorted(draw.clip for share in dealt_out for draw in share) == list(range(clips))


def test_a_clip_whose_partner_is_unreadable_is_its_own_partner(tmp_path):
    whole = taken(noises(tmp_path, seconds=(0.3,) * 8), 1, config(batch_size=8))[0].batch
    left = taken(damaged(tmp_path, bad=[3]), 1, config(batch_size=8))[0].batch
    (bad,) = set(whole.keys.tolist()) - set(left.keys.tolist())
    for view in range(2):
        others = whole.keys[whole.partners_of(view)].tolist()
        partner = dict(zip(whole.keys.tolist(), others, strict=True))
        expected = [key if partner[key] == bad else partner[key] for key in left.keys.tolist()]
        assert left.keys[left.partners_of(view)].tolist() == expected


def test_partners_by_rows_are_those_of_the_loader(corpus):
    loaded = taken(corpus, 1, config(batch_size=6))[0].batch
    by_rows = replace(loaded, partner=None)
    for view in range(2):
        assert by_rows.partners_of(view).tolist() == loaded.partners_of(view).tolist()


def test_clips_of_one_length_are_not_partners_because_of_it(tmp_path):
    """Those of one corpus often are of one length, and would be mixed with each other alone."""
    corpus = noises(tmp_path, seconds=(0.3, 0.5) * 8)
    mixed = 0
    for loaded in taken(corpus, 4, config(batch_size=16, bucket_steps=1)):
        lengths = loaded.batch.lengths
        mixed += int((lengths != lengths[loaded.batch.partners]).sum())
    assert mixed >= 16


def test_batches_contain_crops_of_their_clips(corpus):
    clips = {clip.key: clip for clip in corpus.clips}
    cropped = set()
    for loaded in taken(corpus, 12, config()):
        for wave, length, key in zip(
            loaded.batch.wave, loaded.batch.lengths, loaded.batch.keys.tolist(), strict=True
        ):
            clip = clips[key]
            assert length == round(min(clip.duration, 0.4) * RATE)
            assert not wave[length:].any()
            whole = read(clip.path)[0]
            places = [
                at
                for at in range(len(whole) - length + 1)
                if np.array_equal(wave[:length], whole[at : at + length])
            ]
            assert len(places) == 1
            cropped.add((key, places[0]))
    long = [key for key, clip in clips.items() if clip.duration > 0.4]
    assert all(len([place for key, place in cropped if key == one]) > 1 for one in long)


def test_targets_come_with_labels_only(corpus):
    assert taken(corpus, 1, config())[0].batch.targets is None
    batch = taken(corpus, 1, config(), with_labels=True)[0].batch
    labels = {clip.key: clip.labels for clip in corpus.clips}
    expected = [
        [float(name in labels[key]) for name in corpus.labels] for key in batch.keys.tolist()
    ]
    assert batch.targets.tolist() == expected


def test_an_empty_corpus_is_an_error():
    with pytest.raises(DataError, match="imagined: no clip is left to train on"):
        next(training_batches(replace(imagined(1), clips=()), config(), RATE, seed=0))


# -------------------------------------------------------------------------------------------------------- unreadable


def damaged(tmp_path, bad):
    corpus = noises(tmp_path, seconds=(0.3,) * 8)
    for number in bad:
        corpus.clips[number].path.write_bytes(b"this is no sound" * 20)
    return corpus


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_clips_are_left_out_and_reported(tmp_path, workers):
    corpus = damaged(tmp_path, bad=[2, 5])
    corpus.clips[7].path.unlink()
    batches = taken(corpus, 2, config(workers=workers))
    reported = {file.path: file.reason for loaded in batches for file in loaded.rejected}
    assert set(reported) == {str(corpus.clips[number].path) for number in (2, 5, 7)}
    assert all(reported.values())
    keys = [key for loaded in batches for key in loaded.batch.keys.tolist()]
    assert sorted(keys) == sorted(
        clip.key for number, clip in enumerate(corpus.clips) if number not in (2, 5, 7)
    )


def test_unreadable_clips_do_not_change_the_others_of_a_batch(tmp_path):
    whole = taken(noises(tmp_path, seconds=(0.3,) * 8), 1, config(batch_size=8))[0].batch
    left = taken(damaged(tmp_path, bad=[3]), 1, config(batch_size=8))[0].batch
    kept = torch.isin(whole.keys, left.keys)
    assert kept.sum() == 7
    assert torch.equal(left.wave, whole.wave[kept])


def test_a_batch_without_readable_clips_is_none(tmp_path):
    batches = taken(damaged(tmp_path, bad=range(8)), 2, config())
    assert [loaded.batch for loaded in batches] == [None, None]
    assert [len(loaded.rejected) for loaded in batches] == [4, 4]


# ----------------------------------------------------------------------------------------------------------- workers


def test_a_worker_that_is_stuck_ends_with_its_batches(corpus, monkeypatch):
    def stuck_after_a_batch(clip, rate, decode=loader.decode, calls=[]):  # noqa: B006 - how many in this process
        calls.append(clip)
        return decode(clip, rate) if len(calls) <= 4 else time.sleep(60)

    monkeypatch.setattr(loader, "decode", stuck_after_a_batch)
    monkeypatch.setattr(_utils, "MP_STATUS_CHECK_INTERVAL", 0.2)  # seconds that torch gives it
    batches = training_batches(corpus, config(workers=1), RATE, seed=0)
    assert len(next(batches).batch) == 4
    assert multiprocessing.active_children()
    batches.close()
    assert not multiprocessing.active_children()


def test_workers_left_at_exit_do_not_delay_it(corpus):
    code = f"""
from melpatch.data.loader import LoaderConfig, training_batches
from melpatch.data.manifest import load_corpus
corpus = load_corpus([{str(corpus.clips[0].path.parent)!r}])
batches = training_batches(corpus, LoaderConfig(seconds=0.2, batch_size=2, workers=1), {RATE}, seed=0)
print(len(next(batches).batch))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "2\n")


def test_a_killed_worker_is_reported_in_one_line(corpus, monkeypatch):
    monkeypatch.setattr(loader, "decode", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(MelpatchError, match=r"a decoding process was killed, .* fewer --workers"):
        taken(corpus, 1, config(workers=1))


def test_batches_are_pinned_by_torchs_loader(corpus, monkeypatch):
    monkeypatch.setattr(
        torch.Tensor, "pin_memory", lambda value: value + 1
    )  # as no GPU is needed to tell
    loaded = replace(taken(corpus, 1, config())[0], rejected=(Rejected("a.wav", "empty"),))
    pinned = pin_memory(loaded)
    assert pinned.rejected == loaded.rejected
    assert torch.equal(pinned.batch.wave, loaded.batch.wave + 1)
    assert torch.equal(pinned.batch.keys, loaded.batch.keys + 1)
    assert pinned.batch.shortest == loaded.batch.shortest
    nothing = loader.LoadedBatch(None, loaded.rejected)
    assert pin_memory(nothing) == nothing


# ----------------------------------------------------------------------------------------------------------- collate


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_collate_pads_with_zeros_and_keeps_lengths(lengths):
    clips = imagined(len(lengths)).clips
    waves = [np.full(length, number + 1.0, np.float32) for number, length in enumerate(lengths)]
    batch = collate_clips(list(zip(clips, waves, strict=True)), ()).batch
    assert batch.wave.shape == (len(lengths), max(lengths))
    assert batch.lengths.tolist() == lengths
    assert batch.keys.tolist() == [clip.key for clip in clips]
    for row, wave in zip(batch.wave, waves, strict=True):
        assert torch.equal(
            row, torch.nn.functional.pad(torch.from_numpy(wave), (0, max(lengths) - len(wave)))
        )


def test_collate_keeps_64_bit_keys_and_lists_rejected_clips():
    key = -(2**63) + 1
    clip = replace(imagined(1).clips[0], key=key)
    loaded = collate_clips([(clip, np.ones(3, np.float32)), Rejected("b.wav", "is no sound")], ())
    assert loaded.batch.keys.tolist() == [key]
    assert loaded.rejected == (Rejected("b.wav", "is no sound"),)


# -------------------------------------------------------------------------------------------------------- evaluation


def test_evaluation_yields_every_clip_once_and_uncropped(corpus):
    batches = list(evaluation_batches(corpus.clips, RATE, batch_size=5, labels=corpus.labels))
    lengths = {clip.key: round(clip.duration * RATE) for clip in corpus.clips}
    seen = {
        k: n
        for loaded in batches
        for k, n in zip(loaded.batch.keys.tolist(), loaded.batch.lengths.tolist(), strict=True)
    }
    assert seen == lengths
    assert [len(loaded.batch) for loaded in batches] == [5, 5, 2]
    in_turn = [length for loaded in batches for length in loaded.batch.lengths.tolist()]
    assert in_turn == sorted(in_turn)
    assert all(loaded.batch.targets.shape[1] == len(corpus.labels) for loaded in batches)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("seconds", 0.0),
        ("workers", -1),
        ("bucket_steps", 0),
        ("max_bad_share", 1.1),
    ],
)
def test_settings_out_of_range_are_named(field, value):
    with pytest.raises(ConfigError, match=f"{field} = {value}"):
        LoaderConfig(**{field: value})


@pytest.mark.parametrize("balanced", [False, True])
def test_the_order_does_not_depend_on_the_listing(balanced):
    listed = imagined(7, ("a", "b"))
    turned = replace(listed, clips=listed.clips[::-1])
    keys, turned_keys = (
        [
            many.clips[draw.clip].key
            for draw in islice(training_order(many, config(balanced_sampling=balanced), 3, 0), 30)
        ]
        for many in (listed, turned)
    )
    assert keys == turned_keys


def test_a_clip_drawn_twice_in_a_balanced_epoch_is_cropped_differently():
    listed = imagined(7, ("a", "b"))
    draws = [*islice(training_order(listed, config(balanced_sampling=True), 3, 0), 70)]
    assert len({draw.epoch for draw in draws}) == 70


# ------------------------------------------------------------------------------------------------------- short clips


@given(st.integers(1, 20), st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_a_short_wave_is_repeated_from_a_given_start(length, samples, start):
    wave = np.arange(length, dtype=np.float32)
    repeated = repeat_to_length(wave, samples, start)
    first = int(start * length) if length < samples else 0
    assert repeated.dtype == np.float32
    assert repeated.tolist() == [(first + at) % length for at in range(max(length, samples))]


def test_repeated_clips_fill_their_segments_with_another_start_in_every_epoch(corpus):
    short = config(short_clips="repeat", seconds=2.0, batch_size=len(corpus.clips))
    first, second = taken(corpus, 2, short)
    longest = max(int(clip.duration * RATE) for clip in corpus.clips)
    assert longest < 2 * RATE
    for loaded in (first, second):
        assert set(loaded.batch.lengths.tolist()) == {2 * RATE}
    assert same([first, second], taken(corpus, 2, short))
    waves = [
        dict(zip(one.batch.keys.tolist(), one.batch.wave, strict=True)) for one in (first, second)
    ]
    for clip in corpus.clips:
        whole, _ = read(clip.path)
        early, late = (wave[clip.key] for wave in waves)
        torch.testing.assert_close(early[len(whole) :], early[: -len(whole)])
        assert sorted(early[: len(whole)].tolist()) == sorted(whole.tolist())
        assert not torch.equal(early, late)


def test_long_clips_are_cropped_with_repetition_too(corpus):
    assert same(
        *(taken(corpus, 3, config(seconds=0.1, short_clips=short)) for short in ("pad", "repeat"))
    )
