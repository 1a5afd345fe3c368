"""Opening weight files, and saying whose they are."""

import argparse
import math
import pickle
import sys
import zipfile
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from interop.inventories import ast, blank, cnn14, drawn, hugging_face, mae, timm
from safetensors.torch import save_file
from tiny_runs import settings

from melpatch.encoders.cnn14 import CNN14
from melpatch.encoders.vit import ViT
from melpatch.errors import CheckpointError, ConfigError
from melpatch.interop.base import is_weights, read_state, recognise, start_from_weights
from melpatch.objectives.classify import Classify
from melpatch.training.config import build

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
    assert asked == [("owner/name", "model.safetensors"), ("owner/name", "pytorch_model.bin")]
    save_file(TENSORS, folder / "model.safetensors")
    assert same(read_state("hf:owner/name"))
    assert asked[2:] == [("owner/name", "model.safetensors")]


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


# -------------------------------------------------------------------------------------------------------------- whose


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        (timm(distilled=True), "TimmViT"),
        (mae(), "TimmViT"),
        (mae() | {"decoder_blocks.0.attn.relative_position_bias_table": (49, 16)}, "TimmViT"),
        (hugging_face(), "HFViT"),
        (hugging_face(version=5, prefix="audio_spectrogram_transformer.", distilled=True), "HFViT"),
        ({name.removeprefix("module."): shape for name, shape in ast().items()}, "AST"),
        (cnn14(), "PANNs"),
    ],
)
def test_each_format_is_recognised_by_itself(shapes, found):
    assert type(recognise(shapes.keys())).__name__ == found


@pytest.mark.parametrize(
    ("keys", "family"),
    [
        (
            ["encoder_mask_emb", "post_extract_proj.weight", "encoder.layers.0.fc1.weight"],
            "MAE-AST",
        ),
        (["patch_embedding.weight", "encoder.layers.0.self_attn.grep_linear.weight"], "BEATs"),
        (
            ["modality_encoders.IMAGE.local_encoder.proj.weight", "blocks.0.attn.qkv.weight"],
            "data2vec 2.0 or EAT",
        ),
        (
            ["feature_extractor.conv_layers.0.0.weight", "encoder.layers.0.fc1.weight"],
            "wav2vec 2.0, HuBERT or WavLM",
        ),
        (["hubert.feature_extractor.conv_layers.0.conv.weight"], "wav2vec 2.0, HuBERT or WavLM"),
        ([*timm(), "freq_new_pos_embed", "time_new_pos_embed"], "PaSST"),
        (["model.teacher.encoder.blocks.0.attn.qkv.weight"], "ATST"),
        (["layers.0.blocks.0.attn.relative_position_bias_table"], "a Swin transformer or BEiT"),
    ],
)
def test_a_family_that_cannot_be_taken_is_named(keys, family):
    with pytest.raises(
        ConfigError, match=f"looks like {family} .*which no encoder here can take; allowed: AST or"
    ):
        recognise(set(keys))


def test_unknown_keys_are_shown():
    with pytest.raises(
        ConfigError, match=r"of an unknown format \(keys fc\.bias, fc\.weight\.\.\.\); allowed: "
    ):
        recognise({"fc.weight", "fc.bias"})


# -------------------------------------------------------------------------------------------------------------- start


def classifier(encoder):
    config = replace(settings(), objective=Classify.Config(), labels=("a", "b"), encoder=encoder)
    return build(replace(config, front_end=replace(config.front_end, n_mels=64)))


def plain(**changes):
    return ViT.Config(
        **{"embed_dim": 16, "depth": 2, "num_heads": 2, "positions": "learned", "columns": 6}
        | changes
    )


