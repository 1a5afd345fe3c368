"""Parquet files that would fill the memory or take for ever are refused before they do."""

import struct

import pyarrow as pa
import pytest
from parquet_files import SOUND, write_clips, write_parquet
from pyarrow import parquet

from melpatch.data import parquet as reader
from melpatch.data import parquet_cells, parquet_sound
from melpatch.data.manifest import load_corpus
from melpatch.errors import DataError


def refused(path, message):
    with pytest.raises(DataError, match=message) as caught:
        load_corpus([path])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("codec", ["zstd", "gzip", "snappy", "brotli"])
def test_pages_that_decompress_to_far_more_are_not_decoded(tmp_path, monkeypatch, codec):
    monkeypatch.setattr(reader, "_MOST_IN_BATCH", 1 << 20)
    zeros = pa.array([{"bytes": bytes(5 << 20), "path": "a.wav"}], type=SOUND)
    path = write_parquet(tmp_path / "x.parquet", {"audio": zeros}, {}, compression=codec)
    if codec == "snappy":
        # It compresses by 20 at most, so it is decoded: no bomb, but no sound either.
        refused(path, "begins with nothing but zeros")
    else:
        refused(path, r"damaged, .*bytes of column audio.bytes would become 5,\d+,\d+\)")


def repeated(path, rows, **names):
    """Write one value of a mebibyte that a dictionary repeats in all rows."""
    value = pa.array([bytes(range(256)) * 4096])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows), value)
    sound = pa.StructArray.from_arrays([column], names=["bytes"])
    return write_parquet(path, {"audio": sound}, {}, row_group_size=rows)


def test_a_value_that_a_dictionary_repeats_is_not_repeated(tmp_path, monkeypatch):
    path = repeated(tmp_path / "x.parquet", 4000)
    assert path.stat().st_size < 3 << 20
    refused(path, r"bytes become more than 2\d\d,\d+,\d+ of sound, as no recordings do")
    # A list of its clips opens it without that look.
    (tmp_path / "x.csv").write_text("path,offset,size,crc32\nx.parquet,0,1048576,1\n")
    monkeypatch.setattr(parquet_sound, "_MOST_SOUND", 20 << 20)
    refused(tmp_path / "x.csv", "row group 0 holds more than 0 GiB of sound; write it again with")


def test_a_text_that_a_dictionary_repeats_takes_room_once(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_cells, "_MOST_TEXT", 64 << 20)
    text = pa.array(["x" * (1 << 19)])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000), text)
    names = [f"{number}.wav" for number in range(10_000)]
    table = pa.table({"path": names, "label": column.dictionary_encode()})
    parquet.write_table(table, tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", "holds more text than any list of clips")


def test_more_rows_than_the_file_has_bits_are_refused(tmp_path):
    parquet.write_table(pa.table({"path": pa.nulls(1 << 20, pa.string())}), tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", r"bytes state 1,048,576 rows")


def test_row_groups_that_are_too_large_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_MOST_DECODED", 10_000)
    refused(
        write_clips(tmp_path / "x.parquet", range(8), row_group_size=8),
        "row group 0 holds 0.0 GiB, .*write it again with smaller row groups",
    )
    monkeypatch.undo()
    monkeypatch.setattr(parquet_sound, "_MOST_SOUND", 10_000)
    refused(tmp_path / "x.parquet", "holds more than 0 GiB of sound; write it again with smaller")


def footer(depth):
    """Return the description of a Parquet file whose one column is nested so deeply."""
    element = b"\x35\x02" + b"\x18\x01a" + b"\x15\x02" + b"\0"  # optional, a name, one child
    leaf = b"\x15\x0c" + b"\x25\x02" + b"\x18\x01x" + b"\0"
    size = depth + 1
    varint = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14])
    return b"\x15\x02" + b"\x19\xfc" + varint + element * depth + leaf + b"\0"


@pytest.mark.parametrize(
    ("depth", "message"), [(40, "nested too deeply"), (90_000, "a list of 90,001")]
)
def test_schemas_that_are_nested_without_end_are_refused(tmp_path, depth, message):
    content = footer(depth)
    length = struct.pack("<I", len(content))
    (tmp_path / "x.parquet").write_bytes(b"PAR1" + content + length + b"PAR1")
    refused(tmp_path / "x.parquet", message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1", "it does not end like a Parquet file"),
        (b"PAR1" + bytes(20), "it does not end like a Parquet file"),
        (b"PAR1\xff\xff\xff\x7fPAR1", "it states a footer of 2,147,483,647 bytes"),
        (b"PAR1" + b"\x1c" * 99 + b"\x63\0\0\0PAR1", "nested too deeply"),
        (b"PAR1" + b"\x19\xfc" + b"\xff" * 20 + b"\x16\0\0\0PAR1", "a number of too many bytes"),
    ],
)
def test_what_only_begins_like_parquet_is_one_line(tmp_path, content, message):
    (tmp_path / "x.parquet").write_bytes(content)
    refused(tmp_path / "x.parquet", message)
