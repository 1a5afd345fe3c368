import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melpatch import registry
from melpatch.cli import main
from melpatch.commands import pack
from melpatch.commands.prepare import Config, run
from melpatch.data.clip import clip_key
from melpatch.data.manifest import load_corpus
from melpatch.data.sound import decode
from melpatch.datasets import esc50, fsd50k
from melpatch.datasets.base import write_lines, write_noises
from melpatch.errors import ConfigError, DataError


def sound(path, seconds=1.0, rate=8000, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(
        path, np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate)), rate
    )


@pytest.fixture
def birds(tmp_path):
    for label in ("wren", "robin"):
        for index in range(3):
            sound(
                tmp_path / "birds" / label / f"{index}.wav",
                seconds=index + 1,
                rate=8000 * (index + 1),
                seed=10 * index + len(label),
            )
    return tmp_path / "birds"


def test_prepare_tells_what_is_there_and_writes_it(birds, tmp_path, capsys):
    out = tmp_path / "out" / "corpus.csv"
    run(Config(sources=(str(birds),), out=out, workers=0))
    told = " ".join(capsys.readouterr().out.split())
    for words in (
        "birds clips 6 hours 0.003 seconds 1.00 shortest, 2.00 median, 3.00 longest",
        "sampling rates 8000 Hz: 2, 16000 Hz: 2, 24000 Hz: 2",
        "splits (none): 6",
        "labels 2 clips of each robin: 3, wren: 3 unlabelled 0",
        "rejected 0",
    ):
        assert words in told
    assert load_corpus([out]).clips == load_corpus([birds]).clips
    assert {path.name for path in out.parent.iterdir()} == {"corpus.csv", ".corpus.csv.digest"}


def test_prepare_lists_bad_files_beside_the_corpus(birds, tmp_path, capsys):
    (birds / "wren" / "broken.wav").write_bytes(b"RIFF, but no more")
    out = tmp_path / "corpus.csv"
    run(Config(sources=(str(birds),), out=out, workers=0))
    captured = capsys.readouterr()
    assert "rejected 1" in " ".join(captured.out.split())
    assert "1 clip is left out" in captured.err
    (row,) = csv.DictReader((tmp_path / "corpus.rejected.csv").open(encoding="utf-8"))
    assert row["path"] == str(birds / "wren" / "broken.wav")
    assert "libsndfile" in row["reason"]


