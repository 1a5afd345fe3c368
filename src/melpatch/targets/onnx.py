"""An ONNX file from waveform to output, front end inside, for any runtime of ONNX.

The input ``waveform`` is (clip, sample) in float32; both may vary. A classifier has the outputs
``probabilities`` (clip, label) and ``embedding`` (clip, dim), an encoder the latter. Rate, lengths
and labels are in the metadata of the model.
"""

import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from melpatch.errors import ConfigError
from melpatch.export.about import about
from melpatch.export.agreement import Exported, agreement
from melpatch.export.source import Source
from melpatch.export.tracing import traced
from melpatch.export.waveform import Waveform
from melpatch.targets.base import Target

_OPSET = 20


class ONNX(Target):
    """A graph from waveform to probabilities and embedding for ONNX runtimes, front end inside.

    With ``quantize = "int8"`` the weights of matrix products have 8 bits, and activations are
    rounded as they come; the front end stays in float32.
    """

    ending = ".onnx"
    takes = frozenset({"pooling", "quantize", "sounds"})

    def write(self, source: Source, path: Path) -> list[str]:
        """Write the file; see :meth:`Target.write`."""
        _require("onnx", "onnxscript", *(["onnxruntime"] if source.quantize else []))
        network, program = traced(source)
        with warnings.catch_warnings(action="ignore"), _quiet("torch.onnx"):
            converted = torch.onnx.export(program, dynamo=True, verbose=False, opset_version=_OPSET)
        assert converted is not None
        _name(converted.model, network)
        converted.model.metadata_props.update(about(source, network))
        if source.quantize is None:
            converted.save(path, external_data=False)
            return []
        whole = path.with_name(f"{path.name}.float32")
        try:
            converted.save(whole, external_data=False)
            _round_weights(whole, path)
            return [f"int8 against float32: {agreement(source, _run(path), _run(whole))}"]
        finally:
            whole.unlink(missing_ok=True)


def _require(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--to onnx needs {' and '.join(missing)}; pip install 'melpatch[onnx]'")


def _name(model: Any, network: Waveform) -> None:
    """Name the input and the outputs after what they are."""
    (waveform,) = model.graph.inputs
    waveform.name = "waveform"
    for name, output in zip(network.names, model.graph.outputs, strict=True):
        output.name = name


def _round_weights(whole: Path, path: Path) -> None:
    """Write a model with the weights of its matrix products in 8 bits, those of the front end apart."""
    onnx = importlib.import_module("onnx")
    quantization = importlib.import_module("onnxruntime.quantization")
    kept = [
        node.name
        for node in onnx.load(whole).graph.node
        if any(name.startswith("front_end.") for name in node.input)
    ]
    with _quiet("root"):
        quantization.quantize_dynamic(
            whole,
            path,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=kept,
            per_channel=True,
            # Weights of 7 bits: processors without products of 8 bits (VNNI) add two of them in 16
            # bits, which would overflow, so that answers would depend on the machine.
            reduce_range=True,
        )


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Hold back what a library logs that is of no use to users."""
    library = logging.getLogger(None if logger == "root" else logger)
    before = library.level
    library.setLevel(logging.ERROR)
    try:
        yield
    finally:
        library.setLevel(before)


def _run(path: Path) -> Exported:
    """Return a model as a function from waveforms to its outputs."""
    session = importlib.import_module("onnxruntime").InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )

    def run(wave: np.ndarray) -> Sequence[np.ndarray]:
        outputs: Sequence[np.ndarray] = session.run(None, {"waveform": wave})
        return outputs

    return run
