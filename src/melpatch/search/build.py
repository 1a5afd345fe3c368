"""Make an index of recordings, or add the new ones to it."""

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from math import inf
from pathlib import Path

import numpy as np
from jaxtyping import Float

import melpatch
from melpatch import distributed
from melpatch.config import check
from melpatch.counted import counted
from melpatch.data.clip import Clip
from melpatch.data.corpus import Rejected
from melpatch.data.file_names import absolute
from melpatch.errors import ConfigError, DataError
from melpatch.inference.fitted import FILE, FITTED
from melpatch.inference.jobs import RecordingsConfig, hash_of_run
from melpatch.inference.model import Model, load
from melpatch.inference.sources import fingerprint, list_recordings
from melpatch.inference.tasks import stretch_task
from melpatch.inference.writing import InferenceJob, write_output
from melpatch.objectives.classify import Classify
from melpatch.only_writer import only_writer
from melpatch.outputs import check_output_folder
from melpatch.progress import notice
from melpatch.search import short_vectors
from melpatch.search.index import Index, segment_folders
from melpatch.search.query import task_of
from melpatch.search.segment import Identity, Recording, write_segment
from melpatch.weight_files import is_weights

UNFITTED = "mean+std"
"""The pooling of an index of too few windows to fit short vectors to."""


def add_recordings(
    config: RecordingsConfig,
    *,
    window: float | None = None,
    hop: float | None = None,
    pooling: str | None = None,
    layer: int | None = None,
) -> None:
    """Make an index, or add to it the recordings that are new or have changed since.

    Args:
        config: the run, the recordings and the index.
        window: length of a window in seconds; None takes the index's own or else the run's input.
        hop: seconds between the starts of windows; None takes the index's own or else the window.
        pooling: tokens to vector; None takes the index's own or else :func:`default_pooling`.
        layer: layer whose output to take.

    Raises:
        ConfigError: the index holds vectors of another encoder.
        DataError: there is nothing to add that can be read.
    """
    model = load(config.run, precision=config.precision, trust_code=config.trust_code)
    check_output_folder(
        config.out,
        [config.run, *config.recordings],
        alone=not _is_begun(config.out),
        own=(short_vectors.FILE,),
    )
    malformed: list[Rejected] = []
    recordings = _recordings(config, malformed)
    if not segment_folders(config.out):
        _check_windows(model, window, hop)
    # Of two commands into one new index, the second would otherwise not see what the first fits.
    with only_writer(config.out / "index"):
        index = Index(config.out) if segment_folders(config.out) else None
        identity = _identity(config, model, index, recordings, (window, hop, pooling, layer))
        clips = _new_clips(recordings, index)
        if not clips:
            notice(f"{config.out}: has all of these recordings already")
            return
        scale = None if index is None else index.scale
        write_output(_job(config, model, identity, clips, malformed, scale))


def _check_windows(model: Model, window: float | None, hop: float | None) -> None:
    """Raise ConfigError, before anything is made, if there are no such windows."""
    length = model.seconds if window is None else window
    hop = length if hop is None else hop
    stretch_task(model.network, model.seconds, window=length, hop=hop, pooling=UNFITTED)


def _identity(
    config: RecordingsConfig,
    model: Model,
    index: Index | None,
    recordings: Sequence[Clip],
    asked: tuple[float | None, float | None, str | None, int | None],
) -> Identity:
    """Return what makes the vectors of an index, once the model makes them.

    Raises:
        ConfigError: the index holds vectors of another kind.
    """
    window, hop, pooling, layer = asked
    weights = hash_of_run(config.run, model, with_calibration=False)
    own_fit = False
    if index is not None:
        own = index.identity
        # First, since vectors of another encoder have another pooling, too.
        require_same(index, replace(own, run=run_text(config.run), model=weights))
        window = own.window if window is None else window
        hop = own.hop if hop is None else hop
        layer = own.layer if layer is None else layer
        pooling = pooling or own.spelling
        own_fit = own.own_fit and pooling == FITTED
    window = model.seconds if window is None else window
    hop = window if hop is None else hop
    if own_fit:
        model.network.fitted = short_vectors.read_short_vectors(config.out, weights)
    elif pooling is None and layer is None and _own_pooling(config.run, model) is None:
        own_fit = short_vectors.fit_short_vectors(
            config.out,
            model,
            recordings,
            windows=short_vectors.Windows(length=window, hop=hop),
            weights=weights,
            batch_size=_batch_size(config, model),
            workers=_workers(config, model),
            resume=_resumes(config),
        )
    pooling = pooling or default_pooling(config.run, model, fits=layer is None)
    identity = Identity(
        run=run_text(config.run),
        model=weights,
        pooling=str(model.network.resolve_pooling(pooling, layer)),
        spelling=pooling,
        own_fit=own_fit,
        layer=layer,
        window=window,
        hop=hop,
        precision=model.precision,
    )
    if index is not None:
        require_same(index, identity)
    return identity


