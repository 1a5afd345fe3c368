"""A file of torch.export from waveform to output, front end inside, which needs torch alone.

``torch.export.load(FILE).module(check_guards=False)`` takes float32 waveforms (clip, sample) and
returns a tuple: probabilities of a classifier, and vectors. Without ``check_guards=False`` torch
refuses lengths at which sizes coincide by chance, such as that of a whole position table.
"""

from pathlib import Path

import torch

from melpatch.export.about import about
from melpatch.export.source import Source
from melpatch.export.tracing import traced
from melpatch.targets.base import Target


class Torch(Target):
    """A program of torch.export, with labels and rate beside it."""

    ending = ".pt2"
    takes = frozenset({"pooling"})

    def write(self, source: Source, path: Path) -> list[str]:
        """Write the file; see :meth:`Target.write`."""
        network, program = traced(source)
        # A graph of torch does not hold for sizes of 1, such as a single column of patches.
        least = max(int(sizes.lower) for sizes in program.range_constraints.values())
        facts = about(source, network) | {"min_samples": str(least)}
        with path.open("wb") as file:
            torch.export.save(program, file, extra_files=facts)
        return []
