"""A report on whatever a folder holds: a run, evaluations, or a comparison."""

from importlib.metadata import version
from pathlib import Path

from melpatch.atomic import written_aside
from melpatch.audio.logmel import LogMel
from melpatch.comparison.results import is_comparison
from melpatch.config import check, owner
from melpatch.errors import ConfigError, MelpatchError
from melpatch.evaluation.pictures import title_of
from melpatch.inference.model import FilePath
from melpatch.outputs import check_output, require_usable_name
from melpatch.reports.comparison import comparison_sections, comparison_title
from melpatch.reports.page import GENERATOR, Section, page
from melpatch.reports.repeat import repeat_section
from melpatch.reports.run import evaluations_in, run_sections
from melpatch.reports.scores import evaluation_sections
from melpatch.training.config import read_settings
from melpatch.training.run import Run
from melpatch.workflows.pictures import run_title

_FOOT = "Written by melpatch"
_CONFIG = "config.toml"
_HEAD = 1000  # bytes of a report, in which it says what wrote it


def report(
    what: FilePath | Run,
    out: FilePath | None = None,
    *,
    worst: int = 6,
    clips: int = 200,
    overwrite: bool = False,
    trust_code: bool = False,
) -> str:
    """Return a report as one HTML document, which loads nothing from elsewhere.

    >>> melpatch.report("runs/b", "report.html")

    Args:
        what: a run or its folder, a folder of an evaluation or of several, or one of a comparison.
        out: HTML file to write it to; None writes none.
        worst: how many clips to show of those that an evaluation answers worst, up to 100.
        clips: how many training clips of a run to embed for a map, up to 10,000; 0 leaves out what
            its network makes of them.
        overwrite: whether to replace a file that is no report of melpatch; an input is never
            replaced.
        trust_code: whether a run may name code outside melpatch, which is then run.

    Raises:
        ConfigError: the folder holds none of these, or the file may not be replaced.
        CheckpointError: what it holds is damaged.
    """
    check(0 <= worst <= 100, "worst", worst, "0 to 100")
    check(0 <= clips <= 10_000, "clips", clips, "0 to 10000")
    folder = what.folder if isinstance(what, Run) else Path(what)
    if out is None:
        return _report(folder, worst=worst, clips=clips, trust_code=trust_code)
    file = Path(out)
    require_usable_name(file)
    inputs = [path for path in folder.rglob("*") if path.is_file()]
    check_output(file, inputs=inputs, is_own=is_own_report, overwrite=overwrite)
    text = _report(folder, worst=worst, clips=clips, trust_code=trust_code)
    with written_aside(file) as aside:
        aside.write_text(text, encoding="utf-8")
    return text


def _report(folder: Path, *, worst: int, clips: int, trust_code: bool) -> str:
    """Return the report on what a folder holds."""
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
