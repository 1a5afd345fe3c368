"""Open the teacher of a distillation, hand it in, measure its targets, and keep it with the run.

Objectives do not open runs and weight files; a workflow does, and hands the network in. Settings
of the teacher go into ``config.toml``, so that the student can be loaded without it; its weights,
which never change, are saved once as ``teacher.safetensors``, so that a resumed run depends on
nothing outside its folder, and checkpoints stay as small as the student.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from melpatch import distributed
from melpatch.checkpoint import load_into, load_weights, save_weights
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.data.glimpses import notice_of_empty_bands
from melpatch.data.loader import evaluation_batches, training_order
from melpatch.data.manifest import Corpus
from melpatch.data.segments import crop
from melpatch.errors import ConfigError
from melpatch.inference.varying import varies
from melpatch.interop.base import published_settings
from melpatch.objectives.base import Objective
from melpatch.objectives.classify import Classify
from melpatch.objectives.distill import Distill
from melpatch.objectives.encoder_only import EncoderOnly
from melpatch.objectives.teacher import Teacher, TeacherConfig
from melpatch.progress import notice
from melpatch.training.config import RunConfig, read_settings
from melpatch.training.run import Run
from melpatch.training.start import load_run
from melpatch.weight_files import ENDINGS, HUB, is_there, is_weights, require_weights

FILE = "teacher.safetensors"
_FLAG = "objective.teacher"
# Clips on which mean and deviation of the targets are measured.
_CLIPS = 256


def with_teacher(
    training: RunConfig, run: Run | None, out: Path, *, trust_code: bool
) -> tuple[RunConfig, Teacher | None]:
    """Return the settings of a run with what its teacher is, and the teacher.

    The teacher is None, and the settings are as they were, for any objective but distillation.

    Args:
        training: settings of the run.
        run: the run that is resumed, if any.
        out: folder of the run.
        trust_code: whether the teacher may name code outside melpatch, which is then run.

    Raises:
        CheckpointError: the weights of the teacher are missing or damaged.
        ConfigError: there is no teacher, or it cannot be used.
    """
    settings = training.objective
    if not isinstance(settings, Distill.Config):
        return training, None
    if run is not None and (run.newest or (run.folder / FILE).exists()):
        return training, _kept(run, settings)
    teacher = open_teacher(settings.teacher, out, settings.teacher_pooling, trust_code=trust_code)
    return replace(training, objective=replace(settings, network=teacher.config)), teacher


def heard_as(
    training: RunConfig, source: str | None, *, own_rate: bool = False, trust_code: bool = False
) -> RunConfig:
    """Return a recipe of distillation with the front end of its teacher, and no longer segments.

    How clips are padded stays the recipe's. Teachers that do not exist are reported later.

    Args:
        training: the settings of the recipe, which stay as they are for other objectives.
        source: see :func:`open_teacher`; None if it is not given.
        own_rate: whether the student is given a sampling rate, and so has the recipe's front end.
        trust_code: whether the teacher may name code outside melpatch, which is then run.
    """
    if not isinstance(training.objective, Distill.Config) or source is None:
        return training
    longest = math.inf
    if is_weights(source) and is_there(source):
        front_end = published_settings(source)[1].front_end
    elif not is_weights(source) and (Path(source) / "config.toml").is_file():
        teacher = read_settings(Path(source), trust_code=trust_code)
        front_end = teacher.front_end
        longest = teacher.loader.seconds
    else:
        return training
    own = training.front_end
    if front_end is None or own_rate:
        front_end = own
    front_end = replace(front_end, padding=own.padding, target_frames=own.target_frames)
    loader = replace(training.loader, seconds=min(training.loader.seconds, longest))
    return replace(training, front_end=front_end, loader=loader)


def open_teacher(
    source: str, out: Path, pooling: str | None = None, *, trust_code: bool = False
) -> Teacher:
    """Return the network that ``--objective.teacher`` names.

    Args:
        source: a run folder, a weight file, a folder of Hugging Face or ``hf:owner/name``.
        out: folder of the student's run.
        pooling: tokens to vector; None takes the classifier's, or the mean.
        trust_code: whether it may name code outside melpatch, which is then run.

    Raises:
        CheckpointError: its weights are missing or damaged.
        ConfigError: there is none, or it cannot be used.
    """
    _require_source(source, out)
    try:
        config, objective = load_run(Path(source), trust_code=trust_code)
    except ConfigError as error:
        raise ConfigError(f"{_FLAG} = {source}: {error}") from error
    settings = config.objective
    labels = config.labels
    if not isinstance(objective, Classify):
        objective = EncoderOnly(
            EncoderOnly.Config(), objective.front_end, objective.export_encoder()
        )
        settings = EncoderOnly.Config()
        labels = ()
    about = TeacherConfig(
        front_end=config.front_end,
        encoder=objective.encoder.config,
        objective=settings,
        labels=labels,
        longest=config.loader.seconds,
        vector_dim=0,
        token_dim=0,
        layer_dims=(),
    )
    teacher = Teacher(about, objective)
    return _measured(teacher, pooling)


def _require_source(source: str, out: Path) -> None:
    """Raise an error unless this names a run or weights, and not the run to be written."""
    where = "a run folder, a folder of Hugging Face, a weight file"
    where = f"{where} ({', '.join(ENDINGS)}) or {HUB}owner/name"
    if not source:
        raise ConfigError(f"--{_FLAG} is missing; give {where}: who teaches")
    if is_weights(source):
        require_weights(source)
        return
    folder = Path(source)
    problem = "which holds no config.toml" if folder.exists() else "which does not exist"
    check(
        (folder / "config.toml").is_file(), _FLAG, source, f"{where}; this is {source}, {problem}"
    )
    other = folder.resolve() != out.resolve()
    check(other, _FLAG, source, "another folder than --out, where the student is written")


def _measured(teacher: Teacher, pooling: str | None) -> Teacher:
    """Return a teacher whose settings say the widths of what it makes of a clip."""
    rate = teacher.config.front_end.sample_rate
    samples = round(rate * min(1.0, teacher.config.longest))
    silence = Batch(
        torch.zeros(1, samples), torch.tensor([samples]), torch.zeros(1, dtype=torch.int64)
    )
    numbers = range(1, teacher.encoder.num_layers + 1)
    heard = teacher.hear(silence, rate, pooling, numbers)
    about = replace(
        teacher.config,
        vector_dim=heard.vector.shape[1],
        token_dim=heard.tokens.values.shape[3],
        layer_dims=tuple(layer.values.shape[3] for layer in heard.layers),
    )
    return Teacher(about, teacher.objective)


def _kept(run: Run, settings: Distill.Config) -> Teacher:
    """Return the teacher that lies in a run folder.

    Raises:
        CheckpointError: its weights are missing or damaged.
        ConfigError: they are not those of the settings.
    """
    if settings.network is None:
        raise ConfigError(
            f"{run.folder}/config.toml: has no table [objective.network]; take it from a backup"
        )
    teacher = Teacher(settings.network)
    state = load_weights(run.folder / FILE)
    try:
        load_into(teacher.objective, state)
    except ConfigError as error:
        raise ConfigError(f"{run.folder}: {FILE} does not fit config.toml; {error}") from error
    return teacher


def hand_in(objective: Objective, teacher: Teacher | None) -> None:
    """Give a distillation its teacher; any other objective stays as it is."""
    if isinstance(objective, Distill) and teacher is not None:
        objective.learn_from(teacher)


def keep_teacher(run: Run, teacher: Teacher | None) -> None:
    """Save the weights of a teacher in the folder of its student, once."""
    if teacher is None:
        return
    path = run.folder / FILE
    state = teacher.objective.state_dict()

    def write() -> None:
        if not path.exists():
            save_weights(path, state)

    distributed.on_rank_zero(write)


def tell_of_empty_bands(teacher: Teacher | None, corpus: Corpus) -> None:
    """Tell if sound ends below what a teacher hears, from a look at a few clips."""
    if teacher is not None and distributed.is_rank_zero():
        text = notice_of_empty_bands(corpus.clips, teacher.config.front_end)
        if text:
            notice(f"the teacher {text}")


def measure_targets(objective: Objective, training: RunConfig, corpus: Corpus) -> None:
    """Standardise the targets of a distillation by mean and deviation over clips of a corpus.

    Only rank 0 measures; the result is broadcast. Any other objective stays as it is.

    Raises:
        ConfigError: the teacher says the same of all clips.
    """
    if not isinstance(objective, Distill):
        return
    statistics = distributed.on_rank_zero(lambda: _statistics(objective, training, corpus))
    for name, (_, std) in statistics.items():
        if not std.any():
            raise ConfigError(
                f"{_FLAG} = {objective.config.teacher}: makes the same {name} of all clips, so there "
                "is nothing to learn; give a trained teacher, and one for such sound"
            )
    objective.standardise_by(statistics)


@torch.no_grad()
def _statistics(
    objective: Distill, training: RunConfig, corpus: Corpus
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return mean and deviation of each channel of each kind of target; all clips weigh the same."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective.eval().to(device)
    sums: dict[str, Tensor] = {}
    clips = 0
    for loaded in _first_batches(objective, training, corpus):
        batch = loaded.to(device)
        vector, columns = objective.encode(batch, 0)
        clips += len(batch)
        for name, target in objective.predicted(objective.hear(batch), vector, columns).items():
            inside = target.valid[..., None].double()
            weight = inside / inside.sum(dim=1, keepdim=True).clamp(min=1)
            values = target.target.double()
            moments = torch.stack(
                [(weight * values).sum(dim=(0, 1)), (weight * values.square()).sum(dim=(0, 1))]
            )
            sums[name] = sums.get(name, torch.zeros_like(moments)) + moments
    objective.to("cpu")
    statistics = {}
    for name, moments in sums.items():
        mean, square = moments / max(1, clips)
        std = (square - mean.square()).clamp(min=0).sqrt()
        mean, std = mean.cpu(), std.cpu()
        varying = torch.from_numpy(varies(mean.numpy(), std.numpy()))
        statistics[name] = (mean.float(), std.where(varying, 0.0).float())
    return statistics


def _first_batches(objective: Distill, training: RunConfig, corpus: Corpus) -> Iterator[Batch]:
    """Yield the first clips in training order, as many as are measured."""
    loader = replace(training.loader, balanced_sampling=False)
    order = training_order(corpus, loader, training.seed, 0)
    draws = islice(order, min(_CLIPS, len(corpus.clips)))
    segments = [crop(corpus.clips[draw.clip], loader.seconds, training.seed, 0) for draw in draws]
    notice(f"the teacher hears {len(segments)} clips, to standardise what it says")
    for loaded in evaluation_batches(segments, objective.wave_rate, batch_size=16):
        if loaded.batch is not None:
            yield loaded.batch
