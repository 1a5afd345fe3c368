"""Opening weight files: what they hold, and what is refused."""

import argparse
import pickle
import sys
import zipfile
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from melpatch.errors import CheckpointError, ConfigError
from melpatch.weight_files import is_weights, read_state, read_weights

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(1)}


class Code:
    def __reduce__(self):
        return print, ("this ran",)


def same(found):
    return found.keys() == TENSORS.keys() and all(
        torch.equal(found[name], TENSORS[name]) for name in TENSORS
    )


# ------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "saved",
    [
        TENSORS,
        {"model": TENSORS, "epoch": 3},
        {"state_dict": TENSORS},
        {f"module.{name}": value for name, value in TENSORS.items()},
        {"model": TENSORS, "optimizer": {}, "args": argparse.Namespace(batch_size=64)},
        {
            "iteration": 1,
            "model": TENSORS,
            "sampler": {"indexes": [np.arange(4)], "pointer": np.float64(2)},
        },
    ],
    ids=["plain", "model", "state_dict", "parallel", "as MAE", "as PANNs"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_pickle_is_read_whatever_it_is_wrapped_in(saved, zipped, tmp_path):
    torch.save(saved, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    assert same(read_state(str(tmp_path / "weights.pth")))


def test_a_safetensors_file_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert same(read_state(str(tmp_path / "model.safetensors")))


def test_arrays_of_numpy_1_are_read(tmp_path):
    """As in the checkpoints of PANNs, which were written when numpy's modules had other names."""
    path = tmp_path / "weights.pth"
    torch.save(
        {"model": TENSORS, "sampler": np.arange(4)}, path, _use_new_zipfile_serialization=False
    )
    written = path.read_bytes()
    assert b"numpy._core.multiarray" in written or np.__version__ < "2"
    path.write_bytes(written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert same(read_state(str(path)))


def test_a_pickle_that_names_code_stays_closed(tmp_path, capsys):
    torch.save({"model": TENSORS, "extra": Code()}, tmp_path / "weights.pth")
    with pytest.raises(
        CheckpointError, match=r"would run code \(.*print\), so it stays closed; .*\.safetensors"
    ):
        read_state(str(tmp_path / "weights.pth"))
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("code", [False, True])
def test_a_pickle_that_torch_did_not_write_stays_closed_and_nobody_advises_to_open_it(
    code, tmp_path, capsys, recwarn
):
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"model": Code() if code else TENSORS}))
    with pytest.raises(
        CheckpointError, match=r"weights\.pth: not a readable torch file \(.*\.safetensors"
    ) as caught:
        read_state(str(path))
    assert "weights_only" not in str(caught.value)
    assert (capsys.readouterr().out, list(recwarn)) == ("", [])


