"""The contract of an encoder: spectrograms in, tokens out, and what training needs to know.

An encoder of one's own is one file: a class derived from :class:`Encoder`, or from
:class:`TokenEncoder` where objectives shall mask or drop patches, with its settings nested in it as
``Config``, a frozen dataclass derived from :class:`EncoderConfig`. Its layers may have any names.
``--encoder package.module:Class`` then trains it, and ``tests/contracts/test_encoders.py`` checks
what is promised here; ``tests/encoders/toy_hybrid.py`` is an example.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from melpatch.errors import ConfigError
from melpatch.nn.grid import PatchGrid, Places
from melpatch.nn.masking import Subset
from melpatch.nn.pooling import ALL_LAYERS, LayerOutputs, Pooling
from melpatch.nn.positions import Resize
from melpatch.registry import name_of

MOST_LAYERS = 256
"""Most layers of an encoder; each is an object of its own, even before it has weights."""


class Encoded(NamedTuple):
    """What an encoder returns."""

    patches: Float[Tensor, "clip token dim"]
    """Patch tokens after the final norm, in the order they were given."""
    cls: Float[Tensor, "clip cls dim"]
    """Special tokens after the final norm; there may be none."""
    layers: tuple[Float[Tensor, "clip clsandtoken _"], ...]
    """Output of every layer before the final norm (after it, if so asked), special tokens first;
    empty unless asked for.
    Only a :class:`TokenEncoder` promises ``dim`` channels in each."""

    def pooled_tokens(
        self, pooling: Pooling, statistics: Float[Tensor, "clip token _"] | None = None
    ) -> tuple[Float[Tensor, "clip token _"], Float[Tensor, "clip cls _"]]:
        """Return the patch and class tokens that a pooling takes.

        Args:
            pooling: how they will be pooled: those of the final norm, or of layers.
            statistics: what :meth:`Encoder.input_statistics` returned, which stands beside patches.

        Raises:
            ConfigError: layers of different width were to be averaged.
        """
        patches, cls = self._tokens_of_layers(pooling)
        if statistics is not None:
            patches = torch.cat([patches, statistics], dim=2)
            cls = patches[:, :0]  # such a pooling takes no class tokens, which have no patch
        return patches, cls

    def _tokens_of_layers(
        self, pooling: Pooling
    ) -> tuple[Float[Tensor, "clip token _"], Float[Tensor, "clip cls _"]]:
        if not pooling.layers:
            return self.patches, self.cls
        chosen = self.layers
        if pooling.layers != ALL_LAYERS:
            chosen = tuple(self.layers[number - 1] for number in pooling.layers)
        if not pooling.average_layers:
            tokens = torch.cat(chosen, dim=2)
        elif len({layer.shape[2] for layer in chosen}) == 1:
            tokens = torch.stack(chosen).mean(dim=0)
        else:
            raise ConfigError(
                f"pooling = '{pooling}'; allowed: layers={','.join(map(str, pooling.layers))}, "
                "since the layers of this encoder differ in width"
            )
        cls_tokens = self.cls.shape[1]
        return tokens[:, cls_tokens:], tokens[:, :cls_tokens]


def valid_frames(
    spectrogram: Float[Tensor, "clip mel frame"], frames: Int[Tensor, " clip"] | None
) -> Bool[Tensor, "clip frame"] | None:
    """Return which frames are valid, given their number in each clip; None without padding."""
    if frames is None:
        return None
    return torch.arange(spectrogram.shape[2], device=frames.device) < frames[:, None]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(ABC):
    """What the settings of every encoder can do: a frozen dataclass derived from this class."""

    @classmethod
    @abstractmethod
    def of_size(cls, size: str, **settings: Any) -> "EncoderConfig":
        """Return the settings of a size (nano, mini, tiny, small, base, large), changed as given.

        Raises:
            ConfigError: there is no such size, or a setting is out of range.
        """

    def fit_positions(self, n_mels: int, frames: int) -> "EncoderConfig":
        """Return the settings with learned positions for spectrograms of this size.

        Args:
            n_mels: mel bins of the spectrograms.
            frames: the most frames that the encoder gets at once.
        """
        return self

    def with_recipe(self, recipe: "EncoderConfig") -> "EncoderConfig":
        """Return these settings of trained weights with what a recipe may change about them.

        What a recipe may change leaves the shapes of the weights alone, apart from positions, which
        are resized: drop path, another stride.

        Args:
            recipe: the encoder settings of the recipe, maybe of another kind of encoder.

        Raises:
            ConfigError: the recipe is for another geometry, such as another patch size.
        """
        return self


class Encoder(nn.Module, ABC):
    """A spectrogram encoder: it knows patches and positions, not masks, labels or losses.

    It is built as ``Kind(config, n_mels)``; ``Kind()`` and ``Kind(size="tiny")`` work too, see
    :meth:`resolve`.

    Attributes:
        Config: the class of its settings, nested in the encoder's own class.
        config: the settings it was built with.
        embed_dim: channels of a token.
        num_layers: number of layers, which layer-wise decay and ``Encoded.layers`` count.
        num_cls_tokens: number of special tokens in ``Encoded.cls``; may be 0.
        grid: the geometry of its tokens.
    """

    Config: type[EncoderConfig]
    config: EncoderConfig
    embed_dim: int
    num_layers: int
    num_cls_tokens: int
    grid: PatchGrid

    @property
    def length_dependent(self) -> bool:
        """Whether a clip's tokens depend on the length of its batch; false by default."""
        return False

    @abstractmethod
    def ordered_layers(self) -> Sequence[nn.Module]:
        """Return the modules of the :attr:`num_layers` layers, nearest to the input first."""

    def require_pooling(self, pooling: Pooling) -> None:
        """Raise ConfigError unless this encoder has the layers and tokens of a pooling."""
        pooling.require(self.num_layers, self.num_cls_tokens)

    def pooled_channels(self, pooling: Pooling) -> int:
        """Return the channels of the patch tokens that a pooling takes."""
        beside = 2 * self.grid.patch[0] if pooling.takes_input else 0
        return pooling.token_dim(self.embed_dim, self.num_layers) + beside

    def final_layers(self) -> Sequence[nn.Module]:
        """Return what follows the last layer, such as a norm; nothing by default."""
        return ()

    def learned_tokens(self) -> Set[str]:
        """Return the names of parameters that are tokens or positions, which are not decayed.

        Biases, and gains of norms, need not be listed.
        """
        return frozenset()

    def parameter_layers(self) -> dict[str, int]:
        """Return the layer of every parameter by name, as layer-wise decay counts them.

        Layer 0 is what comes before the layers (patch projection, special tokens, positions), 1 to
        :attr:`num_layers` are the layers, and ``num_layers + 1`` is what follows them.
        """
        layers: dict[Tensor, int] = {}
        for number, module in enumerate(self.ordered_layers(), start=1):
            layers |= dict.fromkeys(module.parameters(), number)
        for module in self.final_layers():
            layers |= dict.fromkeys(module.parameters(), self.num_layers + 1)
        return {name: layers.get(parameter, 0) for name, parameter in self.named_parameters()}

    def match_geometry(self, target: "Encoder", how: Resize | None = None) -> None:
        """Resize what depends on mels, stride and length to fit the weights to another encoder.

        By default nothing depends on them. The encoder takes over the target's grid and the
        settings that describe it.

        Args:
            target: the encoder that will load the weights; it is not changed.
            how: the way of resizing positions, see :func:`melpatch.nn.positions.resize`; None
                leaves it to the encoder.

        Raises:
            ConfigError: the geometries cannot be matched.
        """

    def normalise(
        self, spectrogram: Float[Tensor, "clip mel frame"], frames: Int[Tensor, " clip"] | None
    ) -> Float[Tensor, "clip mel frame"]:
        """Return the spectrograms as :meth:`forward` expects them; by default unchanged.

        Args:
            spectrogram: what the front end returned.
            frames: number of valid frames of each clip, None where no clip is padded.
        """
        return spectrogram

    @abstractmethod
    def forward(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        valid: Bool[Tensor, "clip token"] | None = None,
        layers: LayerOutputs = False,
    ) -> Encoded:
        """Encode whole spectrograms.

        Args:
            spectrogram: what :meth:`normalise` returned, zeros past each clip's end.
            valid: False for padding, which influences nothing; None, which is faster, if there is
                no padding.
            layers: whether to return the output of every layer too; "normed" for what the final
                norm makes of each, where it follows the last layer.
        """

    def input_statistics(
        self, spectrogram: Float[Tensor, "clip mel frame"], pooling: Pooling
    ) -> Float[Tensor, "clip token _"] | None:
        """Return the statistics of each patch if a pooling takes them, else None.

        They are data: no gradient passes through them, which would have no bound where a mel bin
        does not change.

        Args:
            spectrogram: see :meth:`forward`.
            pooling: how the tokens will be pooled.
        """
        return self.grid.statistics(spectrogram.detach()) if pooling.takes_input else None

    @classmethod
    def resolve(cls, config: Any, size: str | None) -> Any:
        """Return the settings to build with: those given, those of a size, or the defaults.

        Raises:
            ConfigError: both settings and a size are given.
        """
        if size is None:
            return cls.Config() if config is None else config
        if config is not None:
            raise ConfigError(
                f"size = {size!r} beside a config; give one of them, or "
                f"{cls.__name__}.Config.of_size({size!r}, ...) with the settings that differ"
            )
        return cls.Config.of_size(size)


