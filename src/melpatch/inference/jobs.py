"""From the settings of ``melpatch embed`` and ``melpatch predict`` to a job that writes a file."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import melpatch
from melpatch import distributed
from melpatch.config import check_batch_size, check_workers, to_toml
from melpatch.data.clip import Clip
from melpatch.data.corpus import Rejected
from melpatch.data.file_names import path_text
from melpatch.data.row import PACKED_COLUMNS
from melpatch.data.shards import INDEX
from melpatch.inference.calibration import CALIBRATION
from melpatch.inference.engine import InferenceTask
from melpatch.inference.model import Model
from melpatch.inference.network import Precision
from melpatch.inference.own_output import check_table
from melpatch.inference.sources import fingerprint, list_recordings
from melpatch.inference.table_about import note_beside
from melpatch.inference.tables import SECONDS, Chunks, Column, table_format, write_table
from melpatch.inference.writing import InferenceJob
from melpatch.weight_files import is_weights


@dataclass(frozen=True, kw_only=True)
class RecordingsConfig:
    """Settings of the commands that read recordings with a trained model."""

    run: tyro.conf.Positional[Path]
    """Run folder, or a model of other code: a folder of Hugging Face, hf:owner/name, or a weight file."""
    recordings: tyro.conf.Positional[tuple[str, ...]]
    """Audio files, folders of them, CSV files with a column path, folders of shards, URLs of these,
    or data of others (docs/data.md)."""
    out: Path
    """What to write."""
    batch_size: int | None = None
    """Windows at a time, of many recordings together; by default 8, or 64 on a GPU."""
    workers: int | None = None
    """Processes that decode beside the network; 0 decodes in a thread. By default 0, or on a GPU
    one per processor, up to 8."""
    precision: Precision = "auto"
    """Arithmetic of the network; auto is bf16-mixed on a GPU with bf16 hardware, else 32-true;
    fastest measures which of the two is faster here, and states how far they agree."""
    salvage: bool = False
    """Use the sound before the damage of a recording; OUT.rejected.csv lists what is left out."""
    resume: bool = False
    """Continue a killed run from OUT.parts; finished recordings are not computed again."""
    trust_code: bool = False
    """Allow the run to name code outside melpatch, such as your own encoder; that code is run."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_batch_size(self.batch_size)
        check_workers(self.workers)


@dataclass(frozen=True, kw_only=True)
class InferenceConfig(RecordingsConfig):
    """Settings of the commands that write one table about recordings."""

    overwrite: bool = False
    """Replace a file in --out that this command did not make; an input is never replaced."""


def inference_job(
    config: InferenceConfig,
    model: Model,
    task: InferenceTask,
    columns: Sequence[Column],
    *,
    default_ending: str,
    about: Mapping[str, Any],
    more_about: Callable[[int], Mapping[str, Any]],
    timed: bool,
    keep: bool,
) -> InferenceJob:
    """Return the job of computing a task for a command's recordings and writing one table of all.

    Args:
        config: settings of the command.
        model: the model that the task uses.
        task: what to compute for each recording.
        columns: columns of the rows' values; those that name the recording come before them.
        default_ending: format of an output whose name has no ending.
        about: the command, the hash of the model, and the settings that the rows depend on.
        more_about: from the numbers of a row to further facts, which the table holds too.
        timed: whether rows of whole files have columns of times; those of clips always have them,
            and the clip's key.
        keep: whether a recording that could not be read to its end keeps its rows.

    Raises:
        ConfigError: the output's name has an unknown ending, or it may not be replaced.
        DataError: a source does not exist, or there is no recording.
    """
    ending = table_format(config.out, default_ending)
    malformed: list[Rejected] = []
    recordings = list_recordings(config.recordings, malformed)
    inputs = _inputs(config, recordings)
    check_table(config.out, ending, about["command"], inputs=inputs, overwrite=config.overwrite)
    facts = {"melpatch": melpatch.__version__, **about, "precision": model.precision}
    table = _Table(
        out=config.out,
        ending=ending,
        columns=[*_place_columns(recordings, timed), *columns],
        about={"run": path_text(config.run), **facts, **_facts_of_sound(task)},
        more_about=more_about,
    )
    return InferenceJob(
        out=config.out,
        write=table.write,
        note=table.note,
        recordings=recordings,
        malformed=malformed,
        inputs=inputs,
        task=task,
        about={**facts, "recordings": fingerprint(recordings)},
        keep=keep,
        batch_size=config.batch_size or model.default_batch_size,
        workers=model.default_workers if config.workers is None else config.workers,
        resume=config.resume or distributed.restarted(),
    )


