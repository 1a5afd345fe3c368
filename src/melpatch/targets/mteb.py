"""A Python module with an audio encoder of MTEB, the massive text, image and audio benchmarks.

Source: ``AbsEncoder`` and ``ModelMeta`` of mteb 2.26, whose tasks of audio are those of MAEB.
"""

from pathlib import Path

from melpatch.export.adapter import adapter, facts_of
from melpatch.export.source import Source
from melpatch.targets.base import Target

_TEMPLATE = '''"""An encoder of MTEB for a run of melpatch; written by melpatch $MELPATCH export --to mteb.

>>> import mteb
>>> mteb.evaluate(MelpatchEncoder(), mteb.get_tasks(modalities=["audio"]))
"""

import melpatch
import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder

RUN = $RUN
POOLING = $POOLING


class MelpatchEncoder(AbsEncoder):
    """One vector per recording; recordings have any rate and length."""

    def __init__(self, model_name=RUN, revision=None, *, device=None, **kwargs):
        self.model = melpatch.load(RUN, device)
        self.mteb_model_meta = META

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **kwargs):
        """Return the vectors (recording, dim) of batches whose "audio" lists arrays with rates."""
        vectors = []
        for batch in inputs:
            waves = [item["array"] for item in batch["audio"]]
            rates = [item["sampling_rate"] for item in batch["audio"]]
            vectors += self.model.embed_each(waves, rates, pooling=POOLING)
        return np.stack(vectors)


META = ModelMeta(
    loader=MelpatchEncoder,
    name=$NAME,  # as owner/name, if it is published
    revision=None,
    release_date=None,
    languages=None,
    n_parameters=$PARAMETERS,
    memory_usage_mb=None,
    max_tokens=None,
    embed_dim=$DIM,
    license=None,  # fill in: the licence of these weights
    open_weights=None,
    public_training_code=None,
    public_training_data=None,
    framework=["PyTorch"],
    similarity_fn_name="cosine",
    use_instructions=False,
    training_datasets=None,  # fill in: MTEB's names of the data sets trained on
    modalities=["audio"],
)
'''


class Mteb(Target):
    """A module for MTEB's tasks of audio: an encoder with its metadata."""

    ending = ".py"
    takes = frozenset({"pooling"})

    def write(self, source: Source, path: Path) -> list[str]:
        """Write the module; see :meth:`Target.write`."""
        encoder = source.model.objective.export_encoder()
        parameters = sum(weights.numel() for weights in encoder.parameters())
        name = f"melpatch/{source.folder.resolve().name}"
        text = adapter(_TEMPLATE, facts_of(source), name=name, parameters=parameters)
        path.write_text(text, encoding="utf-8")
        return ["licence and training data in META are yours to fill in"]
