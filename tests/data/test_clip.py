import dataclasses
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melpatch.data.clip import Batch, Clip, clip_key

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
STARTS = st.integers(0, 10**12).map(lambda microseconds: microseconds / 1e6)


def batch(clips=3, samples=100, labels=2):
    targets = torch.zeros(clips, labels) if labels else None
    return Batch(
        torch.zeros(clips, samples), torch.full((clips,), samples), torch.arange(clips), targets
    )


def test_key_never_changes():
    # Written down once: a new number here would give every user's clips other masks and crops.
    assert clip_key("birds", "wren/song.wav", 1.5) == -3309181422598310130


@given(NAMES, NAMES, STARTS, NAMES, NAMES, STARTS)
def test_keys_differ_exactly_if_clips_differ(
    dataset, path, start, other_dataset, other_path, other_start
):
    same = (dataset, path, start) == (other_dataset, other_path, other_start)
    key = clip_key(dataset, path, start)
    assert -(2**63) <= key < 2**63
    assert (key == clip_key(other_dataset, other_path, other_start)) == same


def test_the_key_separates_its_parts():
    assert clip_key("a", "b/c", 0.0) != clip_key("a/b", "c", 0.0)


def test_clip_is_a_value():
    clip = Clip(Path("a.wav"), 1, 0.0, 2.0)
    assert clip == pickle.loads(pickle.dumps(clip))
    assert (clip.labels, clip.split) == ((), "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        clip.key = 2


def test_a_clip_is_recognised_by_its_key_or_its_file_and_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = Clip(tmp_path / "sounds" / "a.wav", 7, 1.5, 2.0)
    elsewhere = dataclasses.replace(clip, path=Path("sounds/../sounds/a.wav"), key=8)
    assert set(clip.identities) & set(elsewhere.identities) == {clip.identities[1]}
    assert not set(clip.identities) & set(dataclasses.replace(elsewhere, start=1.0).identities)
    packed = dataclasses.replace(clip, offset=512, size=9)
    assert packed.identities == (7,)


@pytest.mark.parametrize("labels", [0, 2])
def test_all_tensors_of_a_batch_move_together(labels):
    moved = batch(labels=labels).to("meta")
    values = [getattr(moved, field.name) for field in dataclasses.fields(moved)]
    assert len(moved) == 3
    assert all(value.is_meta for value in values if value is not None)
    assert (moved.targets is None) == (labels == 0)


def test_a_batch_with_parts_of_unequal_length_is_rejected():
    with pytest.raises(Exception, match="clip"):
        Batch(torch.zeros(3, 10), torch.zeros(2, dtype=torch.int64), torch.arange(3))


def test_a_batch_on_its_device_still_knows_its_shortest_clip():
    data = Batch(torch.zeros(3, 10), torch.tensor([10, 4, 7]), torch.arange(3))
    assert data.shortest == 4
    assert data.to("meta").to("meta").shortest == 4
    assert Batch.empty(10).shortest == 10
