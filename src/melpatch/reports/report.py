"""A report on whatever a folder holds: a run, evaluations, or a comparison."""

from importlib.metadata import version
from pathlib import Path

from melpatch.audio.logmel import LogMel
from melpatch.comparison.results import is_comparison
from melpatch.config import owner
from melpatch.errors import ConfigError, MelpatchError
from melpatch.evaluation.pictures import title_of
from melpatch.reports.comparison import comparison_sections, comparison_title
from melpatch.reports.page import GENERATOR, Section, page
from melpatch.reports.repeat import repeat_section
from melpatch.reports.run import evaluations_in, run_sections
from melpatch.reports.scores import evaluation_sections
from melpatch.training.config import read_settings
from melpatch.workflows.pictures import run_title

_FOOT = "Written by melpatch"
_CONFIG = "config.toml"
_HEAD = 1000  # bytes of a report, in which it says what wrote it


def report(folder: Path, *, worst: int = 6, clips: int = 200, trust_code: bool = False) -> str:
    """Return a report as one HTML document, which loads nothing from elsewhere.

    Args:
        folder: a run folder, a folder of an evaluation or of several, or one of a comparison.
        worst: how many clips to show of those that an evaluation answers worst.
        clips: how many training clips of a run to embed for a map; 0 leaves out what its network
            makes of them.
        trust_code: whether a run may name code outside melpatch, which is then run.

    Raises:
        ConfigError: the folder holds none of these.
        CheckpointError: what it holds is damaged.
    """
    if (folder / _CONFIG).is_file():
        settings = read_settings(folder, trust_code=trust_code)
        title = run_title(folder, settings)
        kind = "classifier" if settings.labels else "pretraining run"
        lead = f"A {kind}: {owner(settings.encoder).__name__} trained with melpatch."
        return _page(title, lead, run_sections(folder, settings, worst, clips))
    if is_comparison(folder):
        lead = "A comparison of pretraining methods under one budget."
        return _page(comparison_title(folder), lead, comparison_sections(folder))
    records = evaluations_in(folder) if folder.is_dir() else {}
    if not records:
        raise ConfigError(
            f"{folder}: holds no run (config.toml), evaluation (scores.json) or comparison "
            "(table.md); give the folder of one"
        )
    sections: list[Section] = []
    for path, record in records.items():
        front_end = _front_end(Path(record["run"]), trust_code=trust_code)
        sections += evaluation_sections(path, record, front_end, worst)
    first = next(iter(records.values()))
    sections.append(repeat_section([record["environment"] for record in records.values()]))
    title = title_of(first) if len(records) == 1 else f"{first['run']} on {first['corpus']}"
    return _page(title, "Scores of a run, by melpatch.", sections)


def is_own_report(path: Path) -> bool:
    """Return whether a file is a report that melpatch wrote."""
    with path.open("rb") as file:
        return f'name="generator" content="{GENERATOR}"'.encode() in file.read(_HEAD)


def _page(title: str, lead: str, sections: list[Section]) -> str:
    return page(title, lead, sections, f"{_FOOT} {version('melpatch')}.")


def _front_end(run: Path, *, trust_code: bool) -> LogMel.Config:
    """Return the front end of the run that was scored; the default one if the run is not there."""
    try:
        return read_settings(run, trust_code=trust_code).front_end
    except MelpatchError:
        return LogMel.Config()
