"""A classifier of other code as a network with settings: what the file says, and what is wrong with it."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from interop.inventories import ast as ast_shapes
from interop.inventories import cnn14, drawn
from safetensors.torch import load_file, save_file
from targets.runs import LABELS, ast, write_run

from melpatch import cli
from melpatch.data.clip import Batch
from melpatch.errors import CheckpointError, ConfigError, MelpatchError
from melpatch.interop.base import Reading
from melpatch.objectives.encoder_only import EncoderOnly
from melpatch.training.foreign import Given, open_foreign
from melpatch.training.start import load_run
from melpatch.weight_files import read_weights

WAVE = torch.linspace(-1, 1, 16000).sin()[None]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder for transformers, written from a run whose LayerNorms all have the same epsilon."""
    folder = tmp_path_factory.mktemp("exported")
    write_run(folder / "run", ast(objective={"head_norm_eps": 1e-6}))
    for target, name in (("hf", "hf"), ("timm", "w.safetensors")):
        words = ["export", str(folder / "run"), "--to", target, "--out", str(folder / name)]
        assert cli.main(words) == 0
    return folder


@pytest.fixture
def hf(exported, tmp_path):
    """A copy of that folder, to be damaged."""
    shutil.copytree(exported / "hf", tmp_path / "hf")
    return tmp_path / "hf"


def logits(objective):
    batch = Batch(WAVE, torch.tensor([WAVE.shape[1]]), torch.tensor([0]))
    with torch.inference_mode():
        return objective.eval().logits(objective.features(batch))


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(folder, change):
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path, {"format": "pt"})


# ----------------------------------------------------------------------------------------------------- what it says


@pytest.mark.parametrize("name", ["hf", "w.safetensors"])
def test_an_export_comes_back_bit_for_bit(name, exported):
    config, run = load_run(exported / "run")
    model = open_foreign(str(exported / name))
    own = run.state_dict()
    assert own.keys() == model.objective.state_dict().keys()
    for key, value in model.objective.state_dict().items():
        assert torch.equal(own[key], value), key
    assert model.config.labels == LABELS
    assert model.config.front_end == config.front_end
    assert model.config.encoder == config.encoder
    assert model.config.objective == replace(config.objective, multi_label=False)
    assert torch.equal(logits(model.objective), logits(run))


def test_weights_are_kept_as_they_were_read(hf, monkeypatch):
    """Neither drawn first nor copied: only q, k and v, which become one tensor, take memory twice."""
    read = []

    def noted(source):
        read.append(read_weights(source))
        return read[-1]

    monkeypatch.setattr("melpatch.interop.base.read_weights", noted)
    objective = open_foreign(str(hf)).objective
    (weights,) = read
    memory = {value.data_ptr() for value in weights.state.values()}
    new = [name for name, value in objective.named_parameters() if value.data_ptr() not in memory]
    blocks = [name for name in new if ".blocks." in name]
    assert blocks
    assert all(".attn.qkv." in name for name in blocks)


def test_an_encoder_keeps_its_own_final_norm_where_a_file_has_none(hf):
    def without_final_norm(state):
        for kind in ("weight", "bias"):
            del state[f"audio_spectrogram_transformer.layernorm.{kind}"]

    change_weights(hf, without_final_norm)
    model = open_foreign(str(hf))
    norm = model.objective.encoder.transformer.norm
    assert "keeps its own" in str(model.source)
    assert torch.equal(norm.weight, torch.ones(len(norm.weight)))
    assert torch.equal(norm.bias, torch.zeros(len(norm.bias)))


@pytest.mark.parametrize(
    ("kind", "multi_label"),
    [("multi_label_classification", True), ("single_label_classification", False), (None, False)],
)
def test_the_problem_type_says_whether_a_clip_has_several_labels(kind, multi_label, hf):
    change_config(hf, problem_type=kind)
    model = open_foreign(str(hf))
    assert model.config.objective.multi_label == multi_label
    assert any("does not say" in note for note in model.source.notes) == (kind is None)
    other = open_foreign(str(hf), Given(multi_label=not multi_label))
    assert other.config.objective.multi_label != multi_label


