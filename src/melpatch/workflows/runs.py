"""Open or resume a run folder, and refuse settings that a resumed run cannot change."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from melpatch import distributed
from melpatch.config import from_toml, to_dict
from melpatch.errors import ConfigError
from melpatch.objectives.base import Objective
from melpatch.outputs import check_output_folder
from melpatch.progress import notice
from melpatch.training.config import RunConfig
from melpatch.training.run import COMMAND, Run
from melpatch.weight_files import is_weights, require_weights

T = TypeVar("T")

FLAT = ("training", "loader", "train")
"""Nested settings whose flags carry no prefix: ``--lr`` sets ``training.train.lr``."""
# These may differ when a run is resumed, since they do not change what it learns. The clips are
# checked by themselves, wherever they lie.
_FREE_ON_RESUME = {"out", "resume", "track", "trust_code", "data"}


@runtime_checkable
class RunSettings(Protocol):
    """The settings that every workflow config has."""

    @property
    def out(self) -> Path:
        """Run folder to write."""

    @property
    def training(self) -> RunConfig:
        """The settings of the run, with its data."""

    @property
    def init(self) -> str | None:
        """Run folder or weights whose encoder to start from."""

    @property
    def resume(self) -> bool:
        """Whether to continue the run in ``out``."""

    @property
    def trust_code(self) -> bool:
        """Whether files of runs may name code outside melpatch."""


def reopen(config: RunSettings) -> Run | None:
    """Return the run to resume, or None if a new run is to be started.

    Raises:
        CheckpointError: there is a run but ``resume`` is off, the folder cannot be written, or
            ``init`` names a weight file that does not exist.
        ConfigError: a setting differs from that of the run's start.
    """
    if config.init is not None and is_weights(config.init):
        # Checked early, because the weights are read only after the corpus has been measured.
        require_weights(config.init)
    # Only rank 0 looks: a slower rank could mistake the folder that rank 0 creates for an old run.
    resumes = distributed.on_rank_zero(lambda: _resumes(config))
    run = None
    if resumes:
        run = Run.reopen(config.out, trust_code=config.trust_code)
    distributed.barrier()
    return run


def recorded(kind: type[T], out: Path, *, trust_code: bool) -> T | None:
    """Return the workflow config of the run in ``out``, or None if there is no run.

    Args:
        kind: the config's class.
        out: the run folder.
        trust_code: whether the folder may name code outside melpatch; what it says of that itself
            does not count.
    """
    path = out / COMMAND
    if not path.exists():
        return None
    settings: Any = from_toml(kind, path, trust_code=trust_code)
    return cast("T", replace(settings, trust_code=trust_code))


def describe_objective(objective: Objective) -> str:
    """Return the name and the number of parameters of an objective in words."""
    millions = sum(parameter.numel() for parameter in objective.parameters()) / 1e6
    return f"{type(objective).__name__} with {millions:.2f} M parameters"


def _resumes(config: RunSettings) -> bool:
    Run.require_writable(config.out)
    if not config.resume:
        Run.refuse(config.out)
    if not (config.out / "config.toml").exists():
        check_output_folder(config.out, config.training.data)
        if config.resume:
            notice(f"{config.out} holds no run yet; starting one")
        return False
    _refuse_changes(
        config, from_toml(type(config), config.out / COMMAND, trust_code=config.trust_code)
    )
    return True


def _refuse_changes(config: RunSettings, started: RunSettings) -> None:
    """Raise ConfigError if a setting differs from that of the run's start."""
    now = flags_of(to_dict(config))
    before = flags_of(to_dict(started))
    for name in sorted((now.keys() | before.keys()) - _FREE_ON_RESUME):
        if now.get(name) != before.get(name):
            raise ConfigError(
                f"--{name.replace('_', '-')} = {now.get(name)!r}, but {config.out} was started "
                f"with {before.get(name)!r}, which --resume keeps; leave the flag out, "
                "or start a new run with another --out"
            )


def flags_of(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by the names of their flags, as ``lr`` or ``objective.mask_ratio``."""
    flags: dict[str, Any] = {}
    for key, value in settings.items():
        if not isinstance(value, dict):
            flags[f"{prefix}{key}"] = value
        elif key in FLAT:
            flags |= flags_of(value)
        else:
            flags |= flags_of(value, f"{prefix}{key}.")
    return flags
