"""Write a run as files that others can run: transformers, timm, ONNX, torch.export, benchmarks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from melpatch import registry
from melpatch.atomic import written_aside
from melpatch.config import check
from melpatch.errors import ConfigError
from melpatch.export.source import Source
from melpatch.inference.model import load
from melpatch.outputs import check_output, require_usable_name
from melpatch.progress import notice
from melpatch.targets.base import Target


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which run to export, to what, and where."""

    run: tyro.conf.Positional[Path]
    """Run folder of a classifier or of a pretrained encoder, or a model of other code."""
    to: str
    """What it becomes (melpatch list targets): hf, a folder for Hugging Face transformers; run, the
    run itself to give away; onnx or torch, a file from waveform to probabilities and embedding;
    timm, weights with published names; hear, xares, mteb or evar, a module for that benchmark."""
    out: Path
    """Folder or file to write."""
    labels: Path | None = None
    """Class list of a model of other code that names no classes: one name a line, or AudioSet's
    class_labels_indices.csv."""
    pooling: str | None = None
    """With onnx, torch and benchmarks: tokens to vector, as for melpatch embed; a classifier has its own."""
    quantize: Literal["int8"] | None = None
    """With onnx: round weights to 8 bits, and say how far the answers agree."""
    sounds: tuple[str, ...] = ()
    """With --quantize: recordings to compare on, folders or CSV files; by default made-up sound."""
    licence: str | None = None
    """With hf and run: the licence of the weights, for the model card (apache-2.0, cc-by-4.0, ...)."""
    overwrite: bool = False
    """Replace an export, or another file, in --out."""
    trust_code: bool = False
    """Allow the run to name code outside melpatch, such as your own encoder; that code is run."""


def run(config: Config) -> None:
    """Write the export, and say in which points it does otherwise than the run."""
    target: Target = registry.find("targets", config.to)()
    require_usable_name(config.out)
    _check_flags(config, target)
    _check_out(config, target)
    model = load(config.run, device="cpu", labels=config.labels, trust_code=config.trust_code)
    source = Source(
        config.run, model, config.pooling, config.quantize, config.sounds, config.licence
    )
    if source.classifier is not None:
        fits = config.pooling in (None, model.default_pooling)
        check(fits, "pooling", config.pooling, f"{model.default_pooling}, the classifier's own")
    with written_aside(config.out) as aside:
        notes = target.write(source, aside)
    for note in notes:
        notice(note)
    notice(f"written: {config.out}")


def _check_flags(config: Config, target: Target) -> None:
    """Raise ConfigError for a flag that the target does not heed."""
    for name in ("pooling", "quantize", "sounds", "licence"):
        value = getattr(config, name)
        if value and name not in target.takes:
            raise ConfigError(f"--{name} is not for --to {config.to}; leave it out")
    if config.sounds and config.quantize is None:
        raise ConfigError("--sounds is for --quantize int8; give both")


def _check_out(config: Config, target: Target) -> None:
    """Raise ConfigError if the output may not be written."""
    out = config.out
    if target.ending:
        if out.suffix != target.ending:
            raise ConfigError(f"--out {out}: give a name that ends in {target.ending}")
        if target.ending == ".py" and not out.stem.isidentifier():
            raise ConfigError(
                f"--out {out}: cannot be imported; give a name of letters, digits and _, such as "
                "melpatch_run.py"
            )
        check_output(out, inputs=[], is_own=lambda path: False, overwrite=config.overwrite)
        return
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"--out {out}: is a file; give the name of a folder")
    present = {path.name for path in out.iterdir()}
    foreign = sorted(present - target.files)
    if foreign:
        raise ConfigError(
            f"--out {out}: holds {foreign[0]}, which is of no such export; give another folder"
        )
    if present and not config.overwrite:
        raise ConfigError(f"--out {out}: exists; give another folder, or --overwrite to replace it")
