"""The contract of a weight format, and how an encoder starts from weights of other code."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor

from melpatch import registry
from melpatch.audio.logmel import LogMel
from melpatch.checkpoint import load_into, require_finite
from melpatch.config import check
from melpatch.encoders.base import Encoder, EncoderConfig
from melpatch.errors import ConfigError, shortened
from melpatch.handed_over import hand_over, taken_over
from melpatch.nn.positions import Resize
from melpatch.objectives.base import Objective
from melpatch.weight_files import Weights, read_weights

Channels = Literal["sum", "mean"]
Axes = Literal["mel_frame", "frame_mel"]


class _Unsupported(NamedTuple):
    """A family that no encoder here supports."""

    pattern: str
    """Pattern of a key that only this family has."""
    reason: str
    """What no encoder here has, in words."""


_UNSUPPORTED = {
    "wav2vec 2.0, HuBERT or WavLM": _Unsupported(
        r"feature_extractor\.conv_layers\.0\.", "it convolves the waveform instead of a spectrogram"
    ),
    "data2vec 2.0": _Unsupported(
        r"(^|\.)modality_encoders\.(?!IMAGE\.)",
        "it convolves the waveform instead of a spectrogram",
    ),
    "a Conformer": _Unsupported(r"(^|\.)conv_module\.", "its blocks convolve along time"),
    "HTS-AT": _Unsupported(
        r"(^|\.)tscam_conv\.", "it is a Swin transformer, with attention in windows"
    ),
    # Not in the decoder: that of Audio-MAE is a Swin, its encoder a plain ViT.
    "a Swin transformer or BEiT": _Unsupported(
        r"^(?!decoder).*(relative_position|rel_pos)", "its attention has relative positions"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How weights are read, where they do not say it themselves."""

    channels: Channels = "sum"
    """Whether the three colour channels of a kernel are summed, as AST does, or averaged."""
    how: Resize | None = None
    """How positions are resized, see :func:`melpatch.nn.positions.resize`; None: as the family's
    code does."""
    axes: Axes | None = None
    """Axes of the images that the kernel sees, the slower one first; None: those of the family."""
    num_heads: int | None = None
    """Attention heads, for a width that is not a published one."""


class Published(NamedTuple):
    """The settings that published weights were trained with."""

    encoder: EncoderConfig
    """Settings of the encoder; those that the weights leave open are the defaults."""
    front_end: LogMel.Config | None = None
    """Front end and statistics; None for models of images."""
    notes: Sequence[str] = ()
    """What the user should know of these settings, such as what the file does not hold."""
    frames: int | None = None
    """Frames of the longest clips that the encoder was trained on, where the front end fixes none."""


