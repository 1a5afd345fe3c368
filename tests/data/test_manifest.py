import csv
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import shared

from melpatch.data import scan as scanning
from melpatch.data.clip import Clip, clip_key
from melpatch.data.file_names import path_text
from melpatch.data.leaks import find_leaks
from melpatch.data.manifest import (
    Corpus,
    Rejected,
    label_matrix,
    load_corpus,
    load_with_rates,
    write_corpus,
    write_rejected,
)
from melpatch.data.split_roles import usual_split
from melpatch.errors import DataError

RATE = 8000


def sound(path, seconds=0.25, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE))
    soundfile.write(path, wave, RATE, format="WAV")
    return path


def table(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def seen(corpus):
    return [
        (clip.path.name, clip.labels, clip.split, clip.start, clip.duration)
        for clip in corpus.clips
    ]


# Folders


def test_a_folder_is_searched_and_its_first_sub_folder_is_the_label(tmp_path):
    birds = tmp_path / "birds"
    for name in ("wren/b.wav", "wren/old/a.wav", "robin/c.WAV", "loose.flac", "owl;night/d.wav"):
        sound(birds / name)
    corpus = load_corpus([birds])
    assert corpus.name == "birds"
    assert corpus.labels == ("night", "owl", "robin", "wren")
    assert corpus.multi_label
    assert {str(clip.path.relative_to(birds)): clip.labels for clip in corpus.clips} == {
        "loose.flac": (),
        "owl;night/d.wav": ("owl", "night"),
        "robin/c.WAV": ("robin",),
        "wren/b.wav": ("wren",),
        "wren/old/a.wav": ("wren",),
    }
    for clip in corpus.clips:
        assert clip.key == clip_key("birds", clip.path.relative_to(birds).as_posix(), 0.0)
        assert (clip.start, clip.duration, clip.split) == (0.0, 0.25, "")


def test_bad_files_of_a_folder_are_listed_and_other_formats_are_skipped(tmp_path):
    sound(tmp_path / "good.wav")
    for name in (
        "README.md",
        "notes.TXT",
        "labels.csv",
        ".hidden.wav",
        ".cache/x.wav",
        "cover.jpg",
    ):
        table(tmp_path / name, "not sound")
    table(tmp_path / "bad.wav", "not sound")
    table(tmp_path / "empty.flac", "")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere")
    corpus = load_corpus([tmp_path])
    assert [clip.path.name for clip in corpus.clips] == ["good.wav"]
    assert {Path(file.path).name: file.reason.split(" (")[0] for file in corpus.rejected} == {
        "bad.wav": "is not sound that libsndfile decodes",
        "empty.flac": "is empty",
        "gone.wav": "does not exist",
    }


def test_circular_links_are_followed_once(tmp_path):
    sound(tmp_path / "a" / "x.wav")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    outside = sound(tmp_path.parent / f"{tmp_path.name}_outside" / "y.wav").parent
    (tmp_path / "linked").symlink_to(outside)
    corpus = load_corpus([tmp_path])
    assert seen(corpus) == [("x.wav", ("a",), "", 0.0, 0.25), ("y.wav", ("linked",), "", 0.0, 0.25)]


ODD_NAMES = [
    b"caf\xe9.wav",
    b"new\nline.wav",
    b"-dash.wav",
    b"100%25 %s.wav",
    b"x" * 251 + b".wav",
    b"quote\"'.wav",
    b"semi;colon,comma.wav",
    b" blank .wav",
    b"tab\t.wav",
    b"cr\r.wav",
    b"back\\slash.wav",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_files_of_any_name_are_taken_and_found_again(tmp_path, name):
    good = sound(tmp_path / "good.wav")
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    try:
        Path(os.fsdecode(folder)).mkdir()
        os.link(good, folder + b"/" + name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    corpus = load_corpus([tmp_path])
    assert not corpus.rejected
    (odd,) = [clip for clip in corpus.clips if clip.labels]
    assert os.fsencode(odd.path) == folder + b"/" + name
    assert odd.labels == (r"caf\xe9",)
    write_corpus(corpus, tmp_path / "corpus.csv")
    assert load_corpus([tmp_path / "corpus.csv"]).clips == corpus.clips
    # The folder itself may be such a name.
    (clip,) = load_corpus([os.fsdecode(folder)]).clips
    assert clip.path == odd.path
    assert load_corpus([path_text(odd.path.parent)]).clips == (clip,)


# CSV files


def test_a_csv_lists_paths_labels_splits_and_segments(tmp_path):
    elsewhere = sound(tmp_path / "elsewhere" / "c.wav")
    sound(tmp_path / "set" / "audio" / "a.wav")
    sound(tmp_path / "set" / "audio" / "b, c.wav", seconds=1.0)
    path = table(
        tmp_path / "set" / "list.csv",
        " split ,path,label,extra,start,duration\n"
        "train,audio/a.wav,dog,1,,\n"
        ",,,,,\n"
        "\n"
        '2,"audio/b, c.wav", dog ; cat;dog,2,0.25,\n'
        '2,"audio/b, c.wav",,3,0.5,0.125\n'
        f"test,{elsewhere},,4,0.1,\n"
        "test,audio/missing.wav,owl,5,,\n"
        "test,audio/a.wav,owl,6,99,\n",
    )
    corpus = load_corpus([path])
    assert corpus.name == "set"
    assert seen(corpus) == [
        ("a.wav", ("dog",), "train", 0.0, 0.25),
        ("b, c.wav", ("dog", "cat"), "2", 0.25, 0.75),
        ("b, c.wav", (), "2", 0.5, 0.125),
        ("c.wav", (), "test", 0.1, 0.15),
    ]
    assert [clip.key for clip in corpus.clips[:3]] == [
        clip_key("set", "audio/a.wav", 0.0),
        clip_key("set", "audio/b, c.wav", 0.25),
        clip_key("set", "audio/b, c.wav", 0.5),
    ]
    assert (corpus.labels, corpus.multi_label) == (("cat", "dog"), True)
    assert [file.reason for file in corpus.rejected] == [
        "does not exist",
        "starts at 99.0 s, beyond its end",
    ]
    assert corpus.splits == {"2": 2, "test": 1, "train": 1}


def test_paths_of_windows_are_found_and_have_the_same_keys(tmp_path):
    sound(tmp_path / "wrens" / "old" / "a.wav")
    sound(tmp_path / "b\\c.wav")
    listed = "path,label\n{},wren\nb\\c.wav,owl\n"
    keys = [
        [clip.key for clip in load_corpus([table(tmp_path / "x.csv", listed.format(path))]).clips]
        for path in ("wrens/old/a.wav", r"wrens\old\a.wav", r".\wrens\old\a.wav")
    ]
    assert keys[0] == keys[1] == keys[2]
    assert len(keys[0]) == 2


def test_columns_may_have_other_names_and_a_byte_order_mark(tmp_path):
    sound(tmp_path / "a.wav")
    path = table(tmp_path / "x.CSV", "\ufeffpath,species,fold\r\na.wav,Häher,3\r\n")
    corpus = load_corpus([path], split_column="fold", label_column="species")
    assert seen(corpus) == [("a.wav", ("Häher",), "3", 0.0, 0.25)]
    assert load_corpus([path]).labels == ()  # 'label' and 'split' need not be there


def test_only_rows_without_duration_are_probed_and_each_file_once(tmp_path, monkeypatch):
    sound(tmp_path / "a.wav", seconds=2.0)
    path = table(
        tmp_path / "x.csv", "path,start,duration\na.wav,0,\na.wav,1,\nnot_there.wav,0,5.5\n"
    )
    probed = []
    monkeypatch.setattr(
        scanning, "probe", lambda path, probe=scanning.probe: probed.append(path) or probe(path)
    )
    assert [clip.duration for clip in load_corpus([path]).clips] == [2.0, 1.0, 5.5]
    assert probed == [tmp_path / "a.wav"]


def test_the_group_is_the_column_of_that_name_or_the_speaker(tmp_path):
    sound(tmp_path / "a.wav")
    for header, cells, group in [
        ("speaker", " ann ", "ann"),
        ("speaker,group", "ann,ward 1", "ward 1"),
        ("speaker,group", "ann,", ""),
        ("recording", "7", ""),
    ]:
        (clip,) = load_corpus([table(tmp_path / "x.csv", f"path,{header}\na.wav,{cells}\n")]).clips
        assert clip.group == group, header
    with pytest.raises(DataError, match="column 'group' occurs twice"):
        load_corpus([table(tmp_path / "x.csv", "path,group,group\na.wav,x,y\n")])


REFUSED = {
    "no path column": ("sounds,label\na.wav,x\n", "no column 'path'; found: 'sounds', 'label'"),
    "bars": ("path|label\na.wav|x\n", "no column 'path'; found: 'path.label'.*commas"),
    "no bytes": ("", "no column 'path'; found: none"),
    "no rows": ("path,label\n\n,\n", "lists no sound files"),
    "column twice": ("path,label,label\na.wav,x,y\n", "column 'label' occurs twice"),
    "no path": ("path,label\n,dog\n", "line 2: no path"),
    "too many cells": ("path,label\na.wav,dog,1\n", "line 2: 3 cells, but the header has 2"),
    "too few cells": ("path,label\n\na.wav\n", "line 3: 1 cell, but the header has 2"),
    "open quote": ('path,label\n"a.wav,dog\n', "not a CSV file"),
    "start": ("path,start\na.wav,-1\n", "line 2: start = '-1'; allowed"),
    "start is a word": ("path,start\na.wav,soon\n", "line 2: start = 'soon'; allowed"),
    "start is nan": ("path,start\na.wav,nan\n", "line 2: start = 'nan'; allowed"),
    "duration": ("path,duration\na.wav,inf\n", "line 2: duration = 'inf'; allowed"),
    "no duration": ("path,duration\na.wav,0.0\n", "line 2: duration = 0; allowed"),
    "same key": (
        "path,key,duration\na.wav,7,1\nb.wav,7,1\n",
        "b.wav and .*a.wav have the same key, 7",
    ),
    "row twice": (
        "path,label\na.wav,dog\na.wav,cat\n",
        "a.wav: listed twice, from 0.0 s, with the labels 'dog' and 'cat' "
        r"\(lines 2 and 3 of .*x.csv\); keep one row.*'a;b'",
    ),
    "all bad": (
        "path\nb.wav\nc.wav\n",
        "none of its 2 files can be used; the first, .*b.wav, does not exist",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_malformed_csv_is_rejected(tmp_path, case):
    text, message = REFUSED[case]
    sound(tmp_path / "a.wav")
    with pytest.raises(DataError, match=message) as caught:
        load_corpus([table(tmp_path / "x.csv", text)])
    assert "\n" not in str(caught.value)


def test_other_impossible_sources_are_rejected(tmp_path):
    audio = sound(tmp_path / "one.wav")
    latin = table(tmp_path / "latin.csv", "path,label\na.wav,Häher\n", encoding="latin-1")
    (tmp_path / "empty").mkdir()
    renamed = table(tmp_path / "x.csv", "path\none.wav\n")
    for sources, columns, message in [
        ([], {}, "no source of sound"),
        ([tmp_path / "nowhere"], {}, "no such folder or CSV file"),
        ([audio], {}, "neither a folder nor a table"),
        ([tmp_path / "empty"], {}, "lists no sound files"),
        ([latin], {}, "latin.csv: not UTF-8 text.*byte 0xe4.*save it as UTF-8"),
        ([renamed], {"split_column": "fold"}, "no column 'fold'; found: 'path'"),
        ([renamed], {"label_column": "species"}, "no column 'species'; found: 'path'"),
    ]:
        with pytest.raises(DataError, match=message):
            load_corpus(sources, **columns)


def test_several_sources_make_a_union_with_separate_keys(tmp_path):
    sound(tmp_path / "a" / "dog" / "1.wav")
    sound(tmp_path / "b" / "1.wav")
    path = table(tmp_path / "b" / "list.csv", "path,label,split\n1.wav,cat,train\n")
    corpus = load_corpus([tmp_path / "a", str(path)])
    assert corpus.name == "a+b"
    assert corpus.labels == ("cat", "dog")
    assert set(corpus.clips) == {*load_corpus([path]).clips, *load_corpus([tmp_path / "a"]).clips}
    sound(tmp_path / "other" / "b" / "1.wav")
    with pytest.raises(DataError, match=r"have the same key.*rename one of their folders"):
        load_corpus([path, tmp_path / "other" / "b"])


def test_keys_do_not_depend_on_the_order_of_rows_or_the_folder(tmp_path):
    def keys(root, rows):
        for row in rows:
            sound(root / row)
        return {
            clip.path.name: clip.key
            for clip in load_corpus([table(root / "l.csv", "\n".join(["path", *rows]))]).clips
        }

    assert keys(tmp_path / "here" / "set", ["a.wav", "b.wav"]) == keys(
        tmp_path / "set", ["b.wav", "a.wav"]
    )


def test_workers_probe_the_same_as_one_process(tmp_path):
    for index in range(70):  # more than one process is handed at a time
        sound(tmp_path / f"{index}.wav", seconds=0.01 * (index + 1))
    table(tmp_path / "bad.wav", "not sound")
    assert load_with_rates([tmp_path], workers=2) == load_with_rates([tmp_path], workers=0)
    assert load_with_rates([tmp_path])[1] == {RATE: 70}


def test_shared_manifests_work_as_they_are():
    expected = {
        "fsdd": (3000, 10, {"test": 300, "train": 2400, "val": 300}),
        "emodb_2s": (535, 7, {"1": 107, "2": 81, "3": 116, "4": 104, "5": 127}),
        "librispeech_251spk_unlabelled": (251, 0, {"pretrain": 251}),
    }
    for name, (clips, labels, splits) in expected.items():
        corpus = load_corpus([shared(f"data/{name}/manifest.csv")], split_column="split_or_fold")
        assert (len(corpus.clips), len(corpus.labels), corpus.splits) == (clips, labels, splits)
        assert not corpus.rejected


# What a corpus offers


def corpus_of(*clips, name="set"):
    labels = tuple(sorted({label for clip in clips for label in clip.labels}))
    return Corpus(name, clips, labels, any(len(clip.labels) > 1 for clip in clips))


@pytest.fixture
def three():
    clips = [
        Clip(Path(f"{s}.wav"), i, 0.0, 1.0, (f"l{i}",), s)
        for i, s in enumerate(["train", "test", ""])
    ]
    return corpus_of(*clips)


def test_splits_can_be_selected_and_left_out(three):
    assert three.splits == {"": 1, "test": 1, "train": 1}
    assert [clip.split for clip in three.select(["train", ""]).clips] == ["train", ""]
    assert [clip.split for clip in three.without(["train"]).clips] == ["test", ""]
    assert three.select("test").clips == three.select(["test"]).clips  # not the letters of the word
    assert three.select(["train"]).labels == three.labels
    for choose in (three.select, three.without):
        with pytest.raises(
            DataError,
            match=r"no split 'valid'; there are: \(none\) \(1 clip\), test \(1 clip\), train",
        ):
            choose(["train", "valid"])


def test_label_matrix_is_1_for_each_label(three):
    several = corpus_of(
        *three.clips,
        Clip(Path("m.wav"), 9, 0.0, 1.0, ("l2", "l0"), ""),
        Clip(Path("u"), 8, 0.0, 1.0),
    )
    matrix = label_matrix(several.clips, several.labels)
    assert matrix.dtype == np.float32
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]]
    assert label_matrix([], ["a"]).shape == (0, 1)
    with pytest.raises(DataError, match=r"train.wav: label 'l0' is not among the 1 known"):
        label_matrix(three.clips, ["l1"])


def test_leaks_are_recordings_with_the_same_bytes_in_several_splits(tmp_path):
    names = {"train": ["a", "copy_a", "b"], "test": ["renamed_a", "c"], "val": ["d", "d_again"]}
    seeds = {"a": 1, "copy_a": 1, "renamed_a": 1, "b": 2, "c": 3, "d": 4, "d_again": 4}
    lines = ["path,split"]
    for split, stems in names.items():
        for stem in stems:
            sound(tmp_path / f"{stem}.wav", seed=seeds[stem])
            lines.append(f"{stem}.wav,{split}")
    corpus = load_corpus([table(tmp_path / "l.csv", "\n".join(lines))])
    assert [{clip.path.stem for clip in group} for group in find_leaks(corpus)] == [
        {"a", "copy_a", "renamed_a"}
    ]
    assert find_leaks(corpus.without(["test"])) == []
    cut = [
        Clip(tmp_path / "b.wav", key, start, 0.1, (), split)
        for key, start, split in [(1, 0.0, "x"), (2, 0.1, "y")]
    ]
    assert find_leaks(corpus_of(*cut, Clip(tmp_path / "gone.wav", 3, 0.0, 1.0))) == [tuple(cut)]


# Writing


WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/;\0"),
    min_size=1,
    max_size=12,
)
NAMES = (WORDS | st.sampled_from([" x ", 'a"b', "a,b", "l\nm", "r\rs", "=1+1", "ü", "-"])).filter(
    lambda n: n not in {".", ".."}
)
LABELS = WORDS.map(str.strip).filter(bool)
# Other names of the usual splits are read as these.
SPLITS = LABELS.filter(lambda name: usual_split(name) in (None, name))


@given(
    rows=st.lists(
        st.tuples(
            st.lists(NAMES, min_size=1, max_size=3),
            st.lists(LABELS, max_size=3, unique=True),
            SPLITS | st.just(""),
            st.floats(0, 1e6),
            st.floats(1e-3, 1e6),
            st.booleans(),
            LABELS | st.just(""),
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda row: (tuple(row[0]), row[5], row[3]),
    ),
    data=st.data(),
)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_written_corpus_is_read_back(tmp_path, rows, data):
    inside, outside = tmp_path / "out", Path("/some where/else")
    clips = {}
    for parts, labels, split, start, duration, within, group in rows:
        path = Path(inside if within else outside, *parts)
        if path.name.strip():
            key = clip_key("set", "/".join(parts), start)
            clips[key] = Clip(path, key, start, duration, tuple(labels), split, group)
    if not clips:
        return
    corpus = corpus_of(*clips.values(), name="out")
    written = inside / "corpus.csv"
    write_corpus(corpus, written)
    assert load_corpus([written]) == corpus
    assert sorted(path.name for path in inside.iterdir()) == ["corpus.csv"]

    lines = data.draw(
        st.permutations([*csv.reader(written.open(encoding="utf-8", newline=""))][1:])
    )
    with written.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [["path", "label", "split", "start", "duration", "key", "group"], *lines]
        )
    assert set(load_corpus([written]).clips) == set(corpus.clips)


def test_a_prepared_corpus_keeps_its_keys_and_moves_with_its_files(tmp_path):
    sound(tmp_path / "birds" / "wren" / "a.wav")
    corpus = load_corpus([tmp_path / "birds"])
    write_corpus(corpus, tmp_path / "corpus.csv")
    assert load_corpus([tmp_path / "corpus.csv"]).clips == corpus.clips
    (moved := tmp_path / "moved").mkdir()
    (tmp_path / "corpus.csv").rename(moved / "corpus.csv")
    (tmp_path / "birds").rename(moved / "birds")
    (clip,) = load_corpus([moved / "corpus.csv"]).clips
    assert (clip.path, clip.key) == (moved / "birds" / "wren" / "a.wav", corpus.clips[0].key)


def test_rejected_files_are_written_and_an_impossible_path_is_an_error(tmp_path):
    rejected = (Rejected("a, b.wav", 'says "no"'), Rejected("c.wav", "is empty"))
    path = tmp_path / "new" / "rejected.csv"
    write_rejected(rejected, path)
    rows = [*csv.reader(path.open(encoding="utf-8", newline=""))]
    assert rows == [["path", "reason"], ["a, b.wav", 'says "no"'], ["c.wav", "is empty"]]
    with pytest.raises(DataError, match="cannot be written"):
        write_rejected(rejected, path / "below_a_file.csv")


# What is recognised, and told


def load_told(capsys, *sources, **columns):
    corpus = load_corpus(sources, **columns)
    return corpus, capsys.readouterr().err


def test_the_end_of_a_clip_is_read_and_a_file_may_have_several(tmp_path, capsys):
    sound(tmp_path / "a.wav", seconds=2.0)
    text = "filename,onset,offset,label\na.wav,0.5,1.0,x\na.wav,1.5,,y\na.wav,0.5,0.75,x\na.wav,1,1,z\n"
    corpus, told = load_told(capsys, table(tmp_path / "x.csv", text))
    assert seen(corpus) == [
        ("a.wav", ("x",), "", 0.5, 0.5),
        ("a.wav", ("y",), "", 1.5, 0.5),
        ("a.wav", ("x",), "", 0.5, 0.25),
    ]
    assert len({clip.key for clip in corpus.clips}) == 3
    assert [(file.path[-6:], file.reason) for file in corpus.rejected] == [
        ("line 5", "end = '1'; allowed: seconds after the start, 1")
    ]
    for pair in (
        "'filename' is read as path",
        "'onset' is read as start",
        "'offset' is read as end",
    ):
        assert pair in told
    assert "1 lines are malformed and left out, such as" in told


def test_repeated_rows_are_taken_once_and_bad_ones_left_out_with_their_lines(tmp_path, capsys):
    sound(tmp_path / "a.wav")
    sound(tmp_path / "b.wav")
    text = 'path,label,note\na.wav,1,\nb.wav,dog,"two\nlines"\na.wav,1,\nb.wav\na.wav,01.0,;\n'
    with pytest.raises(DataError, match=r"labels '1' and '01.0' \(lines 2 and 7 of"):
        load_corpus([table(tmp_path / "x.csv", text)])
    corpus, told = load_told(
        capsys, table(tmp_path / "x.csv", text.replace("a.wav,01.0", "c.wav,1.0"))
    )
    assert len(corpus.clips) == 2
    assert "1 clip is listed twice, such as line 5, which is line 2 again" in told
    assert "line 6: 1 cell, but the header has 3" in told
    assert "labels are numbers and words, such as '1' in line 2 and 'dog' in line 3" in told
    assert "labels '1' (line 2) and '1.0' (line 7) are the same number" in told


def test_a_column_key_of_another_meaning_is_not_used(tmp_path, capsys):
    sound(tmp_path / "a.wav")
    corpus, told = load_told(capsys, table(tmp_path / "x.csv", "path,key\na.wav,C minor\n"))
    assert corpus.clips[0].key == clip_key(tmp_path.name, "a.wav", 0.0)
    assert "columns that are not used: 'key'" in told
    with pytest.raises(DataError, match="line 3: key = 'x7'; allowed: a signed 64-bit number"):
        load_corpus([table(tmp_path / "x.csv", "path,key\nb.wav,7\nc.wav,x7\n")])


def test_a_table_on_top_of_a_folder_is_read_but_not_one_that_melpatch_wrote(tmp_path, capsys):
    corpus_folder = tmp_path / "corpus"
    sound(corpus_folder / "audio" / "x" / "a.wav")
    sound(corpus_folder / "audio" / "x" / "b.wav")
    manifest = table(corpus_folder / "manifest.csv", "path,label,split\naudio/x/a.wav,dog,Test\n")
    corpus, told = load_told(capsys, corpus_folder)
    assert seen(corpus) == [("a.wav", ("dog",), "test", 0.0, 0.25)]
    assert "manifest.csv on top of it is read; it lists 1 of 2 files" in told
    write_corpus(corpus, manifest)
    corpus, told = load_told(capsys, corpus_folder)
    assert len(corpus.clips) == 2
    assert "manifest.csv is not used; give it instead of its folder" in told


def test_paths_may_be_relative_to_the_current_folder_or_to_the_folder_of_the_sound(
    tmp_path, capsys, monkeypatch
):
    sound(tmp_path / "rec" / "a.wav")
    sound(tmp_path / "set" / "audio" / "b.wav")
    monkeypatch.chdir(tmp_path)
    out = table(tmp_path / "out" / "x.csv", "path\nrec/a.wav\n")
    meta = table(tmp_path / "set" / "meta" / "list.csv", "path\nb.wav\n")
    for path, folder in ((out, tmp_path), (meta, tmp_path / "set" / "audio")):
        corpus, told = load_told(capsys, path)
        assert corpus.clips[0].path.resolve().is_relative_to(folder)
        assert "its paths are relative to" in told
