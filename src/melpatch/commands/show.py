"""Show a run's settings and metrics, what it makes of a recording, or what a table or an index holds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

from melpatch.config import owner, to_dict
from melpatch.data.clip import Clip, clip_key
from melpatch.data.file_names import path_text
from melpatch.data.sound import loudest
from melpatch.errors import CheckpointError, ConfigError, DataError
from melpatch.inference.model import load
from melpatch.inference.table_about import about_beside, read_about
from melpatch.inference.tables import TABLE_ENDINGS
from melpatch.opening import LOG_BYTES, read_json_lines, reading
from melpatch.outputs import check_output
from melpatch.plots.base import is_own_picture
from melpatch.plots.curve import curve
from melpatch.progress import console, notice, show_json
from melpatch.search.index import facts_of_index, segment_folders
from melpatch.training.config import RunConfig, read_settings
from melpatch.training.foreign import read_source
from melpatch.training.start import load_run
from melpatch.weight_files import ENDINGS, is_weights
from melpatch.workflows.kept_weights import read_validation
from melpatch.workflows.pictures import PICTURES, draw_pictures, run_title


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which run to show, and what of it to draw."""

    run: tyro.conf.Positional[Path]
    """Run folder, a model of other code, a table that embed or predict wrote, or an index."""
    json: bool = False
    """Print JSON for scripts."""
    curve: Path | None = None
    """PNG to draw the curves of metrics.jsonl to."""
    sound: Path | None = None
    """Recording whose loudest segment is drawn: as a pretraining run masks it, sees it and
    reconstructs it, or its views."""
    pictures: Path | None = None
    """Folder for the pictures: reconstruction.png; classes.png if a teacher assigns classes to
    patches; prediction.png and views.png if a teacher's tokens are predicted, and from several
    views; two_views.png if views of a clip are compared."""
    overwrite: bool = False
    """Replace a file that is no picture of melpatch; an input is never replaced."""
    trust_code: bool = False
    """Allow the run to name code outside melpatch, such as your own encoder; that code is run."""

    def __post_init__(self) -> None:
        """Check that --sound and --pictures come together."""
        for name, other in (("sound", "pictures"), ("pictures", "sound")):
            if getattr(self, name) is not None and getattr(self, other) is None:
                fix = "give both: --sound FILE --pictures FOLDER"
                raise ConfigError(f"--{name} is given but --{other} is not; {fix}")


def run(config: Config) -> None:
    """Print a run's settings and latest metrics; draw its curves and a recording on request.

    Of a table of vectors or probabilities, and of an index, print what it is of.
    """
    about = _facts_of_index(config) or _facts_of_table(config)
    if about is not None:
        _print(config, about)
        return
    _check_outputs(config)
    if is_weights(str(config.run)):
        settings, _ = load_run(config.run)
    else:
        settings = read_settings(config.run, trust_code=config.trust_code)
    _print(config, _summary(config.run, settings))
    if config.curve is not None:
        title = run_title(config.run, settings)
        curve(config.curve, config.run / "metrics.jsonl", title=title)
        notice(f"drawn to {config.curve}")
    if config.sound is not None and config.pictures is not None:
        _draw_sound(config.run, config.sound, config.pictures)


def _facts_of_index(config: Config) -> dict[str, Any] | None:
    """Return the facts about an index; None if it is something else.

    Raises:
        ConfigError: an index is to be drawn.
    """
    if not segment_folders(config.run):
        return None
    _draw_nothing_of(config, "an index")
    return facts_of_index(config.run)


def _draw_nothing_of(config: Config, kind: str) -> None:
    for name in ("curve", "sound"):
        if getattr(config, name) is not None:
            raise ConfigError(f"--{name} is for a run, and {config.run} is {kind}; leave it out")


def _facts_of_table(config: Config) -> dict[str, Any] | None:
    """Return the facts about a table; None if it is a run, or weights.

    Raises:
        ConfigError: a table is to be drawn.
        DataError: nothing is known about it.
    """
    path = config.run
    if not path.is_file() or path.suffix.lower() in ENDINGS:
        return None
    about = read_about(path)
    if about is None and path.suffix.lower() not in TABLE_ENDINGS:
        return None
    _draw_nothing_of(config, "a table")
    if about is None:
        raise DataError(
            f"{path}: does not tell what it holds; only tables of embed and predict do, with "
            f"{about_beside(path).name} beside a CSV file"
        )
    return about


