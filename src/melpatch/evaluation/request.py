"""What an evaluation is asked to score, and the folders that its results go to."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from melpatch import registry
from melpatch.config import check, check_batch_size, check_workers
from melpatch.data.remote import is_url
from melpatch.data.sources import dataset_name
from melpatch.errors import ConfigError
from melpatch.evaluation.protocol import Protocol
from melpatch.inference.label_rule import check_label_rule
from melpatch.inference.network import Precision
from melpatch.inference.novelty import FALSE_ALARMS
from melpatch.opening import require_inside
from melpatch.outputs import as_file_name


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """The arguments of :func:`melpatch.evaluation.evaluate.evaluate`, checked, and what follows from them."""

    run: Path
    data: tuple[str, ...]
    split: tuple[str, ...]
    split_column: str
    label_column: str
    labels_per_class: int | None
    seeds: tuple[int, ...]
    random_weights: bool
    batch_size: int
    workers: int
    out: Path | None
    features_dir: Path
    group_column: str = "group"
    labels: Path | None = None
    trust_code: bool = False
    overwrite: bool = False
    pictures: bool = True
    threshold: float | None = None
    false_alarms: float = FALSE_ALARMS
    precision: Precision = "32-true"
    suffix: str = ""
    """End of the name of the default folder, if another corpus of the same name was scored there."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        per_class = self.labels_per_class
        check(per_class is None or per_class >= 1, "labels_per_class", per_class, "1 or more")
        for name in ("split", "seeds"):
            values = getattr(self, name)
            check(len({*values}) == len(values), name, values, "each once")
        check_batch_size(self.batch_size)
        check_workers(self.workers)
        check_label_rule(self.threshold, self.false_alarms)

    @property
    def folder(self) -> Path:
        """The folder for the results; by default its name distinguishes the scores from others of the run."""
        return self.out or self.run / "evaluation" / as_file_name(self.name + self.suffix)

    @property
    def absolute_data(self) -> tuple[str, ...]:
        """The sources as absolute paths or URLs."""
        return tuple(source if is_url(source) else os.path.abspath(source) for source in self.data)  # noqa: PTH100

    @property
    def name(self) -> str:
        """What is scored, in one word that distinguishes it from whatever else may be scored of the run."""
        parts = ["+".join(_source_name(source) for source in self.data)]
        if self.split_column != "split":
            parts.append(self.split_column)
        if self.label_column != "label":
            parts.append(self.label_column)
        parts.extend(self.split)
        if self.labels_per_class is not None:
            parts.append(f"{self.labels_per_class}-per-class")
        if self.random_weights:
            parts.append("random-weights")
        if self.precision != "32-true":
            parts.append(self.precision)
        return "-".join(parts).replace("/", "-")

    def check_writable(self, *, with_features: bool) -> None:
        """Raise ConfigError, before anything is computed, if a folder cannot be created or written to."""
        _check_writable(self.folder, "--out")
        if with_features:
            if self.features_dir == self.run / "features":
                fix = "remove the link, or give --features-dir"
                require_inside(self.run, self.features_dir, fix)
            _check_writable(self.features_dir, "--features-dir")


def protocol_folder(protocol: Protocol) -> str:
    """Return the name of a protocol's folder; changed settings have folders of their own."""
    name = registry.name_of(type(protocol)).replace(":", ".")
    changed = protocol.changed_settings
    if not changed:
        return name
    text = "-".join(f"{key}-{value}" for key, value in changed.items())
    short = re.sub(r"[^\w.]+", "-", text, flags=re.ASCII)[:60].strip("-")
    digest = hashlib.blake2b(repr(changed).encode(), digest_size=4).hexdigest()
    return f"{name}-{short}-{digest}"


def _source_name(source: str) -> str:
    """Return the name of a folder, or of a CSV file's folder and of the file itself."""
    name = dataset_name(source)
    if is_url(source) or Path(source).is_dir():
        return name
    return f"{name}-{Path(source).stem}"


def _check_writable(folder: Path, flag: str) -> None:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise ConfigError(
            f"{folder}: cannot be written, since {existing} is not a folder that you may write to; give {flag}"
        )