@dataclass(frozen=True, kw_only=True)
class _Table:
    """The table of a job, with the facts about it."""

    out: Path
    ending: str
    columns: Sequence[Column]
    about: Mapping[str, Any]
    more_about: Callable[[int], Mapping[str, Any]]

    def write(self, path: Path, chunks: Chunks) -> None:
        """Write the table with the facts about it, where it has a place for them."""
        write_table(path, self.ending, self.columns, chunks, self._all_about(chunks))

    def note(self, path: Path, chunks: Chunks) -> None:
        """Write the facts beside a CSV file that is about to take its place."""
        if self.ending == ".csv":
            note_beside(self.out, path, self._all_about(chunks))

    def _all_about(self, chunks: Chunks) -> dict[str, Any]:
        numbers = next(chunks())["values"].shape[1]
        return {**self.about, **self.more_about(numbers)}


def _facts_of_sound(task: InferenceTask) -> dict[str, Any]:
    """Return what the network gets of a recording: rate in Hz, channel, seconds at a time."""
    windows = task.windows
    return {
        "sample_rate": windows.sample_rate,
        "channel": windows.channel,
        "window": windows.seconds,
    }


def _inputs(config: InferenceConfig, recordings: Sequence[Clip]) -> list[str | Path]:
    """Return the files that are read and might be named as the output."""
    inputs: list[str | Path] = [config.run / "config.toml", config.run / "model.safetensors"]
    inputs.append(config.run)
    for source in config.recordings:
        inputs += [source, Path(source) / INDEX]
    return inputs + [clip.path for clip in recordings if clip.path.name == config.out.name]


def _place_columns(recordings: Sequence[Clip], timed: bool) -> list[Column]:
    """Return the columns that name the recording, or the stretch of it, that a row stands for."""
    paths = [clip.location for clip in recordings]
    keys = np.array([clip.key for clip in recordings])
    starts = np.array([clip.start for clip in recordings])

    def path_values(rows: np.ndarray) -> np.ndarray:
        return np.array([paths[number] for number in rows["recording"]])

    path = Column("path", path_values)
    key = Column("key", lambda rows: keys[rows["recording"]])
    times = [
        Column("start", lambda rows: starts[rows["recording"]] + rows["start"], SECONDS),
        Column("end", lambda rows: starts[rows["recording"]] + rows["end"], SECONDS),
    ]
    if any(clip.size for clip in recordings):
        times += [_packed_column(name, recordings) for name in PACKED_COLUMNS]
    if any(clip.size or clip.duration < inf or clip.start for clip in recordings):
        return [path, key, *times]
    return [path, *times] if timed else [path]


def _packed_column(name: str, recordings: Sequence[Clip]) -> Column:
    """Return a column of where in its shard a clip is, so that the table can be read back."""
    values = np.array([getattr(clip, name) for clip in recordings], dtype=np.int64)
    return Column(name, lambda rows: values[rows["recording"]])


def hash_of_run(run: Path, model: Model, *, with_calibration: bool) -> str:
    """Return a hash of a run's settings and weights, and of its calibration if it matters."""
    digest = hashlib.blake2b(digest_size=8)
    if is_weights(str(run)):
        digest.update(to_toml(model.config).encode())
        for value in model.objective.state_dict().values():
            digest.update(value.cpu().numpy().tobytes())
        return digest.hexdigest()
    names = ["config.toml", "model.safetensors"]
    if with_calibration and (run / CALIBRATION).exists():
        names.append(CALIBRATION)
    for name in names:
        digest.update((run / name).read_bytes())
    return digest.hexdigest()
