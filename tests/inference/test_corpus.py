"""Running a network over a corpus: one row per clip in the order given, whatever is batched, windowed or unreadable."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from journeys.three_sounds import write_sound

from melpatch.audio.files import read
from melpatch.data.clip import Clip, clip_key
from melpatch.errors import DataError
from melpatch.inference.corpus import infer_clips

RATE = 8000


def summary(batch):
    """A row that only a clip's own samples decide, and not linearly: a window's energy, peak and length."""
    inside = torch.arange(batch.wave.shape[1]) < batch.lengths[:, None]
    own = torch.where(inside, batch.wave, 0.0)
    return torch.stack(
        [own.square().sum(1) / batch.lengths, own.abs().amax(1), batch.lengths.float()], dim=1
    )


def slowly(clip, seconds):
    """The row of a clip, window by window."""
    wave, _ = read(clip.path, start=clip.start, duration=clip.duration, sample_rate=RATE)
    size = round(seconds * RATE)
    parts = [wave[at : at + size] for at in range(0, len(wave), size)]
    rows = [
        [np.mean(part.astype(np.float64) ** 2), np.abs(part).max(), len(part)] for part in parts
    ]
    return np.average(rows, axis=0, weights=[len(part) for part in parts])


def clip_of(path, duration, start=0.0):
    return Clip(path, clip_key("inference", path.name, start), start, duration)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("sounds")
    found = []
    for number, seconds in enumerate((1.3, 0.2, 2.0, 0.5, 1.0, 0.07)):
        path = write_sound(
            root / f"{number}.wav", ("noise", "low")[number % 2], seconds, RATE, number
        )
        found.append(clip_of(path, seconds))
    found.append(clip_of(found[2].path, 0.6, start=0.7))  # a second clip of the same file
    return tuple(found)


@given(
    order=st.permutations(range(7)),
    seconds=st.sampled_from([0.1, 0.25, 0.5, 1.0, 5.0]),
    batch_size=st.integers(1, 9),
)
def test_rows_are_those_of_the_windows_weighted_by_their_length(clips, order, seconds, batch_size):
    chosen = [clips[number] for number in order]
    table = infer_clips(summary, chosen, sample_rate=RATE, seconds=seconds, batch_size=batch_size)
    assert table.clips == tuple(chosen)
    assert table.rejected == ()
    np.testing.assert_allclose(table.rows, [slowly(clip, seconds) for clip in chosen], rtol=1e-4)


def test_processes_that_decode_change_nothing(clips):
    alone, helped = (
        infer_clips(summary, clips, sample_rate=RATE, seconds=0.5, workers=n) for n in (0, 1)
    )
    np.testing.assert_array_equal(alone.rows, helped.rows)


def test_no_graph_is_built(clips):
    weight = torch.nn.Parameter(torch.ones(3))
    seen = []

    def weighted(batch):
        seen.append((summary(batch) * weight).requires_grad)
        return summary(batch)

    infer_clips(weighted, clips, sample_rate=RATE, seconds=5.0)
    assert seen == [False]


def test_clips_that_cannot_be_read_are_left_out_and_named(clips, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF, but no more")
    gone = tmp_path / "gone.wav"
    mixed = [clip_of(gone, 1.0), *clips[:3], clip_of(bad, 0.2), *clips[3:]]
    table = infer_clips(summary, mixed, sample_rate=RATE, seconds=0.5, batch_size=2)
    assert table.clips == clips
    assert {one.path for one in table.rejected} == {str(bad), str(gone)}
    expected = infer_clips(summary, clips, sample_rate=RATE, seconds=0.5).rows
    np.testing.assert_allclose(table.rows, expected, rtol=1e-6)


def test_a_clip_said_to_be_longer_than_its_file_is_judged_by_what_there_is(clips):
    honest = clips[4]
    table = infer_clips(summary, [replace(honest, duration=3.0)], sample_rate=RATE, seconds=0.5)
    np.testing.assert_allclose(table.rows[0], slowly(honest, 0.5), rtol=1e-4)
    assert {one.path for one in table.rejected} == {str(honest.path)}


def test_nothing_readable_is_an_error_that_names_the_first(tmp_path):
    lost = [clip_of(tmp_path / f"{number}.wav", 1.0) for number in range(3)]
    with pytest.raises(
        DataError, match=r"none of 3 clips can be read; the first: .*\.wav \(.*melpatch prepare"
    ):
        infer_clips(summary, lost, sample_rate=RATE, seconds=1.0)


def test_no_clips_at_all_is_an_error():
    with pytest.raises(DataError, match="none of 0 clips"):
        infer_clips(summary, [], sample_rate=RATE, seconds=1.0)
