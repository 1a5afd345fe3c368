"""Train a classifier on labelled audio, from a pretrained run, foreign weights or random ones."""

from pathlib import Path
from typing import cast, get_args

from melpatch.arguments import wants_help
from melpatch.commands.base import TRUST_CODE, flag_value, read_flags, read_reading
from melpatch.recipes.base import recipe_names
from melpatch.workflows.finetune import FinetuneConfig as Config
from melpatch.workflows.finetune import Head, finetune, finetune_defaults
from melpatch.workflows.initialize import SCRATCH

TOGETHER = True


def parse(arguments: list[str]) -> Config:
    """Return the config that the arguments spell.

    Front end and encoder default to those of the run that --init or --encoder-from names.
    """
    about = f"{__doc__}\n\nRecipes: {', '.join(recipe_names(with_labels=True))}."
    prog = "melpatch finetune"
    return read_flags(
        Config, _defaults, arguments, prog=prog, about=about, required=["out", "init"], draft=_draft
    )


def _draft(arguments: list[str]) -> Config:
    return _defaults(arguments, weights=False)


def _defaults(arguments: list[str], *, weights: bool = True) -> Config:
    encoder_from = flag_value(arguments, "--encoder-from")
    head = flag_value(arguments, "--head")
    init = flag_value(arguments, "--init")
    # Help needs no weights, which may have to be downloaded.
    if init is None or not weights or wants_help(arguments):
        init = SCRATCH
    return finetune_defaults(
        init,
        recipe=flag_value(arguments, "--recipe") or "finetune",
        size=flag_value(arguments, "--size"),
        encoder=flag_value(arguments, "--encoder"),
        encoder_from=Path(encoder_from) if encoder_from else None,
        # An unknown one is refused when the flags are read.
        head=cast("Head", head) if head in get_args(Head) else "trained",
        reading=read_reading(arguments),
        trust_code=TRUST_CODE in arguments,
    )


def run(config: Config) -> None:
    """Fine-tune, and leave a run folder with the weights to use."""
    finetune(config)
