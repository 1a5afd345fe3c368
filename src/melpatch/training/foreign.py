"""The classifier or the encoder in a file of other code, as the settings and the network of a run.

>>> model = open_foreign("MIT-ast/", Given(multi_label=True))
>>> model.config.labels[:2]
('Speech', 'Male speech, man speaking')
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from melpatch.atomic import written_aside
from melpatch.audio.logmel import LogMel
from melpatch.checkpoint import load_into, require_finite
from melpatch.config import from_dict, owner
from melpatch.data.class_list import read_class_list, require_names
from melpatch.data.loader import LoaderConfig
from melpatch.errors import ConfigError
from melpatch.interop.base import Foreign, Head, Reading
from melpatch.objectives.base import Objective
from melpatch.objectives.classify import Classify
from melpatch.objectives.encoder_only import EncoderOnly
from melpatch.opening import read_json, reading
from melpatch.training.config import RunConfig, TrainConfig, build_unfilled

SOURCE = "source.json"
"""The file of an imported run that says where its weights come from."""
_AUDIOSET = 527
"""Classes of AudioSet, whose clips have several labels."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the user says of a model of other code; None leaves it to the file."""

    labels: tuple[str, ...] | None = None
    """Names of the classes in the order of the logits."""
    labels_from: str = "--labels"
    """Where these names come from, for messages."""
    multi_label: bool | None = None
    """Whether each class has a sigmoid of its own."""
    pooling: str | None = None
    """Tokens to vector, see :mod:`melpatch.nn.pooling`."""
    reading: Reading = field(default_factory=Reading)
    """How the weights are read."""

    @classmethod
    def of(
        cls, labels: str | PathLike[str] | Sequence[str] | None, multi_label: bool | None
    ) -> "Given":
        """Return what a user says who gives the names of the classes, or a file of them."""
        if labels is None:
            return cls(multi_label=multi_label)
        if isinstance(labels, str | PathLike):
            names = read_class_list(Path(labels))
            return cls(labels=names, labels_from=str(labels), multi_label=multi_label)
        return cls(labels=tuple(labels), labels_from="labels", multi_label=multi_label)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the weights of a run come from that was imported: the file ``source.json`` in it."""

    source: str
    """File, folder, or repository of the Hub."""
    family: str
    """Whose model it is."""
    licence: str
    """The licence of the published weights of that family."""
    notes: tuple[str, ...] = ()
    """What the user should know of it."""

    def write(self, folder: Path) -> None:
        """Write it into a run folder."""
        with written_aside(folder / SOURCE) as aside:
            aside.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    def __str__(self) -> str:
        """Return it in one line."""
        return "; ".join((f"{self.source}: {self.family}", *self.notes, f"licence: {self.licence}"))


def read_source(folder: Path) -> Source | None:
    """Return where the weights of a run come from; None if it was not imported.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / SOURCE
    if not path.exists():
        return None
    with reading(path, "restore it from a backup, or delete it"):
        return from_dict(Source, read_json(path), SOURCE)


class ForeignModel(NamedTuple):
    """A classifier or an encoder of other code."""

    config: RunConfig
    """The settings that a run of it would have, without training."""
    objective: Objective
    """The network with its weights."""
    source: Source
    """Where it comes from."""


def open_foreign(source: str, given: Given | None = None) -> ForeignModel:
    """Return the classifier in a file of other code, or else its encoder; no code of it is run.

    Args:
        source: see :func:`melpatch.weight_files.read_weights`.
        given: what the user says of it.

    Raises:
        CheckpointError: the source cannot be read, or a weight is no finite number.
        ConfigError: its format is unknown, a part is missing or of another shape, or what is given
            is of a classifier but the file holds none.
    """
    given = given or Given()
    foreign = Foreign(source, given.reading)
    head = foreign.head()
    if head is None:
        return _encoder(foreign, given)
    return _classifier(foreign, head, given)


def _encoder(foreign: Foreign, given: Given) -> ForeignModel:
    """Return an encoder without a head.

    Raises:
        ConfigError: labels are given for it.
    """
    if (given.labels, given.multi_label, given.pooling) != (None, None, None):
        raise ConfigError(
            f"{foreign.source}: {foreign.format.family} without a classifier that is read, so that "
            "there is nothing to give labels or a pooling to; train a classifier with melpatch finetune "
            f"--init {foreign.source}"
        )
    config, notes = _settings(foreign, EncoderOnly.Config())
    with foreign.named():
        objective = build_unfilled(config)
    notes += foreign.fill(objective.encoder)
    return ForeignModel(config, objective, _about(foreign, ("an encoder for embeddings", *notes)))


def _classifier(foreign: Foreign, head: Head, given: Given) -> ForeignModel:
    if given.pooling is not None:
        head = replace(head, pooling=given.pooling, notes=())
    state = _head_state(foreign, head)
    labels, named = _labels(foreign, head, given, len(state[f"{head.linear}.weight"]))
    multi_label, answers = _answers(head, given, len(labels))
    settings = Classify.Config(
        pooling=head.pooling,
        head="linear" if head.norm is None else "normed",
        head_norm_eps=head.norm_eps,
        multi_label=multi_label,
    )
    config, notes = _settings(foreign, settings, labels, head.seconds)
    with foreign.named():
        objective = build_unfilled(config)
    assert isinstance(objective, Classify)
    notes += foreign.fill(objective.encoder, state)
    _fill_head(foreign, head, state, objective)
    about = _about(foreign, (named, answers, *head.notes, *notes))
    return ForeignModel(config, objective, about)