@pytest.mark.parametrize("cut", [0, 10, -100])
def test_a_damaged_file_is_named(cut, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"weights\.pth: not a readable torch file") as caught:
        read_state(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("saved", [{"epoch": 3}, [torch.zeros(1)], {"model": {"lr": 0.1}}], ids=str)
def test_a_file_without_weights_is_named(saved, tmp_path):
    torch.save(saved, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_state(str(tmp_path / "weights.pth"))


def test_a_missing_file_is_named():
    for name in ("nowhere.pth", "nowhere.safetensors"):
        with pytest.raises(CheckpointError, match=f"{name}: no such file; give a weight file"):
            read_state(name)


@pytest.mark.parametrize(
    ("source", "weights"),
    [
        ("deit.pth", True),
        ("hf:a/b", True),
        ("odd", True),
        ("runs/a", False),
        ("named.pt", False),
        ("scratch", False),
    ],
)
def test_weights_are_told_from_runs(source, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd").write_bytes(b"a file without an ending")
    (tmp_path / "named.pt").mkdir()
    assert is_weights(source) == weights


# --------------------------------------------------------------------------------------------------------------- Hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub of one repository with the two files a test writes; returns the folder and what was asked for."""
    asked = []

    class EntryNotFoundError(Exception):
        pass

    def download(repo_id, filename):
        asked.append((repo_id, filename))
        if repo_id != "owner/name":
            raise OSError("401 Client Error.\n\nRepository Not Found")
        if not (tmp_path / filename).is_file():
            raise EntryNotFoundError("404 Client Error.\n\nEntry Not Found")
        return str(tmp_path / filename)

    errors, library = ModuleType("huggingface_hub.errors"), ModuleType("huggingface_hub")
    errors.EntryNotFoundError, library.hf_hub_download = EntryNotFoundError, download
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return tmp_path, asked


def test_a_repository_gives_its_safetensors_or_else_its_pickle(hub):
    folder, asked = hub
    torch.save(TENSORS, folder / "pytorch_model.bin")
    assert same(read_state("hf:owner/name"))
    files = [name for _, name in asked]
    beside = ["config.json", "preprocessor_config.json"]
    assert files == ["model.safetensors", "pytorch_model.bin", *beside]
    save_file(TENSORS, folder / "model.safetensors")
    (folder / "config.json").write_text('{"layer_norm_eps": 1e-12}', encoding="utf-8")
    weights = read_weights("hf:owner/name")
    assert same(weights.state)
    assert weights.facts == {"config": {"layer_norm_eps": 1e-12}}
    assert [name for _, name in asked[4:]] == ["model.safetensors", *beside]


def test_settings_that_cannot_be_fetched_now_are_not_taken_to_be_absent(hub, monkeypatch):
    """Without them the front end or the epsilon would be a guess."""
    folder, _ = hub
    save_file(TENSORS, folder / "model.safetensors")
    library = sys.modules["huggingface_hub"]
    download = library.hf_hub_download

    def offline(repo_id, filename):
        if filename == "config.json":
            raise OSError("no route to host\nat all")
        return download(repo_id, filename)

    monkeypatch.setattr(library, "hf_hub_download", offline)
    message = r"hf:owner/name: config\.json cannot be downloaded \(OSError, no route to host\)"
    with pytest.raises(CheckpointError, match=message):
        read_weights("hf:owner/name")


def test_a_file_of_a_repository_is_fetched_by_its_path(hub):
    folder, asked = hub
    (folder / "deep").mkdir()
    save_file(TENSORS, folder / "deep" / "b.safetensors")
    assert same(read_state("hf:owner/name/deep/b.safetensors"))
    assert asked == [("owner/name", "deep/b.safetensors")]


def test_what_the_hub_does_not_have_is_named(hub):
    with pytest.raises(
        CheckpointError, match=r"hf:owner/name: cannot be downloaded \(model\.safetensors: EntryNot"
    ) as one:
        read_state("hf:owner/name")
    assert "\n" not in str(one.value)
    with pytest.raises(
        CheckpointError, match=r"hf:nobody/name: cannot be downloaded .*401 Client Error"
    ):
        read_state("hf:nobody/name")


@pytest.mark.parametrize("name", ["hf:", "hf:name", "hf:/name", "hf:owner/"])
def test_a_name_that_is_none_is_refused(hub, name):
    with pytest.raises(ConfigError, match=r"allowed: hf:owner/name or hf:owner/name/FILE"):
        read_state(name)


def test_the_library_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ConfigError, match=r"hf:a/b needs huggingface_hub; pip install 'melpatch\[hub\]'"
    ):
        read_state("hf:a/b")


def test_torch_weights_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("melpatch.opening._SMALL_ARCHIVE", 1 << 16)
    torch.save({"weight": torch.zeros(1 << 20)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    read_state(str(tmp_path / "plain.pth"))
    with pytest.raises(
        CheckpointError, match=r"bomb\.pth: not a readable torch file .*would become"
    ):
        read_state(str(tmp_path / "bomb.pth"))


# -------------------------------------------------------------------------------------------- what lies beside


def test_the_teacher_of_a_student_and_a_teacher_is_read(tmp_path):
    content = {"student": {"module.a": torch.zeros(1)}, "teacher": TENSORS, "args": {"x": 1}}
    torch.save(content, tmp_path / "asit.pth")
    weights = read_weights(str(tmp_path / "asit.pth"))
    assert same(weights.state)
    assert weights.facts == {"args": {"x": 1}}


def test_a_folder_of_hugging_face_is_read_with_the_settings_in_it(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"hidden_size": 2}', encoding="utf-8")
    for source in (tmp_path, tmp_path / "model.safetensors"):
        assert is_weights(str(source))
        weights = read_weights(str(source))
        assert same(weights.state)
        assert weights.facts == {"config": {"hidden_size": 2}}
    # Beside a file of another name, the settings may be of another model.
    save_file(TENSORS, tmp_path / "other.safetensors")
    assert read_weights(str(tmp_path / "other.safetensors")).facts == {}


def test_damaged_settings_are_named(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"hidden_size": ', encoding="utf-8")
    message = r"config\.json: not readable settings .*; download it again"
    with pytest.raises(CheckpointError, match=message) as caught:
        read_weights(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_without_weights_is_none(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert not is_weights(str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.toml").touch()
    assert not is_weights(str(tmp_path))