def _print(config: Config, facts: Mapping[str, Any]) -> None:
    """Print facts as JSON or as a table."""
    if config.json:
        show_json(facts)
        return
    table = Table(title=path_text(config.run), show_header=False)
    for name, value in facts.items():
        table.add_row(name, _in_words(value) if isinstance(value, dict) else _cell(value))
    console().print(table)


def _cell(value: Any) -> str:
    """Return a fact that is no group of facts as text."""
    if isinstance(value, list):
        return ", ".join(map(_value_in_words, value))
    return _value_in_words(value)


def _check_outputs(config: Config) -> None:
    """Raise ConfigError if a picture would take the place of something else."""
    outputs = [] if config.curve is None else [("--curve", config.curve)]
    if config.pictures is not None:
        outputs += [("--pictures", config.pictures / name) for name in PICTURES]
    # Pictures may be drawn into the run folder, and drawn again.
    inputs = [path for path in config.run.glob("*") if path.suffix != ".png"]
    inputs += [] if config.sound is None else [config.sound]
    for flag, out in outputs:
        check_output(
            out, inputs=inputs, is_own=is_own_picture, overwrite=config.overwrite, flag=flag
        )


def _draw_sound(folder: Path, sound: Path, pictures: Path) -> None:
    """Draw the loudest segment of a recording as the run sees it."""
    model = load(folder)
    whole = Clip(sound, clip_key("", sound.name, 0.0), 0.0, inf)
    segment = loudest(whole, model.config.loader.seconds, model.sample_rate)
    end = segment.start + segment.duration
    title = f"{path_text(Path(sound.name))}, {segment.start:.1f} to {end:.1f} s"
    drawn = draw_pictures(pictures, model, segment, title)
    if not drawn:
        raise ConfigError(
            f"{folder}: {type(model.objective).__name__} reconstructs nothing to draw; leave out "
            "--sound, or give a pretraining run of a method that masks patches or compares views"
        )
    notice(f"drawn to {', '.join(map(str, drawn))}")


def _in_words(values: Mapping[str, Any]) -> str:
    """Return settings or metrics as one line of text, numbers with four digits."""
    return ", ".join(f"{name} {_value_in_words(value)}" for name, value in values.items())


def _value_in_words(value: Any) -> str:
    match value:
        case bool() | None:
            return json.dumps(value)
        case float():
            return f"{value:.4g}"
        case list():
            return " x ".join(map(_value_in_words, value))
        case dict():
            return f"({_in_words(value)})"
    return str(value)


def _records(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl; a probe that was kept, or an import, made no step and has none."""
    metrics = folder / "metrics.jsonl"
    if not metrics.exists():
        if _has_weights(folder):
            return []
        raise CheckpointError(f"{folder}: has no metrics.jsonl; the run made no step yet")
    with reading(metrics, "take the damaged lines out, or restore it from a backup", LOG_BYTES):
        return read_json_lines(metrics)


def _has_weights(folder: Path) -> bool:
    return is_weights(str(folder)) or (folder / "model.safetensors").exists()


def _summary(folder: Path, settings: RunConfig) -> dict[str, Any]:
    records = _records(folder)
    latest: dict[str, Any] = {}
    warning = "none"
    for record in records:
        if "warning" in record:
            warning = f"step {record['step']}: {record['warning']}"
        else:
            latest |= record
    validation = read_validation(folder)
    if validation is not None and validation["warnings"]:
        warning = "; ".join(validation["warnings"])
    encoder, front = settings.encoder, settings.front_end
    about = {
        "objective": owner(settings.objective).__name__,
        "encoder": f"{owner(encoder).__name__}: {_in_words(to_dict(encoder))}",
        "front end": f"{front.sample_rate} Hz, {front.n_mels} mels, mean {front.mean:g}, std {front.std:g}",
        "data": ", ".join(settings.data),
        "labels": ", ".join(settings.labels) or "none",
        "segment": f"{settings.loader.seconds:g} s",
        "weights": "complete" if _has_weights(folder) else "none yet",
        "warning": warning,
        "latest": latest,
    }
    source = read_source(folder)
    if source is not None:
        about["imported from"] = f"{source.source}: {source.family}, licence {source.licence}"
    if validation is not None:
        about["kept weights on validation"] = validation["metrics"]
    return about
