"""``--to onnx`` and ``--to torch``: the same numbers as the run, at several lengths, where a runtime is installed."""

import json

import numpy as np
import pytest
import torch
from journeys.three_sounds import LABELS, settings, write_corpus
from targets.runs import sound, write_run

from melpatch import cli

CONFIG = settings(LABELS, positions="sincos", depth=1)


def main(folder, target, out, *words):
    command = ["export", str(folder / "run"), "--to", target, "--out", str(folder / out)]
    return cli.main([*command, *map(str, words)])


def expected(model, waves):
    predictions = [model.predict(wave, 16000)[0].probabilities for wave in waves]
    vectors = [model.embed(wave, 16000) for wave in waves]
    return np.array([[*answer.values()] for answer in predictions]), np.array(vectors)


def same_at_several_lengths(run, model, least=400):
    for clips, samples in ((1, least), (3, 5001), (2, 16000)):
        waves = np.stack([sound(2.0, seed=seed)[-samples:] for seed in range(clips)])
        for found, wanted in zip(run(waves), expected(model, waves), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run with what onnx makes of it, and a function that runs a file of that."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    folder = tmp_path_factory.mktemp("onnx")
    model = write_run(folder / "run", CONFIG)
    assert main(folder, "onnx", "a.onnx") == 0

    def session(name):
        return runtime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])

    return folder, model, session


def test_a_runtime_gives_the_answers_of_the_run(exported):
    _, model, session = exported
    graph = session("a.onnx")
    same_at_several_lengths(lambda waves: graph.run(None, {"waveform": waves}), model)


def test_outputs_and_metadata_say_what_they_are(exported):
    _, _, session = exported
    graph = session("a.onnx")
    assert [output.name for output in graph.get_outputs()] == ["probabilities", "embedding"]
    about = graph.get_modelmeta().custom_metadata_map
    assert json.loads(about["labels"]) == [*LABELS]
    assert about["sample_rate"] == "16000"
    assert (about["min_samples"], about["max_samples"]) == ("400", "16000")
    assert about["pooling"] == "rows+mean"


def test_a_long_recording_goes_through_in_pieces(exported):
    """As docs/export.md does it: windows end to end, probabilities averaged."""
    _, model, session = exported
    graph = session("a.onnx")
    wave = sound(60.3)
    pieces = [wave[start : start + 16000] for start in range(0, len(wave), 16000)]
    answers = [graph.run(["probabilities"], {"waveform": piece[None]})[0][0] for piece in pieces]
    whole = model.predict(wave, 16000)[0].probabilities
    weights = [len(piece) for piece in pieces]
    np.testing.assert_allclose(
        np.average(answers, axis=0, weights=weights), [*whole.values()], atol=1e-4
    )


def test_int8_is_smaller_and_says_how_far_it_agrees(exported, tmp_path, capsys):
    folder, _, session = exported
    corpus = write_corpus(tmp_path / "sounds", per_class=2)
    words = ("--quantize", "int8", "--sounds", corpus, "--overwrite")
    assert main(folder, "onnx", "b.onnx", *words) == 0
    assert "int8 against float32: the same best class in" in capsys.readouterr().err
    answers, _ = session("b.onnx").run(None, {"waveform": sound(1.0)[None]})
    assert answers.sum() == pytest.approx(1.0, abs=1e-5)
    assert not [*folder.glob("*.float32")]


def test_sums_of_two_int8_products_fit_into_16_bits(exported):
    """As processors without products of 8 bits add them: of unsigned 8 bits with signed 7."""
    folder, _, _ = exported
    onnx = pytest.importorskip("onnx")
    assert main(folder, "onnx", "c.onnx", "--quantize", "int8", "--overwrite") == 0
    weights = [
        onnx.numpy_helper.to_array(value).astype(int)
        for value in onnx.load(folder / "c.onnx").graph.initializer
        if value.data_type == onnx.TensorProto.INT8
    ]
    largest = max(abs(weight).max() for weight in weights)
    assert largest > 32
    assert 2 * 255 * largest < 1 << 15


def test_without_the_packages_it_says_which(tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "run", CONFIG)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(tmp_path, "onnx", "a.onnx") == 2
    assert "--to onnx needs onnx and onnxscript; pip install" in capsys.readouterr().err


def test_a_program_of_torch_gives_the_answers_of_the_run(tmp_path):
    model = write_run(tmp_path / "run", CONFIG)
    assert main(tmp_path, "torch", "a.pt2") == 0
    about = {"labels": "", "min_samples": ""}
    program = torch.export.load(tmp_path / "a.pt2", extra_files=about).module(check_guards=False)
    assert json.loads(about["labels"]) == [*LABELS]

    def run(waves):
        with torch.no_grad():
            return [output.numpy() for output in program(torch.from_numpy(waves))]

    # Two columns of 16 frames: a whole frame of 400 samples, and 16 hops.
    assert about["min_samples"] == "2960"
    same_at_several_lengths(run, model, 2960)


@pytest.mark.parametrize(
    ("target", "words", "message"),
    [
        ("hf", ("--pooling", "mean"), "--pooling is not for --to hf"),
        ("torch", ("--quantize", "int8"), "--quantize is not for --to torch"),
        ("onnx", ("--sounds", "x"), "--sounds is for --quantize int8"),
        ("torch", ("--pooling", "max"), "--pooling max; allowed: frequency, the classifier's own"),
    ],
)
def test_a_flag_that_is_not_heeded_is_refused(target, words, message, tmp_path, capsys):
    write_run(tmp_path / "run", CONFIG)
    out = {"hf": "out", "torch": "a.pt2", "onnx": "a.onnx"}[target]
    assert main(tmp_path, target, out, *words) == 2
    assert message in capsys.readouterr().err
