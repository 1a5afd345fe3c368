"""An encoder of any kind gives the answers of its run from a file of torch and from one of ONNX."""

from dataclasses import replace

import pytest
import torch
from contracts.test_encoders import ENCODERS, NARROW, small_config
from targets.runs import ast, write_run
from targets.test_onnx import main, same_at_several_lengths

from melpatch.objectives.classify import Classify

# Those of the ViT have tests of their own; a piece of a user's own is opened only if trusted.
KINDS = [name for name in ENCODERS if name not in ("vit", "toy")]


@pytest.fixture(scope="module", params=KINDS)
def run(request, tmp_path_factory):
    """A classifier on an encoder of this kind, with clips of any length."""
    folder = tmp_path_factory.mktemp(request.param)
    encoder = small_config((ENCODERS[request.param], NARROW.get(request.param, {})))
    front_end = replace(ast().front_end, n_mels=32, padding="masked", target_frames=None)
    config = replace(ast(), encoder=encoder, front_end=front_end)
    config = replace(config, objective=Classify.Config(pooling="mean"))
    return folder, write_run(folder / "run", config)


def test_a_file_of_torch(run):
    folder, model = run
    assert main(folder, "torch", "a.pt2") == 0
    program = torch.export.load(folder / "a.pt2").module(check_guards=False)

    def answers(waves):
        with torch.no_grad():
            return [output.numpy() for output in program(torch.from_numpy(waves))]

    same_at_several_lengths(answers, model, 8000)


def test_a_file_of_onnx(run):
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    folder, model = run
    assert main(folder, "onnx", "a.onnx") == 0
    graph = runtime.InferenceSession(str(folder / "a.onnx"), providers=["CPUExecutionProvider"])
    same_at_several_lengths(lambda waves: graph.run(None, {"waveform": waves}), model, 8000)