def test_audiosets_classes_have_several_labels_a_clip(tmp_path):
    shapes = ast_shapes(width=24, depth=1, classes=527)
    torch.save(drawn(shapes), tmp_path / "ast.pth")
    model = open_foreign(str(tmp_path / "ast.pth"), Given(reading=Reading(num_heads=3)))
    assert model.config.objective.multi_label
    assert model.config.labels[:2] == ("0", "1")
    assert "527 classes without names" in str(model.source)
    assert "licence: BSD-3-Clause" in str(model.source)


def test_pooling_can_be_said_where_the_file_does_not(tmp_path):
    torch.save(drawn(ast_shapes(width=24, depth=1, classes=3)), tmp_path / "ssast.pth")
    for pooling, expected in ((None, "cls"), ("mean", "mean")):
        given = Given(pooling=pooling, reading=Reading(num_heads=3))
        model = open_foreign(str(tmp_path / "ssast.pth"), given)
        assert model.config.objective.pooling == expected
        assert ("--pooling" in str(model.source)) == (pooling is None)


def test_panns_heads_are_linear_layers_on_its_embedding(tmp_path):
    torch.save({"model": drawn(cnn14(width=1, classes=5))}, tmp_path / "cnn14.pth")
    model = open_foreign(str(tmp_path / "cnn14.pth"))
    objective = model.objective.eval()
    assert model.config.loader.seconds == 10
    assert objective.config.multi_label
    batch = Batch(torch.cat([WAVE, WAVE], 1), torch.tensor([32000]), torch.tensor([0]))
    with torch.inference_mode():
        features = objective.features(batch)
        embedding = objective.encoder(features.spectrogram, features.valid).cls[:, 0]
        expected = objective.head(embedding)
        torch.testing.assert_close(objective.logits(features), expected)
    state = torch.load(tmp_path / "cnn14.pth")["model"]
    torch.testing.assert_close(objective.head.weight.double(), state["fc_audioset.weight"])


# ---------------------------------------------------------------------------------------------- what is wrong with it


def nan(state):
    state["classifier.dense.weight"][0, 0] = torch.nan


def without_bias(state):
    del state["classifier.dense.bias"]


def without_block(state):
    del state["audio_spectrogram_transformer.encoder.layer.1.output.dense.weight"]


def narrow(state):
    state["classifier.dense.weight"] = state["classifier.dense.weight"][:, :7].clone()


def narrow_norm(state):
    state["classifier.layernorm.weight"] = torch.ones(7)


def whole_numbers(state):
    state["classifier.dense.weight"] = state["classifier.dense.weight"].long()


def without_head(state):
    for key in [key for key in state if key.startswith("classifier")]:
        del state[key]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan, r"classifier\.dense\.weight holds 1 of 72 weights that are NaN"),
        (without_bias, r"no classifier\.dense\.bias, .*; give the whole published file"),
        (without_block, "the tensors are not those of a ViT of Hugging Face|no weights for"),
        (narrow, r"classifier\.dense\.weight is 3 x 7, expected 3 x 24 .*; give"),
        (narrow_norm, r"classifier\.layernorm\.weight is 7, expected 24 .*; give"),
        (whole_numbers, r"classifier\.dense\.weight holds torch\.int64 numbers instead of floats"),
    ],
)
def test_damaged_weights_are_named_with_their_file_and_key(change, message, hf):
    change_weights(hf, change)
    with pytest.raises(MelpatchError, match=message) as caught:
        open_foreign(str(hf))
    assert str(caught.value).startswith(f"{hf}: ")