def damaged(folder):
    """Make a corpus of whole and damaged files; return the reasons for the damaged ones."""
    for name in ("good", "other", "rotten", "cut"):
        sound(folder / "a" / f"{name}.flac", seconds=4.0, seed=len(name))
    content = bytearray((folder / "a" / "rotten.flac").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(100)
    (folder / "a" / "rotten.flac").write_bytes(content)
    cut = folder / "a" / "cut.flac"
    cut.write_bytes(cut.read_bytes()[: len(content) // 2])
    wave = np.random.default_rng(5).uniform(-0.5, 0.5, 4 * 8000)
    wave[480] = np.nan
    soundfile.write(folder / "a" / "nan.wav", wave, 8000, subtype="FLOAT")
    return {
        "rotten.flac": "breaks off after",
        "cut.flac": "breaks off after",
        "nan.wav": "NaN at 0.06 s",
    }


def rows_of(path):
    with path.open(encoding="utf-8") as file:
        return {Path(row["path"]).name: row for row in csv.DictReader(file)}


def test_what_no_later_command_can_read_is_rejected_with_the_place(tmp_path, capsys):
    reasons = damaged(tmp_path / "data")
    out = tmp_path / "corpus.csv"
    run(Config(sources=(str(tmp_path / "data"),), out=out, workers=0))
    listed = rows_of(tmp_path / "corpus.rejected.csv")
    assert listed.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in listed[name]["reason"]
    told = " ".join(capsys.readouterr().out.split())
    assert "clips 2 hours 0.002" in told
    assert "rejected 3 clips read whole files" in told
    for clip in load_corpus([out]).clips:
        assert len(decode(clip, 8000)) == 4 * 8000


def test_headers_only_says_so(tmp_path, capsys):
    damaged(tmp_path / "data")
    config = Config(
        sources=(str(tmp_path / "data"),), out=tmp_path / "out.csv", workers=0, headers_only=True
    )
    run(config)
    captured = capsys.readouterr()
    assert "rejected 0 clips read headers only" in " ".join(captured.out.split())
    assert "only headers were read: damage is not found" in captured.err
    with pytest.raises(ConfigError, match="salvage = True; allowed: without headers_only"):
        replace(config, salvage=True)


def test_salvage_keeps_the_good_stretches_and_lists_what_is_left_out(tmp_path, capsys):
    damaged(tmp_path / "data")
    out = tmp_path / "corpus.csv"
    run(Config(sources=(str(tmp_path / "data"),), out=out, workers=0, salvage=True))
    assert "3 damaged files are kept in part, listed in" in capsys.readouterr().err
    listed = rows_of(tmp_path / "corpus.salvaged.csv")
    reason = listed["nan.wav"]["reason"]
    assert reason == "holds NaN at 0.06 s; 3.44 s are kept, left out: 0.00 to 0.56 s"
    assert "all from" in listed["cut.flac"]["reason"]
    corpus = load_corpus([out])
    assert len({clip.key for clip in corpus.clips}) == len(corpus.clips) > 4
    for clip in corpus.clips:
        wave = decode(clip, 8000)
        assert np.isfinite(wave).all()
        assert len(wave) == pytest.approx(clip.duration * 8000, abs=1)
    # What was written is good, so that preparing it again rejects nothing.
    run(Config(sources=(str(out),), out=tmp_path / "again.csv", workers=0))
    assert load_corpus([tmp_path / "again.csv"]).clips == corpus.clips


def test_rows_beyond_the_end_of_their_file_are_rejected(tmp_path):
    sound(tmp_path / "a.wav", seconds=2.0)
    (tmp_path / "list.csv").write_text("path,start,duration\na.wav,0,1\na.wav,1.5,1\nb.wav,0,1\n")
    run(Config(sources=(str(tmp_path / "list.csv"),), out=tmp_path / "out.csv", workers=0))
    listed = rows_of(tmp_path / "out.rejected.csv")
    assert listed["a.wav"]["reason"] == "ends at 2.00 s, before 2.50 s"
    assert listed["b.wav"]["reason"] == "does not exist"


def test_clips_of_shards_are_decoded_too(tmp_path):
    for name in range(3):
        sound(tmp_path / "data" / f"{name}.wav", seed=name)
    shards = tmp_path / "shards"
    pack.run(pack.Config(sources=(str(tmp_path / "data"),), out=shards, workers=0))
    (shard,) = shards.glob("*.tar")
    clip = load_corpus([shards]).clips[1]
    content = bytearray(shard.read_bytes())
    content[clip.offset + clip.size // 2] ^= 255
    shard.write_bytes(content)
    run(Config(sources=(str(shards),), out=tmp_path / "out.csv", workers=0))
    (bad,) = rows_of(tmp_path / "out.rejected.csv").values()
    assert bad["path"] == clip.location
    assert "checksum" in bad["reason"]


def test_odd_clips_are_told_and_listed(tmp_path, capsys):
    for label in ("Angry", "angry"):
        for number in range(3):
            sound(tmp_path / "data" / label / f"{number}.wav", seed=10 * number + len(label))
    soundfile.write(tmp_path / "data" / "angry" / "silent.wav", np.zeros(8000), 8000)
    sound(tmp_path / "data" / "angry" / "copy.wav", seed=5)
    run(Config(sources=(str(tmp_path / "data"),), out=tmp_path / "out.csv", workers=0))
    told = capsys.readouterr().err
    assert "1 file is silent, such as" in told
    assert "nearly identical" in told
    assert "labels 'Angry', 'angry' differ by case only" in told
    kinds = {name: row["kind"] for name, row in rows_of(tmp_path / "out.quality.csv").items()}
    assert kinds["silent.wav"] == "silent"


def test_prepare_warns_of_recordings_in_two_splits(tmp_path, capsys):
    for name in ("a.wav", "b.wav"):
        sound(tmp_path / name)
    sound(tmp_path / "c.wav", seed=1)
    listed = tmp_path / "list.csv"
    listed.write_text("path,species,fold\na.wav,wren,1\nb.wav,wren,2\nc.wav,,2\n", encoding="utf-8")
    config = Config(
        sources=(str(listed),),
        out=tmp_path / "out.csv",
        split_column="fold",
        label_column="species",
        workers=0,
    )
    run(config)
    captured = capsys.readouterr()
    assert "1 recording is in more than one split" in captured.err
    assert "a.wav (1)" in captured.err
    assert "unlabelled 1" in " ".join(captured.out.split())
    assert load_corpus([tmp_path / "out.csv"]).splits == {"1": 1, "2": 2}


def test_prepare_shortens_long_lists(tmp_path, capsys):
    for index in range(20):
        sound(tmp_path / "many" / f"label{index:02}" / "x.wav", seconds=0.1, seed=index)
    run(Config(sources=(str(tmp_path / "many"),), out=tmp_path / "out.csv", workers=0))
    told = " ".join(capsys.readouterr().out.split())
    assert "label10: 1, ..., label19: 1" in told
    assert "label11" not in told


def test_prepare_refuses_a_negative_number_of_workers():
    with pytest.raises(ConfigError, match="workers = -1; allowed: 0 to 1024"):
        Config(sources=("x",), workers=-1)


def test_prepare_warns_of_speakers_in_two_splits(tmp_path, capsys):
    for number in range(4):
        sound(tmp_path / f"{number}.wav", seed=number)
    listed = tmp_path / "list.csv"
    listed.write_text(
        "path,label,split,speaker\n0.wav,a,1,ann\n1.wav,b,2,ann\n2.wav,a,2,bob\n3.wav,b,1,eve\n"
    )
    run(Config(sources=(str(listed),), out=tmp_path / "out.csv", workers=0))
    assert (
        "1 group (column group or speaker) is in more than one split, such as 'ann'"
        in capsys.readouterr().err
    )
    assert [clip.group for clip in load_corpus([tmp_path / "out.csv"]).clips] == [
        "ann",
        "ann",
        "bob",
        "eve",
    ]


@pytest.fixture
def esc(tmp_path):
    esc50.fake(tmp_path / "esc50")
    return tmp_path / "esc50"


@pytest.mark.parametrize(
    ("name", "subset", "written"),
    [("esc50", "", "esc50.csv"), ("ESC50", "50", "esc50-50.csv"), ("Esc50", "10", "esc50-10.csv")],
)
def test_a_dataset_is_prepared_by_name_and_its_list_named_after_it(
    esc, tmp_path, monkeypatch, name, subset, written
):
    monkeypatch.chdir(tmp_path)  # where a folder of the dataset's name lies as well
    run(Config(sources=(name,), root=esc, subset=subset, workers=0))
    corpus = load_corpus([written])
    assert len(corpus.clips) == (5 if subset == "10" else 10)
    assert corpus.clips[0].key == clip_key("esc50", "audio/1-1001-A-0.wav", 0.0)


@pytest.fixture
def card(monkeypatch):
    """The card of the made-up scenes, of which few are made."""
    scenes = registry.find("datasets", "scenes")
    few = replace(scenes, make=scenes.fake, size="42 clips")
    monkeypatch.setattr("melpatch.datasets.scenes.CARD", few)
    return few


@pytest.mark.parametrize("exists", [False, True])
def test_a_made_up_dataset_is_made_where_its_folder_is_absent_or_empty(
    card, tmp_path, capsys, exists
):
    root = tmp_path / "scenes"
    if exists:
        root.mkdir()
    run(Config(sources=("scenes",), root=root, out=tmp_path / "out.csv", workers=0))
    assert f"{root}: making scenes: 42 clips\n" in capsys.readouterr().err
    assert len(load_corpus([tmp_path / "out.csv"]).clips) == 42
    # Once it is there, it is read only.
    run(Config(sources=("scenes",), root=root, out=tmp_path / "out.csv", workers=0))
    assert "making" not in capsys.readouterr().err


def test_nothing_is_made_into_a_folder_with_something_else(card, tmp_path):
    (tmp_path / "mine.wav").touch()
    with pytest.raises(
        DataError, match=r"corpus\.csv: cannot be read .*; nothing to fetch: .*empty"
    ):
        run(Config(sources=("scenes",), root=tmp_path, out=tmp_path / "out.csv", workers=0))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.wav"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"subset": "50"}, "subset = '50'; allowed: none for scenes"), ({}, r"--out .*exists")],
)
def test_what_is_refused_is_refused_before_a_dataset_is_made(card, tmp_path, settings, message):
    out = tmp_path / "mine.csv"
    out.write_text("my notes")
    with pytest.raises(ConfigError, match=message):
        run(Config(sources=("scenes",), root=tmp_path / "scenes", out=out, workers=0, **settings))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


def test_a_folder_of_a_datasets_name_is_a_folder_without_a_root(esc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(Config(sources=("esc50",), workers=0))
    assert load_corpus(["corpus.csv"]).labels == ("audio",)


def test_so_is_one_whose_name_has_a_dash_for_the_underscore(esc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    esc.rename("speech-commands")
    run(Config(sources=("speech-commands",), workers=0))
    assert load_corpus(["corpus.csv"]).labels == ("audio",)


def test_bad_and_missing_files_of_a_dataset_are_listed_apart(esc, tmp_path, capsys):
    (esc / "audio/1-1001-A-0.wav").unlink()
    (esc / "audio/1-2001-B-47.wav").write_bytes(b"RIFF")
    run(Config(sources=("esc50",), root=esc, out=tmp_path / "esc.csv", workers=0))
    captured = capsys.readouterr()
    assert "1 clip is left out, listed in" in captured.err
    assert "1 of 10 clips is missing, listed in" in captured.err
    told = " ".join(captured.out.split())
    assert "clips 8" in told
    assert "rejected 1 clip read whole files missing 1 of 10 licence CC-BY-NC-3.0" in told
    for name, file in [
        ("esc.missing.csv", "1-1001-A-0.wav"),
        ("esc.rejected.csv", "1-2001-B-47.wav"),
    ]:
        (row,) = csv.DictReader((tmp_path / name).open(encoding="utf-8"))
        assert row["path"] == str(esc / "audio" / file)


def test_lists_go_when_nothing_is_bad_or_missing_any_more_and_those_of_others_stay(esc, tmp_path):
    (esc / "audio/1-1001-A-0.wav").unlink()
    (esc / "audio/1-2001-B-47.wav").write_bytes(b"RIFF")
    for name in ("one", "other"):
        run(Config(sources=("esc50",), root=esc, out=tmp_path / f"{name}.csv", workers=0))
    esc50.fake(esc)
    run(Config(sources=("esc50",), root=esc, out=tmp_path / "one.csv", workers=0))
    assert {path.name for path in tmp_path.glob("*.csv")} == {
        "one.csv", "other.csv", "other.missing.csv", "other.rejected.csv"
    }  # fmt: skip


@pytest.mark.parametrize("bad", [False, True])
def test_labels_that_no_clip_here_has_are_named(tmp_path, capsys, bad):
    fsd50k.fake(tmp_path)
    for clip in ("dev_audio/10", "eval_audio/50"):
        path = tmp_path / f"FSD50K.{clip}.wav"
        path.write_bytes(b"RIFF") if bad else path.unlink()
    run(Config(sources=("fsd50k",), root=tmp_path, out=tmp_path / "out.csv", workers=0))
    named = "2 of 5 labels have no clip here and cannot be learnt or scored: Animal; Bark\n"
    assert named in capsys.readouterr().err


def test_of_many_such_labels_some_are_named(tmp_path, capsys):
    names = [f"id1{number:04}" for number in range(20)]
    write_lines(tmp_path / "iden_split.txt", *(f"1 {name}/video/00001.wav" for name in names))
    write_noises(tmp_path, [f"wav/{names[0]}/video/00001.wav"])
    run(Config(sources=("voxceleb1",), root=tmp_path, out=tmp_path / "out.csv", workers=0))
    told = capsys.readouterr().err
    assert "19 of 20 labels have no clip here" in told
    assert f"{names[12]}; ...\n" in told


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"sources": ("esc50",)},
            "root = None; allowed: the folder that holds esc50; fetch https://",
        ),
        (
            {"sources": ("esc51",), "root": Path("x")},
            "sources = 'esc51'; allowed: with --root one name of audioset, esc50",
        ),
        (
            {"sources": ("esc50", "fsd50k"), "root": Path("x")},
            "sources = 'esc50 fsd50k'; allowed: with --root one name",
        ),
        (
            {"sources": ("birds",), "subset": "10"},
            "subset = '10'; allowed: with --root and the name of a public dataset",
        ),
        (
            {"sources": ("esc50",), "root": Path(), "subset": "100"},
            "subset = '100'; allowed: 50, 10",
        ),
    ],
)
def test_a_root_goes_with_one_name_and_a_subset_with_a_root(
    tmp_path, monkeypatch, settings, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        run(Config(**settings))


def test_a_corpus_of_the_users_or_with_work_in_it_is_not_written_over(birds, tmp_path, capsys):
    out = tmp_path / "corpus.csv"
    out.write_text("path,label\nbirds/wren/a.wav,mine\n")
    words = ["prepare", str(birds), "--workers", "0", "--out", str(out)]
    assert main(words) == 2
    assert "exists, and was not made by this command" in capsys.readouterr().err
    assert "mine" in out.read_text()
    assert main([*words, "--overwrite"]) == 0
    assert main(words) == 0
    # A label that was filled in would be lost.
    first = load_corpus([out]).clips[0].labels[0]
    out.write_text(out.read_text().replace(f",{first},", ",mine,"))
    assert main(words) == 2
    # So would a row that was taken out.
    assert main([*words, "--overwrite"]) == 0
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:-1]))
    assert main(words) == 2
    out.write_bytes(b"".join(lines).replace(f",{first},".encode(), b",mine,"))
    # An input is kept, whatever flag is given.
    assert main(["prepare", str(out), "--workers", "0", "--out", str(out), "--overwrite"]) == 2
    assert "is an input; give another file" in capsys.readouterr().err
    assert ",mine," in out.read_text()


