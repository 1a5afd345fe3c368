"""Sound in Parquet: read in any order, by row groups, and never from another row than was listed."""

from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parquet_files import write_clips, write_dataset
from tiny_wav import RATE

from melpatch.data import parquet_sound
from melpatch.data.loader import LoaderConfig, training_order
from melpatch.data.manifest import load_corpus
from melpatch.data.packed import read_together
from melpatch.data.sound import byte_range, decode
from melpatch.errors import AudioError, MelpatchError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return load_corpus([write_dataset(tmp_path_factory.mktemp("data") / "set")])


def test_a_random_order_gives_the_same_sound(corpus, monkeypatch):
    waves = [decode(clip, RATE) for clip in corpus.clips]
    parquet_sound._kept.clear()
    # No more than one row group stays in memory.
    monkeypatch.setattr(parquet_sound, "_KEPT_BYTES", 1)
    for index in np.random.default_rng(0).permutation(len(corpus.clips)):
        np.testing.assert_array_equal(decode(corpus.clips[index], RATE), waves[index])
        assert len(parquet_sound._kept) == 1


def test_in_the_order_of_the_file_each_row_group_is_decoded_once(corpus, monkeypatch):
    parquet_sound._kept.clear()
    decoded = []
    sounds = parquet_sound.sounds
    monkeypatch.setattr(
        parquet_sound, "sounds", lambda file, *more: decoded.append(more[0]) or sounds(file, *more)
    )
    for clip in corpus.clips:
        decode(clip, RATE)
    # One of the test clips; two and one of those for training, of 4 clips each.
    assert decoded == [0, 0, 1, 0]


def test_training_may_mix_a_few_row_groups_at_a_time(corpus):
    config = LoaderConfig(shards_at_once=1)
    order = training_order(corpus, config, seed=0, first=0)
    drawn = [corpus.clips[next(order).clip] for _ in corpus.clips]
    groups = [read_together(clip) for clip in drawn]
    changes = sum(before != after for before, after in pairwise(groups))
    assert len({*groups}) == 4
    assert changes == 3


@pytest.mark.parametrize("change", [{"offset": 99}, {"crc32": 1}, {"size": 3}, {"offset": 1}])
def test_another_sound_than_was_listed_is_refused(corpus, change):
    with pytest.raises(AudioError, match=r"at row \d+\]: is damaged: the row does not hold the"):
        byte_range(replace(corpus.clips[0], **change)).content()


def test_a_file_that_was_replaced_is_read_again(tmp_path):
    file = write_clips(tmp_path / "x.parquet", [0, 1])
    clip = load_corpus([file]).clips[0]
    assert byte_range(clip).content()
    write_clips(file, [1, 0])
    with pytest.raises(AudioError, match="is damaged"):
        byte_range(clip).content()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_file_is_one_line(tmp_path, data):
    content = bytearray(write_clips(tmp_path / "good.parquet", [0]).read_bytes())
    # Mostly in the footer, which is the last of it.
    places = st.integers(0, len(content) - 1) | st.integers(len(content) - 1200, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    (tmp_path / "bad.parquet").write_bytes(content[:end])
    # Anything else than an error of one line fails the test.
    with suppress(MelpatchError):
        load_corpus([tmp_path / "bad.parquet"])
