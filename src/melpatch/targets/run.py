"""A folder of the run to give away: settings, weights and a model card, for melpatch elsewhere.

What others need to use a run, without its resume state, logs and scores. Of the data only the names
are kept, no paths.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from melpatch.config import to_toml
from melpatch.data.sources import source_name
from melpatch.export.card import CARD, model_card
from melpatch.export.source import Source
from melpatch.inference.calibration import CALIBRATION
from melpatch.inference.fitted import FILE
from melpatch.objectives.distill import Distill
from melpatch.targets.base import Target
from melpatch.training.config import require_run

_SETTINGS = "config.toml"
_WEIGHTS = "model.safetensors"
_BESIDE = (CALIBRATION, FILE)
_USAGE = """import melpatch  # after: hf download owner/name --local-dir runs/it

model = melpatch.load("runs/it")
vector = model.embed("recording.wav")"""


class Run(Target):
    """A folder of the run itself, to give away: settings, weights and a model card."""

    files = frozenset({_SETTINGS, _WEIGHTS, *_BESIDE, CARD})
    takes = frozenset({"licence"})

    def write(self, source: Source, path: Path) -> list[str]:
        """Write the files; see :meth:`Target.write`."""
        require_run(source.folder)
        config = source.model.config
        config = replace(config, data=tuple(map(source_name, config.data)))
        if isinstance(config.objective, Distill.Config):
            # The teacher's settings stay; the student is used without its weights.
            teacher = source_name(config.objective.teacher)
            config = replace(config, objective=replace(config.objective, teacher=teacher))
        path.mkdir(parents=True)
        (path / _SETTINGS).write_text(to_toml(config), encoding="utf-8")
        for name in (_WEIGHTS, *_BESIDE):
            if (source.folder / name).exists():
                shutil.copyfile(source.folder / name, path / name)
        card = model_card(source, _USAGE, [], library="melpatch")
        (path / CARD).write_text(card, encoding="utf-8")
        return []
