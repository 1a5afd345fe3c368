"""AudioSet: two million clips of 10 s from YouTube with 527 labels, several per clip.

Three lists name the clips by video; ``class_labels_indices.csv`` names the classes. The training
set is the unbalanced and the balanced list (subset ``2m``), or the balanced list alone (``20k``);
the list ``eval`` is the test set. The audio may not be redistributed, so every copy lacks some
clips and has its own file names. Files are found by video anywhere below the root: ``VIDEO``,
``YVIDEO`` or ``VIDEO_30.000_40.000`` with any extension.

``20k-enhanced`` and ``2m-enhanced`` take training labels from PSLA's lists, in which a model has
added labels that the raters missed: ``20k-enhanced.json`` and ``2m-enhanced.json`` beside the
official lists. Published scores on 20k often use them. Test labels are unchanged, and so are those
of clips that are not in the enhanced list.

Source: Gemmeke et al. 2017, "Audio Set: an ontology and human-labeled dataset for audio events";
Gong, Chung and Glass 2021 (PSLA, arXiv 2102.01243).
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

from melpatch.data.row import one_label
from melpatch.data.sources import sound_files
from melpatch.datasets.base import Card, Entry, write_lines, write_noises
from melpatch.opening import LOG_BYTES, open_text, read_text

# The video in a file name: an optional Y, 11 characters, and optional times.
_STEM = re.compile(r"Y??([\w-]{11})(?:_[\d.]+)*")
_BALANCED = "balanced_train_segments"
_UNBALANCED = "unbalanced_train_segments"
_EVAL = "eval_segments"
_CLASSES = "class_labels_indices.csv"


def clips(root: Path, subset: str) -> list[Entry]:
    """Return the clips in the order of the lists, the balanced one first.

    Their labels are the display names of the classes.
    """
    with open_text(root / _CLASSES) as file:
        names = {row["mid"]: one_label(row["display_name"]) for row in csv.DictReader(file)}
    train = [_BALANCED]
    if subset.startswith("2m"):
        train.append(_UNBALANCED)
    labels = {part: dict(_listed(root / f"{part}.csv")) for part in (*train, _EVAL)}
    if subset.endswith("enhanced"):
        # Clips that are not in the enhanced list keep their labels.
        enhanced = _enhanced(root / f"{subset}.json")
        for part in train:
            known = labels[part].keys() & enhanced.keys()
            labels[part] |= {video: enhanced[video] for video in known}
    # Copies of the audio differ in their file names, so files are found by video.
    paths = _paths(root, {video for part in labels.values() for video in part})
    return [
        Entry(
            paths.get(video, f"{part}/{video}.wav"),
            ";".join(names[mid] for mid in mids.split(",")),
            "test" if part == _EVAL else "train",
            name=video,
        )
        for part, videos in labels.items()
        for video, mids in videos.items()
    ]


def video_of(stem: str) -> str:
    """Return the 11 characters of the video in a file name without extension, or ``""``."""
    match = _STEM.fullmatch(stem)
    if match is None:
        return ""
    return match.group(1)


def _listed(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the videos of an official list with their classes.

    A line is ``VIDEO, 30.000, 40.000, "/m/09x0r,/t/dd00088"``.
    """
    with open_text(path) as file:
        # The lists have a space after each comma, and three lines of comments at the top.
        for cells in csv.reader(file, skipinitialspace=True):
            if cells and not cells[0].startswith("#"):
                video, _, _, mids = cells
                yield video, mids


def _enhanced(path: Path) -> dict[str, str]:
    """Return the videos of PSLA's list with their classes.

    The list is ``{"data": [{"wav": ..., "labels": "/m/09x0r,..."}]}``.
    """
    data = json.loads(read_text(path, LOG_BYTES))["data"]
    return {video_of(Path(item["wav"]).stem): item["labels"] for item in data}


def _paths(root: Path, wanted: set[str]) -> dict[str, str]:
    """Return the path of each wanted video below the root, the first one if there are several."""
    paths: dict[str, str] = {}
    for path in sound_files(root):
        video = video_of(Path(path).stem)
        if video in wanted:
            paths.setdefault(video, path)
    return paths


def fake(root: Path) -> None:
    """Write one or two clips of each list, named in various ways, one with enhanced labels."""
    write_lines(
        root / _CLASSES,
        "index,mid,display_name",
        '0,/m/09x0r,"Speech"',
        '1,/m/05zppz,"Male speech, man speaking"',
    )
    lists = {
        _BALANCED: {"--PJHxphWEs": "/m/09x0r", "Yab_cdefghi": "/m/05zppz"},
        _UNBALANCED: {"---1_cCGK4M": "/m/09x0r,/m/05zppz"},
        _EVAL: {"-0DdlOuIFUI": "/m/09x0r,/m/05zppz"},
    }
    head = [
        "# Segments csv created Sun Mar  5 10:54:25 2017",
        "# num_ytids=2",
        "# YTID, start_seconds, end_seconds, labels",
    ]
    for part, videos in lists.items():
        write_lines(
            root / f"{part}.csv",
            *head,
            *(f'{name}, 30.000, 40.000, "{mids}"' for name, mids in videos.items()),
        )
    enhanced = {"data": [{"wav": "/audio/--PJHxphWEs_30.000.flac", "labels": "/m/09x0r,/m/05zppz"}]}
    for subset in ("20k-enhanced", "2m-enhanced"):
        (root / f"{subset}.json").write_text(json.dumps(enhanced), encoding="utf-8")
    write_noises(root, ["balanced/Y--PJHxphWEs.wav", "balanced/Yab_cdefghi.flac"])
    write_noises(
        root, ["unbalanced/00/---1_cCGK4M_30.000_40.000.wav", "eval/-0DdlOuIFUI_30000.flac"]
    )


CARD = Card(
    name="audioset",
    summary="Sounds of YouTube videos: speech, music, animals, machines and everything else.",
    licence="CC-BY-4.0 (the lists; the audio belongs to its makers)",
    size="2m: 2063949 clips of up to 10 s, 0.7 TB as 16-kHz WAV; 20k: 22160 clips; "
    "20371 for the test",
    metric="mAP",
    splits=("train", "test"),
    labels=(),
    subsets=("2m", "20k", "2m-enhanced", "20k-enhanced"),
    download="fetch balanced_train_segments.csv, unbalanced_train_segments.csv, eval_segments.csv "
    "and class_labels_indices.csv from https://research.google.com/audioset/download.html, get the "
    "audio from YouTube or from someone who has a copy, and give a folder that contains the lists "
    "and, in any sub-folders, the audio; for the enhanced labels put lists from "
    "https://github.com/YuanGongND/psla there as 20k-enhanced.json and 2m-enhanced.json",
    clips=clips,
    fake=fake,
)
__registered__ = "CARD"
