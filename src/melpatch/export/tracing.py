"""The graph of a network from waveform to output, as ``torch.export`` records it."""

import warnings

import torch
from torch.export import Dim, ExportedProgram

from melpatch.errors import ConfigError
from melpatch.export.source import Source
from melpatch.export.waveform import Waveform, lengths_of


def traced(source: Source) -> tuple[Waveform, ExportedProgram]:
    """Return the network of a run, and its graph for batches and clips of any size.

    Raises:
        ConfigError: the network does what a graph cannot hold.
    """
    network = Waveform(source, source.model.network.resolve_pooling(source.pooling)).eval()
    # What a graph is recorded with must not be 1 anywhere, which would count as a constant.
    example = torch.zeros(2, lengths_of(source).most)
    shapes = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},)
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            program = torch.export.export(network, (example,), dynamic_shapes=shapes, strict=False)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"{source.folder}: its network cannot be recorded as a graph ({reason:.200}); an encoder "
            "of your own must not turn sizes into Python numbers"
        ) from error
    return network, program
