"""VoxCeleb1: the official split, in either of the two layouts."""

from melpatch.datasets import voxceleb1


def test_numbers_are_splits_and_groups_are_videos(tmp_path):
    voxceleb1.fake(tmp_path)
    first, second, *_ = voxceleb1.clips(tmp_path, "")
    name = "id10001/aBcDeFgHiJk/00001.wav"
    assert first == (f"dev/wav/{name}", "id10001", "train", 0.0, None, "id10001/aBcDeFgHiJk", name)
    assert (second.label, second.split) == ("id10001", "val")


def test_keys_are_the_same_with_one_folder_or_two(tmp_path):
    voxceleb1.fake(tmp_path)
    before = voxceleb1.clips(tmp_path, "")
    for home in ("dev/wav", "test/wav"):
        for speaker in (tmp_path / home).iterdir():
            (tmp_path / "wav").mkdir(exist_ok=True)
            speaker.rename(tmp_path / "wav" / speaker.name)
    after = voxceleb1.clips(tmp_path, "")
    assert {entry.path.partition("/")[0] for entry in after} == {"wav"}
    assert [entry._replace(path="") for entry in after] == [
        entry._replace(path="") for entry in before
    ]
    assert voxceleb1.CARD.look_up(tmp_path)[1] == []