def _job(
    config: RecordingsConfig,
    model: Model,
    identity: Identity,
    clips: Sequence[Clip],
    malformed: Sequence[Rejected],
    scale: Float[np.ndarray, "mean_and_deviation dim"] | None,
) -> InferenceJob:
    """Return the job of writing one more segment, of these recordings."""
    recordings = [_recording(clip) for clip in clips]
    about = {
        "command": "index",
        "melpatch": melpatch.__version__,
        "recordings": fingerprint(clips),
        "salvage": config.salvage,
    }
    return InferenceJob(
        out=config.out / f"{_last_number(config.out) + 1:06}",
        write=partial(write_segment, identity=identity, recordings=recordings, scale=scale),
        recordings=clips,
        malformed=malformed,
        task=task_of(model, identity, salvage=config.salvage),
        about=about | asdict(identity),
        keep=config.salvage,
        batch_size=_batch_size(config, model),
        workers=_workers(config, model),
        resume=_resumes(config),
    )


def default_pooling(run: Path, model: Model, *, fits: bool) -> str:
    """Return the pooling of a new index: a fitted one, a classifier's own, or :data:`UNFITTED`.

    Args:
        run: the run.
        model: its model, which makes the short vectors of the index if there are some.
        fits: whether the index would have fitted some, so that it is told why there are none.
    """
    own = FITTED if model.network.fitted is not None else _own_pooling(run, model)
    if own is not None:
        return own
    if fits:
        notice(
            f"vectors are pooled by {UNFITTED}: short ones need {short_vectors.FEWEST} windows with "
            "sound, which are not all the same"
        )
    return UNFITTED


def _own_pooling(run: Path, model: Model) -> str | None:
    """Return the pooling that a run brings: fitted, or a classifier's; None if it has none."""
    if (run / FILE).exists():
        return FITTED
    if isinstance(model.objective, Classify):
        return model.default_pooling
    return None


def _batch_size(config: RecordingsConfig, model: Model) -> int:
    return config.batch_size or model.default_batch_size


def _resumes(config: RecordingsConfig) -> bool:
    return config.resume or distributed.restarted()


def _workers(config: RecordingsConfig, model: Model) -> int:
    return model.default_workers if config.workers is None else config.workers


def run_text(run: Path) -> str:
    """Return the absolute path of a run, or the name of one that is on a hub."""
    return str(run) if str(run).startswith("hf:") else str(run.absolute())


def require_same(index: Index, identity: Identity) -> None:
    """Raise ConfigError if vectors of another kind are to be added to an index, or searched in it.

    A run that was moved is the same.
    """
    own = index.identity
    for name in (field.name for field in fields(Identity)):
        there, here = getattr(own, name), getattr(identity, name)
        if name in ("run", "spelling") or there == here:
            continue
        if name == "model":
            there, here = f"{own.run} ({own.model})", f"{identity.run} ({identity.model})"
        raise ConfigError(
            f"{index.folder}: holds vectors with {name} = {there!r}, not {here!r}; give the same "
            f"as before, or another --out"
        )


def _recordings(config: RecordingsConfig, malformed: list[Rejected]) -> list[Clip]:
    """Return the recordings to index; none of them is packed in another file."""
    clips = list_recordings(config.recordings, malformed)
    packed = next((clip for clip in clips if clip.size), None)
    if packed is not None:
        raise DataError(
            f"{packed.location}: is packed in another file; an index takes sound files, so that "
            "they can be listened to"
        )
    return clips


def _new_clips(clips: Sequence[Clip], index: Index | None) -> list[Clip]:
    """Return the recordings that an index lacks, or has as they were before their files changed."""
    known = {} if index is None else index.known()
    new = [clip for clip in clips if known.get(_recording(clip).stretch) != _recording(clip)]
    changed = sum(_recording(clip).stretch in known for clip in new)
    if changed:
        notice(f"{counted(changed, 'recording')} changed since, and replaced")
    if len(new) < len(clips):
        notice(f"{counted(len(clips) - len(new), 'recording')} in the index already")
    return new


def _recording(clip: Clip) -> Recording:
    duration = None if clip.duration == inf else clip.duration
    return Recording(str(absolute(clip.path)), clip.start, duration, clip.state)


def _is_begun(folder: Path) -> bool:
    """Return whether a folder is an index, or what a killed run has left of one."""
    return bool(segment_folders(folder)) or any(folder.glob("[0-9]" * 6 + ".parts"))


def _last_number(folder: Path) -> int:
    numbers: Sequence[Path] = segment_folders(folder)
    return int(numbers[-1].name) if numbers else 0


def model_of(index: Index, *, run: Path | None = None, trust_code: bool = False) -> Model:
    """Return the model that made the vectors of an index.

    Args:
        index: the index.
        run: where the run lies now; None: where it was.
        trust_code: whether the run may name code outside melpatch.

    Raises:
        CheckpointError: the short vectors of the index are damaged.
        ConfigError: it is gone, or has other weights or another fit-embedding now.
    """
    own = index.identity
    place = Path(own.run) if run is None else run
    if not is_weights(str(place)) and not place.exists():
        raise ConfigError(f"{place}: the run of {index.folder} is gone; say where with --run")
    model = load(place, precision="32-true", trust_code=trust_code)
    weights = hash_of_run(place, model, with_calibration=False)
    allowed = f"the run that made {index.folder}; its weights or settings have changed"
    check(weights == own.model, "run", str(place), allowed)
    if own.own_fit:
        model.network.fitted = short_vectors.read_short_vectors(index.folder, weights)
    allowed = f"the run that made {index.folder}; melpatch fit-embedding was run again since"
    check(
        str(model.network.resolve_pooling(own.spelling, own.layer)) == own.pooling,
        "run",
        str(place),
        allowed,
    )
    return model
