"""AudioSet: files under the names that people give them, quoted lists, and PSLA's labels."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melpatch.datasets import audioset
from melpatch.datasets.base import write_noises

VIDEOS = st.text("YabAB01-_", min_size=11, max_size=11)


@pytest.mark.parametrize(
    ("stem", "video"),
    [
        ("--PJHxphWEs", "--PJHxphWEs"),
        ("Y--PJHxphWEs", "--PJHxphWEs"),
        ("Yab_cdefghi", "Yab_cdefghi"),  # 11 letters, the first of them Y
        ("YYab_cdefghi", "Yab_cdefghi"),
        ("---1_cCGK4M_30.000", "---1_cCGK4M"),
        ("Y---1_cCGK4M_30000_40000", "---1_cCGK4M"),
        ("abcdefgh_12", "abcdefgh_12"),  # not a time
        ("abcdefgh_12_30.000_40.000", "abcdefgh_12"),
        ("abcdefghij", ""),
        ("abcdefghijkl", ""),
        ("abcdefghijk_", ""),
        ("abcdefghijk_copy", ""),
        ("", ""),
    ],
)
def test_the_video_is_read_from_a_file_name(stem, video):
    assert audioset.video_of(stem) == video


@given(VIDEOS, st.sampled_from(["", "_0.000", "_30.000_40.000", "_30000_40000"]), st.booleans())
def test_every_video_is_recognised_under_every_name(video, times, prefixed):
    assert audioset.video_of("Y" * prefixed + video + times) == video


@pytest.fixture
def root(tmp_path):
    audioset.fake(tmp_path)
    return tmp_path


def test_lists_are_read_with_their_quotes_and_names(root):
    head = (root / "balanced_train_segments.csv").read_text(encoding="utf-8").splitlines()
    assert head[3] == '--PJHxphWEs, 30.000, 40.000, "/m/09x0r"'
    assert [(entry.name, entry.label, entry.split) for entry in audioset.clips(root, "2m")] == [
        ("--PJHxphWEs", "Speech", "train"),
        ("Yab_cdefghi", "Male speech, man speaking", "train"),
        ("---1_cCGK4M", "Speech;Male speech, man speaking", "train"),
        ("-0DdlOuIFUI", "Speech;Male speech, man speaking", "test"),
    ]


def test_a_class_with_a_semicolon_in_its_name_is_one_label(root):
    classes = root / "class_labels_indices.csv"
    classes.write_text(classes.read_text().replace("Male speech,", "Male speech;"))
    labels = [entry.label for entry in audioset.clips(root, "20k")]
    assert labels[1] == "Male speech, man speaking"


def test_20k_trains_on_the_balanced_list_alone(root):
    (root / "unbalanced_train_segments.csv").unlink()
    present = [(entry.path, entry.split) for entry in audioset.clips(root, "20k")]
    assert present == [
        ("balanced/Y--PJHxphWEs.wav", "train"),
        ("balanced/Yab_cdefghi.flac", "train"),
        ("eval/-0DdlOuIFUI_30000.flac", "test"),
    ]


@pytest.mark.parametrize("subset", ["20k", "2m"])
def test_enhanced_labels_apply_to_listed_training_clips_only(root, subset):
    plain, better = (audioset.clips(root, name) for name in (subset, f"{subset}-enhanced"))
    assert [entry._replace(label="") for entry in better] == [
        entry._replace(label="") for entry in plain
    ]
    changed = {
        new.name: new.label
        for old, new in zip(plain, better, strict=True)
        if old.label != new.label
    }
    assert changed == {"--PJHxphWEs": "Speech;Male speech, man speaking"}


def test_enhanced_labels_of_test_clips_are_ignored(root):
    data = {"data": [{"wav": "-0DdlOuIFUI.wav", "labels": "/m/09x0r"}]}
    (root / "20k-enhanced.json").write_text(json.dumps(data), encoding="utf-8")
    assert audioset.clips(root, "20k-enhanced") == audioset.clips(root, "20k")


def test_the_first_of_several_files_of_a_video_is_used(root):
    write_noises(root, ["a/--PJHxphWEs.wav", "z/--PJHxphWEs.wav"])
    assert audioset.clips(root, "20k")[0].path == "a/--PJHxphWEs.wav"


def test_the_key_depends_on_the_video_not_on_its_path(root):
    before = [row.name for row in audioset.CARD.look_up(root)[0]]
    for path in [*root.rglob("*.wav"), *root.rglob("*.flac")]:
        path.rename(root / (audioset.video_of(path.stem) + path.suffix))
    assert [row.name for row in audioset.CARD.look_up(root)[0]] == before


def test_missing_clips_are_listed_too(root):
    (root / "balanced" / "Y--PJHxphWEs.wav").unlink()
    present, missing = audioset.CARD.look_up(root, "20k")
    assert (len(present), [row.name for row in missing]) == (2, ["--PJHxphWEs"])
    assert missing[0].path == root / "balanced_train_segments" / "--PJHxphWEs.wav"