class Converted(NamedTuple):
    """Published weights, converted for an encoder."""

    state: dict[str, Tensor]
    """The complete state dict of the encoder."""
    notes: list[str]
    """How the weights were changed to fit, for the user."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """A published classifier behind an encoder: pooling, perhaps a LayerNorm, and a linear layer.

    Its layers are named as in the file: ``linear = "mlp_head.1"`` stands for the tensors
    ``mlp_head.1.weight`` and ``mlp_head.1.bias``.
    """

    linear: str
    """Name of the linear layer, from the pooled vector to the logits."""
    norm: str | None = None
    """Name of the LayerNorm before it; None if there is none."""
    norm_eps: float = 1e-5
    """Epsilon of that LayerNorm."""
    pooling: str = "cls"
    """Tokens to vector, spelled as in :mod:`melpatch.nn.pooling`."""
    labels: Sequence[str] = ()
    """Names of the classes in the order of the logits; empty if the file does not hold them."""
    multi_label: bool | None = None
    """Whether each class has a sigmoid of its own; None if neither file nor family says it."""
    seconds: float | None = None
    """Longest input; None for that of the front end, or 10 s."""
    notes: Sequence[str] = ()
    """What the user should know, such as what the file does not say."""


class WeightFormat(ABC):
    """A format of published weights: its key names, and how they map to an encoder's.

    Attributes:
        family: the models published in this format, for messages.
        encoder: registered name of the encoder that takes the weights.
        files: files or names on the Hub that are published in it.
        needs: what reading them takes besides the file.
        licence: licence of the published weights.
        hub: their names on the Hugging Face Hub, as ``--init`` takes them.
        self_described: whether its files hold all settings, so that they are recognised first.
    """

    family: ClassVar[str]
    encoder: ClassVar[str]
    files: ClassVar[str] = "not stated"
    needs: ClassVar[str] = "nothing else"
    licence: ClassVar[str] = "not stated"
    hub: ClassVar[str] = "none known"
    self_described: ClassVar[bool] = False

    @abstractmethod
    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether weights are of this format.

        Args:
            weights: what a file holds.
            axes: axes of its images, if the user says them; they decide between formats of the same
                names.

        Raises:
            ConfigError: they may be of this format or of another.
        """

    @abstractmethod
    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings that the weights were trained with.

        Raises:
            ConfigError: the weights do not say them; the message names the flag that does.
        """

    @abstractmethod
    def convert(self, weights: Weights, encoder: Any, reading: Reading) -> Converted:
        """Return the weights converted for an encoder.

        Args:
            weights: tensors under their published names, and what is known of them.
            encoder: an encoder of the class that :attr:`encoder` names; it is not changed.
            reading: how they are read.

        Raises:
            ConfigError: they do not fit the encoder; the message names the flag that makes it fit.
        """

    def head(self, weights: Weights, reading: Reading) -> Head | None:
        """Return the classifier that the weights hold; None if they hold none, or none that is read.

        Args:
            weights: what a file holds.
            reading: how they are read.

        Raises:
            ConfigError: there is one, but something that it needs is missing.
        """
        return None


def left_out(parts: Set[str]) -> list[str]:
    """Return a note on the parts of a file that are left out; no note if there are none."""
    return [f"left out: {', '.join(sorted(parts))}"] if parts else []


class Foreign:
    """Weights of other code that have been read, and whose format is known.

    Args:
        source: see :func:`melpatch.weight_files.read_weights`.
        reading: how they are read.

    Attributes:
        source: where they come from.
        weights: what the file holds.
        format: whose weights they are.

    Raises:
        CheckpointError: the source cannot be read.
        ConfigError: its format is unknown.
    """

    def __init__(self, source: str, reading: Reading | None = None) -> None:
        self.source = source
        self.weights = taken_over(source) or read_weights(source)
        self._reading = reading or Reading()
        with self.named():
            self.format = recognise(self.weights, reading)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Put the source before the message of a ConfigError that the body raises."""
        try:
            yield
        except ConfigError as error:
            raise ConfigError(f"{self.source}: {error}") from error

    def published(self) -> Published:
        """Return the settings that the weights were trained with.

        Raises:
            ConfigError: the weights do not say what is needed.
        """
        with self.named(), _of_its_shapes(self.format):
            published = self.format.published(self.weights, self._reading)
            # Some formats tell the heads themselves, and some networks have none.
            asked, heads = self._reading.num_heads, getattr(published.encoder, "num_heads", "none")
            check(asked in (None, heads), "num_heads", asked, f"{heads}, as the weights say")
        return published

    def head(self) -> Head | None:
        """Return the classifier that the weights hold, if any; see :meth:`WeightFormat.head`."""
        with self.named(), _of_its_shapes(self.format):
            return self.format.head(self.weights, self._reading)

    def fill(self, encoder: Encoder, besides: Collection[str] = ()) -> list[str]:
        """Load the weights into an encoder, and return notes for the user.

        Args:
            encoder: the encoder.
            besides: names of tensors that are not for the encoder.

        Raises:
            CheckpointError: a weight that is used is no finite number.
            ConfigError: the weights do not fit the encoder.
        """
        with self.named():
            _require_encoder(encoder, self.format, self.weights.state.keys())
            state = {key: value for key, value in self.weights.state.items() if key not in besides}
            weights = self.weights._replace(state=state)
            converted = _converted(self.format, weights, encoder, self._reading)
            # Only what is used counts: the parts that are left out may hold masks of -inf.
            require_finite(converted.state, self.source)
            load_into(encoder, converted.state)
        return converted.notes


def published_settings(source: str, reading: Reading | None = None) -> tuple[str, Published]:
    """Return the encoder's name and the settings that published weights were trained with.

    The next :class:`Foreign` of the source, whose arguments and errors these are, reads nothing.
    """
    foreign = Foreign(source, reading)
    hand_over(source, foreign.weights)
    return foreign.format.encoder, foreign.published()


def start_from_weights(objective: Objective, source: str, reading: Reading | None = None) -> str:
    """Load published weights into an objective's encoder; return a sentence for the user on it.

    See :class:`Foreign` for the other arguments, and :meth:`Foreign.fill` for the errors.
    """
    foreign = Foreign(source, reading)
    notes = foreign.fill(objective.encoder)
    notes = [foreign.format.family, *notes, *_notes_on_settings(foreign)]
    return f"the encoder starts from {source}: {'; '.join(notes)}"