class TokenEncoder(Encoder):
    """An encoder that takes any subset of tokens, as objectives that mask patches need.

    Its layers all have :attr:`embed_dim` channels.
    """

    @abstractmethod
    def embed(
        self, spectrogram: Float[Tensor, "clip mel frame"]
    ) -> Float[Tensor, "clip token dim"]:
        """Return the embedded patches, without positions, numbered as in :attr:`grid`.

        A patch's token may depend on the pixels of this patch only, else masked patches leak into
        visible ones.
        """

    @abstractmethod
    def positions(self, columns: int) -> Float[Tensor, "token dim"]:
        """Return the positions of a grid with this many columns.

        A column's vector does not depend on the number of columns, unless the encoder is
        :attr:`length_dependent`.
        """

    @abstractmethod
    def encode_tokens(
        self,
        tokens: Float[Tensor, "clip token dim"],
        valid: Bool[Tensor, "clip token"] | None = None,
        layers: LayerOutputs = False,
        places: Places | None = None,
    ) -> Encoded:
        """Transform any subset of tokens, in any order.

        Args:
            tokens: what :meth:`tokens` returned, or part of it, or what replaces it (a mask
                embedding).
            valid: see :meth:`forward`.
            layers: see :meth:`forward`.
            places: where the tokens lie; None if they are a whole grid. An encoder whose positions
                are in the tokens has no use for it.
        """

    def encode_subset(
        self,
        tokens: Float[Tensor, "clip token dim"],
        subset: Subset,
        valid: Bool[Tensor, "clip place"] | None = None,
        layers: LayerOutputs = False,
    ) -> Encoded:
        """Transform some tokens of whole grids, which keep their places.

        Args:
            tokens: all tokens of each clip, see :meth:`encode_tokens`.
            subset: those that are transformed.
            valid: those of the subset that are no padding; see :meth:`forward`.
            layers: see :meth:`forward`.
        """
        places = Places(subset.indices, tokens.shape[1] // self.grid.rows)
        return self.encode_tokens(subset.gather(tokens), valid, layers, places)

    def mlp_outputs(
        self,
        tokens: Float[Tensor, "clip token dim"],
        valid: Bool[Tensor, "clip token"] | None = None,
    ) -> tuple[Tensor, ...]:
        """Return what the MLP of every layer adds, (clip, token, dim) without special tokens.

        Args:
            tokens: see :meth:`encode_tokens`.
            valid: see :meth:`forward`.

        Raises:
            ConfigError: the layers of this encoder have no such part, which is the default.
        """
        raise ConfigError(f"the layers of {name_of(type(self))} have no MLP of their own")

    def least_values(self, tokens: int) -> int:
        """Return how many numbers a clip keeps at least for the backward pass, per clip.

        Args:
            tokens: patches of the clip that are encoded.
        """
        return tokens * self.embed_dim

    def tokens(
        self, spectrogram: Float[Tensor, "clip mel frame"]
    ) -> Float[Tensor, "clip token dim"]:
        """Return the embedded patches plus their positions, in the precision of the former."""
        embedded = self.embed(spectrogram)
        columns = self.grid.columns(spectrogram.shape[2])
        return embedded + self.positions(columns).to(embedded.dtype)

    def forward(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        valid: Bool[Tensor, "clip token"] | None = None,
        layers: LayerOutputs = False,
    ) -> Encoded:
        """Encode whole spectrograms: :meth:`encode_tokens` of :meth:`tokens`."""
        return self.encode_tokens(self.tokens(spectrogram), valid, layers)
