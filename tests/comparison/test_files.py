"""Fingerprints hang on what is listed and on bytes, and on nothing that a copy or a cache changes."""

import errno
import os
import shutil

import fsspec
import pytest
from tiny_shards import empty_cache, shards

from melpatch.comparison.files import of_clips
from melpatch.data.manifest import load_corpus
from melpatch.data.sound import decode


def test_a_copy_of_shards_has_their_fingerprint(tmp_path):
    packed = shards(tmp_path / "here")
    before = of_clips(str(packed), "split")
    copy = shutil.copytree(packed, tmp_path / "copy")
    for file in copy.iterdir():
        os.utime(file, (1, 1))
    assert of_clips(str(copy), "split") == before


def test_remote_shards_have_a_fingerprint_whether_or_not_they_are_in_the_cache(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("MELPATCH_PROTOCOLS", "memory")
    cache = empty_cache(tmp_path, monkeypatch)
    url = f"memory://{tmp_path.name}/shards"
    fsspec.filesystem("memory").put(str(shards(tmp_path / "shards")), url, recursive=True)
    before = of_clips(url, "split")
    for clip in load_corpus([url]).clips:
        decode(clip, 16_000)
    assert [*cache.glob("*/*.tar")]
    assert of_clips(url, "split") == before


def test_a_file_that_cannot_be_read_now_is_no_other_file(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(b"sound")
    (tmp_path / "list.csv").write_text("path,split\na.wav,train\n")

    def unreachable(path):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    monkeypatch.setattr("melpatch.comparison.files.open_binary", unreachable)
    with pytest.raises(OSError, match="Stale file handle"):
        of_clips(str(tmp_path / "list.csv"), "split")