def test_folds_are_drawn_of_whole_groups_and_written(tmp_path, capsys):
    rows = ["path,label,speaker,split"]
    for number in range(12):
        sound(tmp_path / f"{number}.wav", seconds=0.1, seed=number)
        rows.append(f"{number}.wav,{'ab'[number % 2]},s{number // 3},train")
    listed = tmp_path / "labels.csv"
    listed.write_text("\n".join(rows) + "\n", encoding="utf-8")
    out = tmp_path / "corpus.csv"
    config = Config(sources=(str(listed),), out=out, folds=2, group_column="speaker", workers=0)
    run(config)
    captured = capsys.readouterr()
    assert "splits 1: 6, 2: 6" in " ".join(captured.out.split())
    assert "groups 4, of 3 to 3 clips, median 3; 0 in more" in " ".join(captured.out.split())
    assert "splits train: 12 are replaced by 2 folds" in captured.err
    written = load_corpus([out])
    assert len({(clip.group, clip.split) for clip in written.clips}) == 4
    # A second time the command knows its own file.
    run(config)
    with pytest.raises(ConfigError, match=r"folds = 5; allowed: 2 to 4, since .* has 4 groups"):
        run(replace(config, folds=5))
    with pytest.raises(ConfigError, match="folds = 1; allowed: 2 or more"):
        replace(config, folds=1)


def test_folds_need_labels(tmp_path):
    sound(tmp_path / "birds" / "0.wav")
    config = Config(sources=(str(tmp_path / "birds"),), out=tmp_path / "a.csv", folds=2, workers=0)
    with pytest.raises(ConfigError, match="folds = 2; allowed: nothing, since no clip has a label"):
        run(config)
