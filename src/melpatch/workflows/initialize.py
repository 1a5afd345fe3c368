"""Initialise an encoder from a run folder or from foreign weights."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from melpatch import registry
from melpatch.audio.logmel import LogMel
from melpatch.checkpoint import load_into
from melpatch.config import check, owner
from melpatch.encoders.vit import SIZES
from melpatch.errors import ConfigError
from melpatch.interop.base import Published, Reading, published_settings, start_from_weights
from melpatch.nn.positions import Resize
from melpatch.objectives.base import Objective
from melpatch.progress import notice
from melpatch.recipes.base import onto
from melpatch.training.config import RunConfig
from melpatch.training.foreign import filling
from melpatch.training.start import OF_A_CORPUS, load_run
from melpatch.weight_files import ENDINGS, HUB, is_there, is_weights

_SIZES = ("embed_dim", "depth", "num_heads", "mlp_ratio", "width")
"""Settings that the shapes of weights decide, in any kind of encoder."""

SCRATCH = "scratch"
"""The value of ``init`` that asks for random weights."""


def is_run(init: str) -> bool:
    """Return whether ``init`` names a run folder rather than foreign weights.

    Raises:
        ConfigError: ``init`` names neither.
    """
    weights = is_weights(init)
    problem = "which holds no config.toml" if Path(init).exists() else "which does not exist"
    allowed = (
        f"a run folder, a folder of Hugging Face, a weight file ({', '.join(ENDINGS)}), {HUB}owner/name "
        f"or, for a classifier, scratch; this is {init}, {problem}"
    )
    check(weights or Path(init, "config.toml").is_file(), "init", init, allowed)
    return not weights


def source_run(init: str, encoder_from: Path | None = None) -> Path | None:
    """Return the run whose front end and encoder a classifier takes, or None.

    That is ``init`` if it is a run, else ``encoder_from``.

    Raises:
        ConfigError: ``init`` is neither a run, nor a weight file, nor ``scratch``.
    """
    if init != SCRATCH and is_run(init):
        return Path(init)
    return encoder_from


def refuse_decided(
    run: Path, size: str | None, encoder: str | None, encoder_from: Path | None
) -> None:
    """Raise ConfigError if a flag was given whose value a run decides.

    Args:
        run: the run whose front end and encoder are taken.
        size: the value of --size, if it was given.
        encoder: the value of --encoder, if it was given.
        encoder_from: the value of --encoder-from, if it was given; it may be the run itself.
    """
    decided = {"--size": size, "--encoder": encoder}
    if encoder_from is not None and encoder_from != run:
        decided["--encoder-from"] = str(encoder_from)
    for flag, value in decided.items():
        allowed = f"nothing, since front end and encoder are those of {run}; leave it out"
        check(value is None, flag, value, allowed)


def initialize_encoder(
    objective: Objective,
    init: str,
    resize: Resize | None = None,
    reading: Reading | None = None,
    *,
    trust_code: bool = False,
) -> None:
    """Load the weights that ``init`` names into the encoder of an objective.

    Args:
        objective: the objective whose encoder gets the weights; its heads stay random.
        init: run folder, weight file, or ``hf:owner/name`` for a Hub repository.
        resize: how learned positions are fitted to the encoder's grid; None takes the default of
            the source.
        reading: how weights of other code are read; its way of resizing is ``resize``.
        trust_code: whether the run may name code outside melpatch, which is then run.

    Raises:
        CheckpointError: the weights cannot be read.
        ConfigError: the weights do not fit the encoder.
    """
    if is_run(init):
        copy_encoder(objective, Path(init), resize, trust_code=trust_code)
    else:
        reading = replace(reading or Reading(), how=resize)
        notice(start_from_weights(objective, init, reading))


def as_published(
    recipe: RunConfig,
    init: str | None,
    reading: Reading,
    *,
    size: str | None = None,
    encoder: str | None = None,
) -> RunConfig:
    """Return a classifier's recipe with the settings that foreign weights were trained with.

    Front end and encoder are those of the weights, except for what a paper's recipe sets, as for a
    run (:func:`melpatch.recipes.base.onto`). Image weights have no front end and no stride; there
    the recipe's stay. Without weights of other code, the recipe is returned as it is.

    Args:
        recipe: the settings of the recipe.
        init: what --init names, if anything.
        reading: how the weights are read.
        size: the size that the user gave, which must be that of the weights.
        encoder: the kind of encoder that the user gave.

    Raises:
        CheckpointError: the weights cannot be read.
        ConfigError: their format is unknown, or they do not go with the recipe.
    """
    published = _published_for(init, reading, encoder)
    if published is None:
        return recipe
    objective: Any = owner(recipe.objective)
    objective.check_encoder(owner(published.encoder))
    front_end = published.front_end or recipe.front_end
    loader = filling(recipe.loader, front_end, published.frames)
    trained = replace(recipe, front_end=front_end, encoder=published.encoder, loader=loader)
    config = onto(recipe, trained)
    if recipe.front_end.target_frames is None:
        # A recipe for any length takes segments as long as the weights' spectrograms.
        config = replace(config, loader=loader)
    return replace(config, encoder=_of_size(config.encoder, size))


def sized_as_published(
    recipe: RunConfig,
    init: str | None,
    reading: Reading,
    *,
    size: str | None = None,
    encoder: str | None = None,
) -> RunConfig:
    """Return a pretraining recipe with an encoder of the size and kind of foreign weights.

    Weights of spectrograms bring their patches, positions and front end too; how clips are padded
    stays the recipe's. See :func:`as_published`.
    """
    published = _published_for(init, reading, encoder)
    if published is None or type(published.encoder) is not type(recipe.encoder):
        return recipe
    if published.front_end is None:
        names = [name for name in (*_SIZES, "norm_eps") if hasattr(published.encoder, name)]
        values = {name: getattr(published.encoder, name) for name in names}
        sized = replace(recipe.encoder, **values)
        return replace(recipe, encoder=_of_size(sized, size))
    front_end = _padded_as(published.front_end, recipe.front_end)
    kept = published.encoder.with_recipe(recipe.encoder)
    return replace(recipe, front_end=front_end, encoder=_of_size(kept, size))


def as_run(recipe: RunConfig, run: RunConfig, *, size: str | None = None) -> RunConfig:
    """Return a pretraining recipe with the front end and the encoder of the run it starts from.

    What depends on the corpus (mean, std, padding) and what belongs to training (drop path) stays
    the recipe's. A recipe with another kind of encoder is returned as it is.

    Args:
        recipe: the settings of the recipe.
        run: those of the run.
        size: the size that the user gave, which must be that of the run.
    """
    if type(run.encoder) is not type(recipe.encoder):
        return recipe
    of_corpus = {name: getattr(recipe.front_end, name) for name in OF_A_CORPUS}
    encoder = run.encoder.with_recipe(recipe.encoder)
    return replace(
        recipe,
        front_end=replace(run.front_end, **of_corpus),
        encoder=_of_size(encoder, size),
    )


def named_size(encoder: Any) -> str | None:
    """Return the name of the size that an encoder has, such as nano; None if it has none."""
    for size in SIZES:
        try:
            sized = _of_size(encoder, size)
        except ConfigError:  # an encoder of the user's own need not have every size
            continue
        if sized == encoder:
            return size
    return None


def _published_for(init: str | None, reading: Reading, encoder: str | None) -> Published | None:
    """Return the settings of foreign weights; None without any, or for another kind of encoder."""
    # A missing file is reported when the weights are read.
    if init is None or init == SCRATCH or not is_weights(init) or not is_there(init):
        return None
    kind, published = published_settings(init, reading)
    if encoder is not None and registry.find("encoders", encoder) is not registry.find(
        "encoders", kind
    ):
        return None
    return published


def _of_size(encoder: Any, size: str | None) -> Any:
    """Return the settings of an encoder with those of a size, if one is given."""
    if size is None:
        return encoder
    sized = type(encoder).of_size(size)
    names = [name for name in _SIZES if hasattr(sized, name)]
    return replace(encoder, **{name: getattr(sized, name) for name in names})


def _padded_as(front_end: LogMel.Config, recipe: LogMel.Config) -> LogMel.Config:
    """Return a front end that pads clips as a recipe does."""
    return replace(front_end, padding=recipe.padding, target_frames=recipe.target_frames)


def copy_encoder(
    objective: Objective, run: Path, resize: Resize | None = None, *, trust_code: bool = False
) -> None:
    """Copy the encoder of a run into an objective, with learned positions resized to its grid.

    Args:
        objective: the objective whose encoder gets the weights.
        run: the run folder.
        resize: see :func:`melpatch.nn.positions.resize`; None leaves it to the encoder, see
            :meth:`melpatch.encoders.base.Encoder.match_geometry`.
        trust_code: whether the run may name code outside melpatch, which is then run.

    Raises:
        ConfigError: the encoders differ in more than their geometry, or the front ends in more than
            the statistics of a corpus.
    """
    config, source = load_run(run, trust_code=trust_code)
    theirs = config.front_end
    ours = objective.front_end.config
    # A pretrained encoder needs the kind of spectrogram that it was trained on. Mean and std may
    # differ, since a new corpus has its own.
    names = [field.name for field in fields(ours) if field.name not in OF_A_CORPUS]
    other = [name for name in names if getattr(ours, name) != getattr(theirs, name)]
    if other:
        flags = [f"--front-end.{name.replace('_', '-')} {getattr(theirs, name)}" for name in other]
        raise ConfigError(
            f"front_end.{other[0]} = {getattr(ours, other[0])!r} but {run} was trained with "
            f"{getattr(theirs, other[0])!r}; give {' '.join(flags)}, or start from other weights"
        )
    encoder = source.export_encoder()
    kind = registry.name_of(type(objective.encoder))
    their_kind = registry.name_of(type(encoder))
    if kind != their_kind:
        raise ConfigError(
            f"encoder = {kind} but {run} has {their_kind}; give --encoder {their_kind}, "
            "or start from other weights"
        )
    encoder.match_geometry(objective.encoder, resize)
    try:
        load_into(objective.encoder, encoder.state_dict())
    except ConfigError as error:
        fix = "leave them out to take its own"
        kept = encoder.config
        sizes = [name for name in _SIZES if hasattr(kept, name)]
        other = [
            name for name in sizes if getattr(objective.encoder.config, name) != getattr(kept, name)
        ]
        # A recipe has sizes of its own, which nobody can leave out.
        if other:
            flags = [f"--encoder.{name.replace('_', '-')} {getattr(kept, name)}" for name in other]
            raise ConfigError(
                f"encoder settings do not fit the weights of {run}, which are of another size; "
                f"give {' '.join(flags)}, or the --size of that run"
            ) from error
        raise ConfigError(
            f"encoder settings do not fit the weights of {run}: {error}; {fix}"
        ) from error