def test_without_a_head_it_is_an_encoder_for_embeddings(hf):
    whole = open_foreign(str(hf))
    change_weights(hf, without_head)
    model = open_foreign(str(hf))
    assert isinstance(model.objective, EncoderOnly)
    assert (model.config.labels, model.config.encoder) == ((), whole.config.encoder)
    assert model.config.front_end == whole.config.front_end
    state = whole.objective.encoder.state_dict()
    for name, value in model.objective.encoder.state_dict().items():
        assert torch.equal(value, state[name])
    with pytest.raises(ConfigError, match="nothing to give labels or a pooling to; train a class"):
        open_foreign(str(hf), Given(labels=("a", "b")))
    with pytest.raises(ConfigError, match="has no loss; pretrain with --init"):
        model.objective(Batch(WAVE, torch.tensor([16000]), torch.tensor([0])), 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"problem_type": "regression"},
            "problem_type = 'regression' in config.json; allowed: mul",
        ),
        ({"id2label": {"0": "a", "2": "b", "3": "c"}}, "id2label = .*; wanted: a name for each"),
        ({"id2label": ["a", "b", "c"]}, "id2label = .*; wanted: a name for each"),
        ({"id2label": {"0": "a", "1": "b"}}, r"2 classes, but classifier\.dense\.weight .* has 3"),
        ({"id2label": {"0": "a", "1": "b", "2": "a"}}, "classes 0 and 2 are both called 'a'"),
        (
            {"num_hidden_layers": 3},
            "2 blocks in the file, but num_hidden_layers = 3 in config.json",
        ),
        ({"hidden_act": "relu"}, "hidden_act = 'relu' in config.json; allowed: 'gelu'"),
        ({"max_length": 100}, "max_length = 128 in preprocessor_config.json, but 100 in config"),
        ({"num_mel_bins": 64}, "num_mel_bins = 128 in preprocessor_config.json, but 64 in con"),
        ({"num_attention_heads": 5}, "num_heads = 5"),
        ({"layer_norm_eps": "small"}, "the tensors are not those of a ViT of Hugging Face"),
    ],
)
def test_settings_that_cannot_be_used_are_named(values, message, hf):
    change_config(hf, **values)
    with pytest.raises(ConfigError, match=message):
        open_foreign(str(hf))


def test_a_front_end_of_another_type_is_refused(hf):
    path = hf / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mean": True}))
    with pytest.raises(ConfigError, match=r"preprocessor_config\.json\.mean: True is not of type"):
        open_foreign(str(hf))


def test_a_class_list_of_another_length_is_refused(hf):
    given = Given(labels=("a", "b"), labels_from="classes.csv")
    message = (
        r"classes\.csv: 2 classes, but classifier\.dense\.weight of .*hf has 3; give the class"
    )
    with pytest.raises(ConfigError, match=message):
        open_foreign(str(hf), given)


def test_a_folder_without_its_settings_is_refused(hf):
    (hf / "config.json").unlink()
    with pytest.raises(
        ConfigError, match=r"without config\.json beside it, which tells its labels"
    ):
        open_foreign(str(hf))
    with pytest.raises(
        ConfigError, match=r"hf: holds weights, but neither config\.toml, as a run "
    ):
        load_run(hf)


def test_half_a_download_is_refused(hf):
    weights = hf / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_run(hf)
    weights.rename(hf / "model.safetensors.index.json")
    with pytest.raises(CheckpointError, match="weights in several files; save them as one, model"):
        load_run(hf)
    (hf / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"hf: holds no model\.safetensors or pytorch_model"):
        load_run(hf)


def test_a_pickle_that_would_run_code_stays_closed(tmp_path):
    torch.save({"model": drawn(cnn14(width=1)), "hook": print}, tmp_path / "cnn14.pth")
    with pytest.raises(CheckpointError, match=r"would run code \(print\)"):
        load_run(tmp_path / "cnn14.pth")


def test_labels_are_not_given_to_a_run(exported):
    with pytest.raises(ConfigError, match="a run has labels of its own; leave out --labels"):
        load_run(exported / "run", given=Given(labels=("a",)))