def test_the_encoder_is_filled_and_the_head_left(tmp_path):
    path = str(tmp_path / "vit.safetensors")
    state = {name: value.float() for name, value in drawn(timm(16, 2, patches=16)).items()}
    save_file(state, path)
    target = classifier(plain())
    head = {name: value.clone() for name, value in target.head.state_dict().items()}
    told = start_from_weights(target, path)
    assert told == (
        f"the encoder starts from {path}: a ViT under timm's names; 3 colours summed; positions 4 x 4 fitted to 4 x 6 "
        "(legacy); left out: head"
    )
    kernel = state["patch_embed.proj.weight"]
    assert torch.equal(target.encoder.projection.weight, kernel.sum(dim=1).flatten(1))
    assert all(torch.equal(value, target.head.state_dict()[name]) for name, value in head.items())
    assert "averaged" in start_from_weights(target, path, "mean", "bicubic")
    assert torch.equal(target.encoder.projection.weight, kernel.mean(dim=1).flatten(1))


def test_half_precision_becomes_single(tmp_path):
    state = {name: value.half() for name, value in drawn(timm(16, 2, patches=16)).items()}
    save_file(state, tmp_path / "vit.safetensors")
    target = classifier(plain())
    start_from_weights(target, str(tmp_path / "vit.safetensors"))
    assert {value.dtype for value in target.encoder.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("shapes", "encoder", "message"),
    [
        (
            cnn14(2, 64),
            plain(),
            "looks like CNN14 of PANNs .*, but the encoder is vit; use --encoder cnn14",
        ),
        (
            timm(16, 2),
            CNN14.Config(width=2),
            "looks like a ViT under .*, but the encoder is cnn14; use --encoder vit",
        ),
        (timm(32, 2), plain(), "width 32 and 2 blocks, but the encoder has"),
        ({"fc.weight": (1, 1)}, plain(), "weights of an unknown format"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(shapes, encoder, message, tmp_path):
    torch.save(
        {name: value.clone() for name, value in blank(shapes).items()}, tmp_path / "weights.pth"
    )
    with pytest.raises(ConfigError, match=rf"weights\.pth: {message}"):
        start_from_weights(classifier(encoder), str(tmp_path / "weights.pth"))


def test_a_missing_tensor_is_named(tmp_path):
    shapes = timm(16, 2, patches=16)
    del shapes["blocks.1.attn.proj.bias"]
    torch.save(
        {name: value.clone() for name, value in blank(shapes).items()}, tmp_path / "weights.pth"
    )
    with pytest.raises(
        ConfigError,
        match=r'weights\.pth: .*Missing key.*"transformer\.blocks\.1\.attn\.proj\.bias"',
    ):
        start_from_weights(classifier(plain()), str(tmp_path / "weights.pth"))


# ---------------------------------------------------------------------------------- odd tensors


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pos_embed", torch.zeros(3), "the tensors are not those of a ViT"),
        ("pos_embed", torch.zeros(1, 0, 16), "the tensors are not those of a ViT"),
        ("cls_token", torch.zeros(()), "the tensors are not those of a ViT"),
        ("patch_embed.proj.weight", torch.zeros(16), "the tensors are not those of a ViT"),
        ("blocks.0.mlp.fc1.bias", None, "the tensors are not those of a ViT"),
        (
            "norm.weight",
            torch.full((16,), math.nan),
            "norm.weight holds 16 of 16 weights that are NaN",
        ),
        (
            "norm.weight",
            torch.ones(16, dtype=torch.int64),
            "holds torch.int64 numbers instead of float",
        ),
        ("norm.weight", torch.ones(16, dtype=torch.complex64), "holds complex numbers"),
        ("norm.weight", torch.ones(1).expand(1 << 40), "is not a plain tensor"),
        ("norm.weight", torch.ones(16).to_sparse(), "is not a plain tensor"),
        ("head.weight", torch.full((16,), math.nan), None),
    ],
)
def test_an_odd_tensor_is_refused_in_one_line_where_it_is_used(name, value, message, tmp_path):
    state = {key: torch.ones(shape) for key, shape in timm(16, 2, patches=16).items()}
    state[name] = value
    torch.save(
        {key: value for key, value in state.items() if value is not None}, tmp_path / "w.pth"
    )
    objective = classifier(plain())
    if message is None:
        start_from_weights(objective, str(tmp_path / "w.pth"))
        return
    with pytest.raises((CheckpointError, ConfigError), match=message) as caught:
        start_from_weights(objective, str(tmp_path / "w.pth"))
    assert len(str(caught.value).splitlines()) == 1


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
