"""Tiny Parquet files as Hugging Face's datasets writes them: sound files in rows, classes as numbers."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet
from tiny_wav import RATE, wav

CLASSES = ("cat", "dog", "owl")
SOUND = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_parquet(path: Path, columns: dict, features: dict, **how) -> Path:
    """Write columns with Hugging Face's description of them."""
    about = {"info": {"features": features}}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(about)})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, **{"row_group_size": 4, **how})
    return path


def write_clips(path: Path, numbers: Sequence[int], **how) -> Path:
    """Write the sounds of some numbers, with classes and speakers in turn."""
    columns = {
        "audio": pa.array([{"bytes": wav(n), "path": f"{n}.wav"} for n in numbers], type=SOUND),
        "label": pa.array([n % 3 for n in numbers]),
        "speaker_id": [f"speaker {n % 2}" for n in numbers],
        "begin_time": [100.0 + n for n in numbers],
    }
    features = {
        "audio": {"_type": "Audio", "sampling_rate": RATE},
        "label": {"_type": "ClassLabel", "names": list(CLASSES)},
    }
    return write_parquet(path, columns, features, **how)


def write_dataset(folder: Path) -> Path:
    """Write a data set of two splits, one of which is in two files."""
    write_clips(folder / "data" / "train-00000-of-00002.parquet", range(6))
    write_clips(folder / "data" / "train-00001-of-00002.parquet", range(6, 9), compression="zstd")
    write_clips(
        folder / "data" / "test-00000-of-00001.parquet",
        range(9, 12),
        compression="none",
        use_dictionary=False,
    )
    return folder
