"""What commands share: reading flags whose defaults depend on other flags."""

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import TypeVar, cast, get_args

import tyro

from melpatch import registry
from melpatch.arguments import read_config, wants_help
from melpatch.config import check
from melpatch.distributed import restarted
from melpatch.errors import ConfigError
from melpatch.interop.base import Axes, Reading
from melpatch.recipes.base import give_pieces, recipe_names
from melpatch.weight_files import is_weights
from melpatch.workflows.auto import AUTO, choose
from melpatch.workflows.pretrain import PretrainConfig, pretrain_defaults
from melpatch.workflows.runs import recorded

T = TypeVar("T")

TRUST_CODE = "--trust-code"
"""The flag that allows files of runs to name code outside melpatch."""


def flag_value(arguments: list[str], flag: str) -> str | None:
    """Return the value of a flag that must be known before the others can be read; None if it is not given."""
    for number, word in enumerate(arguments):
        if word == flag and number + 1 < len(arguments):
            return arguments[number + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def read_flags(
    kind: type[T],
    default: Callable[[list[str]], T],
    arguments: list[str],
    *,
    prog: str,
    about: str,
    required: Sequence[str],
    draft: Callable[[list[str]], T] | None = None,
) -> T:
    """Return a command's config: the given flags, and the defaults of all others.

    With --resume and a run in --out, the defaults are the settings that the run was started with.
    Processes that torchrun restarts after a failure resume as if --resume had been given.

    Args:
        kind: the dataclass to read.
        default: returns the config that the arguments start from.
        arguments: the words after the command.
        prog: the command, as help and errors name it.
        about: text on top of the help.
        required: fields without a default on the command line.
        draft: returns a config without reading weights of other code, against which the flags are
            read first, so that a mistake in them costs no download.
    """
    if restarted() and "--resume" not in arguments:
        arguments = [*arguments, "--resume"]
    settings = None
    if "--resume" in arguments:
        _give_code(arguments)
        settings = recorded(
            kind,
            Path(flag_value(arguments, "--out") or ""),
            trust_code=TRUST_CODE in arguments,
        )

    def read(config: T) -> T:
        return read_config(kind, arguments, prog=prog, about=about, default=config)

    if settings is None:
        if draft is not None and _weights_decide_defaults(arguments):
            # What is to be warned of is told by the second reading.
            with redirect_stderr(io.StringIO()):
                read(_requiring(draft(arguments), required))
        settings = _requiring(default(arguments), required)
    return read(settings)


def _requiring(settings: T, required: Sequence[str]) -> T:
    """Return the settings with these fields missing, so that the command line must give them."""
    for name in required:
        object.__setattr__(settings, name, tyro.MISSING)
    return settings


def _weights_decide_defaults(arguments: list[str]) -> bool:
    """Return whether weights of other code are read for defaults, and all flags are known before.

    Which flags an encoder or a front end has, and which values go together, only the weights say.
    """
    if any(word.startswith(("--encoder.", "--front-end.")) for word in arguments):
        return False
    sources = [flag_value(arguments, flag) for flag in ("--init", "--objective.teacher")]
    return any(source is not None and is_weights(source) for source in sources)


def _give_code(arguments: list[str]) -> None:
    """Note the code that the command line names, which the run to be resumed may name too."""
    encoder = flag_value(arguments, "--encoder")
    if encoder is not None:
        registry.give(encoder)
    for name in (flag_value(arguments, "--recipe"), *arguments[:1]):
        if name and not name.startswith("-"):
            give_pieces(name)


def read_pretrain_flags(arguments: list[str], about: str) -> PretrainConfig:
    """Return the config of ``melpatch pretrain``; the first word is the recipe.

    Args:
        arguments: the words after the command.
        about: the command's summary.

    Raises:
        ConfigError: the first word is not a recipe, or a flag or its value is wrong.
        SystemExit: the help was shown.
    """
    names = ", ".join(recipe_names(with_labels=False))
    below = ""
    if not arguments or arguments[0].startswith("-"):
        if not set(arguments) & {"-h", "--help"}:
            raise ConfigError(
                f"melpatch pretrain needs a recipe as its first word; there are: {names}"
            )
        arguments = ["ssast", "--help"]
        below = "; below are those of ssast, whose objective alone has the --objective flags shown"
    about = (
        f"{about} 'melpatch pretrain RECIPE --help' shows a recipe's own flags and defaults"
        f"{below}.\n\n"
        f"Recipes: {names}, or package.module:Class for an objective of your own; auto chooses "
        "recipe, size, segment length and batch from the corpus and --budget."
    )
    if arguments[0] == AUTO:
        started = recorded(
            PretrainConfig,
            Path(flag_value(arguments, "--out") or ""),
            trust_code=TRUST_CODE in arguments,
        )
        if started is not None:
            arguments = [started.recipe, *arguments[1:]]
        else:
            # Read once to know the data and the budget; what is chosen becomes the defaults of a
            # second reading.
            asked = _read_pretrain_flags(["ssast", *arguments[1:]], about, _pretrain_defaults)
            chosen = choose(asked, flag_value(arguments, "--size"))
            arguments = [chosen.recipe, *arguments[1:]]
            return _read_pretrain_flags(arguments, about, lambda _: chosen)
    return _read_pretrain_flags(arguments, about, _pretrain_defaults)


def _read_pretrain_flags(
    arguments: list[str], about: str, defaults: Callable[[list[str]], PretrainConfig]
) -> PretrainConfig:
    return read_flags(
        PretrainConfig,
        defaults,
        arguments,
        prog="melpatch pretrain",
        about=about,
        required=["recipe", "out"],
        draft=_pretrain_draft,
    )


def _pretrain_draft(arguments: list[str]) -> PretrainConfig:
    return _pretrain_defaults(arguments, weights=False)


def _pretrain_defaults(arguments: list[str], *, weights: bool = True) -> PretrainConfig:
    # Help needs no weights, which may have to be downloaded.
    init = teacher = None
    if weights and not wants_help(arguments):
        init = flag_value(arguments, "--init")
        teacher = flag_value(arguments, "--objective.teacher")
    return pretrain_defaults(
        arguments[0],
        size=flag_value(arguments, "--size"),
        encoder=flag_value(arguments, "--encoder"),
        init=init,
        reading=read_reading(arguments),
        teacher=teacher,
        own_rate=flag_value(arguments, "--front-end.sample-rate") is not None,
        trust_code=TRUST_CODE in arguments,
    )


def read_reading(arguments: list[str]) -> Reading:
    """Return how the flags say that weights in --init are read; their settings depend on it.

    Raises:
        ConfigError: a flag has a value that it cannot have.
    """
    axes = flag_value(arguments, "--init-axes")
    allowed = get_args(Axes)
    check(axes in (None, "none", "None", *allowed), "--init-axes", axes, " or ".join(allowed))
    heads = flag_value(arguments, "--encoder.num-heads")
    check(heads is None or heads.isdecimal(), "--encoder.num-heads", heads, "a whole number")
    return Reading(
        axes=cast("Axes", axes) if axes in allowed else None,
        num_heads=int(heads) if heads else None,
    )