def _notes_on_settings(foreign: Foreign) -> Sequence[str]:
    """Return what the user should know of the settings of weights, whether or not they are used."""
    try:
        return foreign.format.published(foreign.weights, Reading()).notes
    # Where heads or axes are not known, the user has given them all.
    except (ConfigError, *_DAMAGE):
        return ()


@contextmanager
def _of_its_shapes(weight_format: WeightFormat) -> Iterator[None]:
    """Refuse tensors of other shapes than the format's, on which the body fails."""
    try:
        yield
    except _DAMAGE as error:
        raise _not_of(weight_format, error) from error


def _converted(
    weight_format: WeightFormat, weights: Weights, encoder: Encoder, reading: Reading
) -> Converted:
    """Return the weights converted for an encoder.

    Raises:
        ConfigError: they do not fit, or their shapes are not those of the format.
    """
    # Checked for all formats at once: numbers of other types are averaged and resized wrongly.
    for name, value in weights.state.items():
        if value.is_complex():
            raise ConfigError(f"{shortened(name, typed=True)} holds complex numbers, not weights")
    with _of_its_shapes(weight_format):
        converted = weight_format.convert(weights, encoder, reading)
    _require_shapes(converted.state, encoder)
    return converted


# What a format does with a tensor or a setting of another kind, or without one of them.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def _not_of(weight_format: WeightFormat, error: Exception) -> ConfigError:
    reason = str(error).splitlines()[-1].strip() if str(error) else ""
    return ConfigError(
        f"the tensors are not those of {weight_format.family} "
        f"({type(error).__name__}: {shortened(reason, typed=True)}); give the published file"
    )


def _require_shapes(state: Mapping[str, Tensor], encoder: Encoder) -> None:
    """Raise ConfigError at the first tensor that is missing, or is of another shape than wanted."""
    for name, wanted in encoder.state_dict().items():
        value = state.get(name)
        if value is None:
            raise ConfigError(
                f"no weights for {name}, {_size(wanted)}, of the encoder; give the whole published "
                "file, or the settings that the weights were trained with"
            )
        if value.shape != wanted.shape:
            raise ConfigError(
                f"{name} is {_size(value)} in the file, but {_size(wanted)} in the encoder; leave "
                "out the flags of the encoder to take the settings of the weights"
            )


def _size(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "one number"


def _require_encoder(encoder: Encoder, weight_format: WeightFormat, keys: Set[str]) -> None:
    """Raise ConfigError if the encoder is not of the class that takes weights in this format."""
    if isinstance(encoder, registry.find("encoders", weight_format.encoder)):
        return
    first_keys = shortened(", ".join(list(keys)[:3]), typed=True)
    raise ConfigError(
        f"looks like {weight_format.family} (keys {first_keys}...), but the encoder is "
        f"{registry.name_of(type(encoder))}; use --encoder {weight_format.encoder}"
    )


def recognise(weights: Weights, reading: Reading | None = None) -> WeightFormat:
    """Return the format of weights.

    Args:
        weights: what a file holds.
        reading: how they are read.

    Raises:
        ConfigError: the format is not supported or not certain; the message names its family if it
            is known.
    """
    keys = weights.state.keys()
    names = registry.all_names("interop")
    formats: list[WeightFormat] = [registry.find("interop", name)() for name in names]
    allowed = "; ".join(weight_format.family for weight_format in formats)
    # Unsupported families come first: some of them have the keys of a supported one as well.
    for family, unsupported in _UNSUPPORTED.items():
        for key in keys:
            if re.search(unsupported.pattern, key):
                raise ConfigError(
                    f"looks like {family} (key {shortened(key, typed=True)}), "
                    f"which no encoder here can take ({unsupported.reason}); "
                    f"allowed: {allowed}"
                )
    axes = None if reading is None else reading.axes
    for weight_format in sorted(formats, key=lambda known: not known.self_described):
        if _recognises(weight_format, weights, axes):
            return weight_format
    first_keys = shortened(", ".join(sorted(keys)[:3]), typed=True)
    raise ConfigError(f"weights of an unknown format (keys {first_keys}...); allowed: {allowed}")


def _recognises(weight_format: WeightFormat, weights: Weights, axes: Axes | None) -> bool:
    """Return whether weights are of a format; those that it cannot look at are not."""
    try:
        return weight_format.recognises(weights, axes)
    except _DAMAGE:
        return False
