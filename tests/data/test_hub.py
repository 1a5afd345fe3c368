"""Data sets on the Hugging Face Hub, from a made-up one behind its protocol."""

import sys

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from parquet_files import write_dataset
from tiny_shards import empty_cache, shards

from melpatch.data import hub
from melpatch.data.manifest import load_corpus
from melpatch.errors import DataError


class Hub(MemoryFileSystem):
    """A file system in memory that is called hf, and counts what it sends."""

    protocol = "hf"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs: list = [""]  # noqa: RUF012
    sent: list = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("hf://", "memory://"))

    def get_file(self, rpath, lpath, callback=None, **kwargs):
        self.sent.append(rpath.rpartition("/")[2])
        super().get_file(rpath, lpath, callback=callback, **kwargs)


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Return the empty Hub; what is fetched from it goes into an empty cache."""
    empty_cache(tmp_path, monkeypatch)
    hub.fetched_dataset.cache_clear()
    fsspec.register_implementation("hf", Hub, clobber=True)
    system = fsspec.filesystem("hf")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    system.sent.clear()
    yield system
    forget()


def forget():
    """Take the made-up file system out of fsspec's list."""
    sys.modules["fsspec.registry"]._registry.pop("hf", None)


@pytest.fixture
def dataset(system, tmp_path):
    system.put(str(write_dataset(tmp_path / "set")), "/datasets/me/set", recursive=True)
    system.pipe("/datasets/me/set/README.md", b"# A set")
    return "hf://datasets/me/set"


def test_parquet_is_fetched_once_and_read(system, dataset, tmp_path):
    corpus = load_corpus([dataset])
    assert corpus.splits == {"test": 3, "train": 9}
    assert corpus.name == "set"
    # The keys are those of a copy that was downloaded.
    assert corpus.clips[0].key == load_corpus([tmp_path / "set"]).clips[0].key
    assert len(system.sent) == 3
    hub.fetched_dataset.cache_clear()
    assert load_corpus([f"{dataset}/"]).clips == corpus.clips
    assert len(system.sent) == 3


def test_a_data_set_that_has_changed_is_fetched_again(system, dataset):
    load_corpus([dataset])
    system.rm("/datasets/me/set/data/test-00000-of-00001.parquet")
    hub.fetched_dataset.cache_clear()
    assert load_corpus([dataset]).splits == {"train": 9}


def test_shards_there_are_remote_shards(system, tmp_path):
    system.put(str(shards(tmp_path)), "/datasets/me/shards", recursive=True)
    corpus = load_corpus(["hf://datasets/me/shards"])
    assert len(corpus.clips) == 10
    assert corpus.clips[0].url.startswith("hf://datasets/me/shards/shard-")


def test_what_does_not_fit_is_not_fetched(system, dataset, monkeypatch):
    monkeypatch.setenv("MELPATCH_CACHE_GIB", "0.00001")
    with pytest.raises(DataError, match=r"takes 0.0 GiB, but the cache keeps .*MELPATCH_CACHE_GIB"):
        load_corpus([dataset])
    assert system.sent == []


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (
            {"README.md": {"size": 1}},
            "holds no Parquet and no tar file; .*me/set@refs/convert/parquet",
        ),
        (
            {"../../x.parquet": {"size": 1}},
            r"lists a file '\.\./\.\./x\.parquet', which is no plain",
        ),
        ({"a\\..\\x.parquet": {"size": 1}}, "which is no plain name"),
        ({"x.parquet": {"size": None}}, "does not state the size of x.parquet"),
        ({"x.parquet": {"size": 9, "lfs": {"sha256": "0" * 64}}}, "does not exist"),
    ],
)
def test_what_the_server_lists_is_not_trusted(system, monkeypatch, tmp_path, listed, message):
    root = "/datasets/me/set"
    about = {f"{root}/{name}": entry for name, entry in listed.items()}
    monkeypatch.setattr(Hub, "find", lambda *_, **__: about)
    with pytest.raises(DataError, match=message):
        load_corpus(["hf://datasets/me/set"])
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".parquet"]


def test_other_content_than_was_listed_is_not_kept(system, dataset, monkeypatch, tmp_path):
    place = "/datasets/me/set/data/test-00000-of-00001.parquet"
    size = system.info(place)["size"]
    about = {place: {"size": size, "lfs": {"sha256": "0" * 64}}}
    monkeypatch.setattr(Hub, "find", lambda *_, **__: about)
    with pytest.raises(DataError, match=f"received {size} bytes other than were listed"):
        load_corpus([dataset])
    assert not [*(tmp_path / "cache").rglob("*.parquet")]


def test_without_the_library_one_line_says_what_to_install(system, monkeypatch):
    forget()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        DataError, match=r"a library for hf:// is missing; pip install 'melpatch\[hub\]'"
    ):
        load_corpus(["hf://datasets/me/set"])