def _about(foreign: Foreign, notes: tuple[str, ...]) -> Source:
    return Source(
        source=foreign.source,
        family=foreign.format.family,
        licence=foreign.format.licence,
        notes=notes,
    )


def filling(
    loader: LoaderConfig, front_end: LogMel.Config, trained_on: int | None = None
) -> LoaderConfig:
    """Return the settings with segments as long as the clips that weights were trained on.

    Args:
        loader: the settings to change.
        front_end: the front end of the weights, whose ``target_frames`` count if it has them.
        trained_on: frames of these clips otherwise; None if the weights do not say it.
    """
    frames = front_end.target_frames or trained_on
    if frames is None:
        return loader
    samples = front_end.overhead + (frames - 1) * front_end.hop_length
    return replace(loader, seconds=round(samples / front_end.sample_rate, 3))


def _settings(
    foreign: Foreign, settings: Any, labels: tuple[str, ...] = (), seconds: float | None = None
) -> tuple[RunConfig, list[str]]:
    """Return the settings of a run, and notes on them.

    Args:
        foreign: the model.
        settings: those of its objective.
        labels: its classes.
        seconds: length of its input, if the head says it.
    """
    published = foreign.published()
    if published.front_end is None:
        raise ConfigError(
            f"{foreign.source}: {foreign.format.family}, of images or of spectrograms that the file "
            "does not describe, so that no front end is known; start from it with melpatch finetune"
        )
    loader = filling(LoaderConfig(), published.front_end, published.frames)
    if seconds is not None:
        loader = replace(loader, seconds=seconds)
    kind: type[Objective] = owner(settings)
    with foreign.named():
        kind.check_encoder(owner(published.encoder))
        config = RunConfig(
            labels=labels,
            front_end=published.front_end,
            encoder=published.encoder,
            objective=settings,
            loader=loader,
            # As of any run whose weights were not trained here.
            train=TrainConfig(steps=0),
        )
    return config, [*published.notes]


def _head_state(foreign: Foreign, head: Head) -> dict[str, Tensor]:
    """Return the tensors of the head under their names in the file.

    Raises:
        CheckpointError: a weight is no finite number.
        ConfigError: a tensor is missing, or the linear layer's is no matrix.
    """
    layers = [head.linear] if head.norm is None else [head.norm, head.linear]
    state: dict[str, Tensor] = {}
    for name in [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]:
        if name not in foreign.weights.state:
            raise ConfigError(
                f"{foreign.source}: no {name}, which the head of {foreign.format.family} has; give "
                "the whole published file"
            )
        value = foreign.weights.state[name]
        if not value.is_floating_point():
            raise ConfigError(
                f"{foreign.source}: {name} holds {value.dtype} numbers instead of floats; give the "
                "published file, not one whose weights were rounded"
            )
        state[name] = value
    weight = state[f"{head.linear}.weight"]
    if weight.ndim != 2:
        raise ConfigError(
            f"{foreign.source}: {head.linear}.weight has the shape {_size(weight)}; wanted: a "
            "matrix (class, channel); give the published file"
        )
    require_finite(state, foreign.source)
    return state


def _fill_head(foreign: Foreign, head: Head, state: dict[str, Tensor], objective: Classify) -> None:
    """Load the tensors of the head into a classifier.

    Raises:
        ConfigError: they are not of its size.
    """
    own_names = {head.linear: "1", head.norm: "0"}
    if head.norm is None:
        own_names = {head.linear: ""}
    wanted = objective.head.state_dict()
    renamed = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        own_name = f"{own_names[layer]}.{kind}".lstrip(".")
        if value.shape != wanted[own_name].shape:
            raise ConfigError(
                f"{foreign.source}: {name} is {_size(value)}, expected {_size(wanted[own_name])} "
                f"behind pooling {head.pooling}; give the published file, or its --pooling"
            )
        renamed[own_name] = value
    with foreign.named():
        load_into(objective.head, renamed)


def _labels(foreign: Foreign, head: Head, given: Given, number: int) -> tuple[tuple[str, ...], str]:
    """Return the names of the classes, and a note on where they come from.

    Raises:
        ConfigError: there are more or fewer names than classes, or a name is given twice.
    """
    labels = tuple(head.labels)
    where = foreign.source
    if given.labels is not None:
        labels = given.labels
        where = given.labels_from
    elif not labels:
        note = f"{number} classes without names, so they are numbers (--labels FILE names them)"
        return tuple(map(str, range(number))), note
    if len(labels) != number:
        raise ConfigError(
            f"{where}: {len(labels)} classes, but {head.linear}.weight of {foreign.source} has "
            f"{number}; give the class list that it was trained with in --labels"
        )
    require_names(labels, where)
    return labels, f"{number} classes"


def _answers(head: Head, given: Given, classes: int) -> tuple[bool, str]:
    """Return whether a clip may have several labels, and a note on why."""
    why = "as given"
    multi_label = given.multi_label
    if multi_label is None:
        why = "as the model says"
        multi_label = head.multi_label
    if multi_label is None:
        multi_label = classes == _AUDIOSET
        why = "as AudioSet has" if multi_label else "which the file does not say, see --multi-label"
    if multi_label:
        return True, f"several labels per clip, a sigmoid each ({why})"
    return False, f"one label per clip, a softmax over all ({why})"


def _size(value: Any) -> str:
    return " x ".join(map(str, value.shape)) or "one number"
