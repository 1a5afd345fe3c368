"""What every format of data holds to: it is documented and tested, and takes no file of another one for its own."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parquet_files import write_clips
from places import ROOT
from tiny_wav import wav, write_wavs

from melpatch import registry
from melpatch.data.manifest import load_corpus
from melpatch.data.recognition import format_of, formats
from melpatch.errors import MelpatchError

FORMATS = {type(form).__module__.rpartition(".")[2]: form for form in formats()}


def test_all_files_are_formats_with_a_description_and_tests():
    assert [*FORMATS] == registry.names("data/formats")
    pages = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for name, form in FORMATS.items():
        assert (ROOT / "tests" / "data" / "formats" / f"test_{name}.py").is_file()
        assert form.what.rpartition(" ")[2].removesuffix("'s") in pages


@pytest.mark.parametrize("content", [b"", b"\0" * 600, wav(0), b"path,label\na.wav,x\n", b"[1, 2]"])
def test_other_files_are_recognised_by_none(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert format_of(tmp_path / "x") is None


def test_what_is_no_file_is_recognised_by_none(tmp_path):
    assert format_of(tmp_path) is None
    assert format_of(tmp_path / "gone") is None


def test_a_file_is_recognised_whatever_its_name(tmp_path):
    write_clips(tmp_path / "x.csv", [0])
    assert format_of(tmp_path / "x.csv") is FORMATS["parquet"]


NEMO = {"audio_filepath": "0.wav", "duration": 0.1, "offset": 0, "label": "a"}
SOURCE = {"type": "file", "source": "0.wav", "channels": [0]}
CUT = {
    "type": "MonoCut",
    "start": 0,
    "duration": 0.1,
    "channel": 0,
    "supervisions": [{"speaker": "s", "custom": {"label": "a"}}],
    "recording": {"sources": [SOURCE], "sampling_rate": 8000, "transforms": None},
}
AST = {"data": [{"wav": "0.wav", "labels": "/m/a"}]}
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(value, path=()):
    """Yield the path of every value in nested ones."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))
        else:
            yield (*path, key)


def changed(value, path, new):
    """Return nested values with another one in a place."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_wavs(tmp_path_factory.mktemp("formats"), [0])


@pytest.mark.parametrize("record", [NEMO, CUT, AST], ids=["nemo", "lhotse", "ast_json"])
@settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck])
@given(data=st.data())
def test_any_value_in_any_place_is_read_or_refused_in_one_line(folder, record, data):
    place = data.draw(st.sampled_from([*places(record)]))
    odd = changed(record, place, data.draw(VALUES))
    # The first line says what it is; the second one is odd.
    lines = [odd] if record is AST else [record, odd]
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    try:
        corpus = load_corpus([folder / "x.jsonl"])
    except MelpatchError as error:
        refused = str(error)
    else:
        refused = "".join(bad.reason for bad in corpus.rejected)
        assert len(corpus.clips) + len(corpus.rejected) <= 2
    assert "\n" not in refused
