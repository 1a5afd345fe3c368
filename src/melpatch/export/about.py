"""What users of an exported network have to know, as text that every format can hold."""

import json
from importlib.metadata import version

from melpatch.export.source import Source
from melpatch.export.waveform import Waveform, lengths_of


def about(source: Source, network: Waveform) -> dict[str, str]:
    """Return rate, lengths, labels and what the outputs are, by name."""
    lengths = lengths_of(source)
    return {
        "sample_rate": str(source.model.sample_rate),
        "min_samples": str(lengths.least),
        "max_samples": str(lengths.most),
        "labels": json.dumps([*source.model.labels], ensure_ascii=False),
        "multi_label": json.dumps(
            bool(network.classifier and network.classifier.config.multi_label)
        ),
        "temperature": repr(network.temperature),
        "pooling": str(network.pooling),
        "melpatch": version("melpatch"),
    }
