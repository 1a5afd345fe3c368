"""Write one HTML file that shows a run, an evaluation or a comparison to others."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from melpatch.counted import counted
from melpatch.progress import notice
from melpatch.reports.report import report


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to report on, and where to write it."""

    what: tyro.conf.Positional[Path]
    """Run folder, folder of an evaluation, or folder of a comparison."""
    out: Path
    """HTML file to write. It holds its pictures and sounds, and loads nothing from elsewhere."""
    worst: int = 6
    """Clips to show, with spectrogram and sound, of those that each evaluation answers worst; 0
    shows none, so that no sound leaves your machine with the report."""
    clips: int = 200
    """Training clips of a run to embed for a map of its embeddings; 0 leaves out all pictures of
    them, too, and needs neither the network nor the clips."""
    overwrite: bool = False
    """Replace a file that is no report of melpatch; an input is never replaced."""
    trust_code: bool = False
    """Allow the run to name code outside melpatch, such as your own encoder; that code is run."""


def run(config: Config) -> None:
    """Write the report."""
    text = report(
        config.what,
        config.out,
        worst=config.worst,
        clips=config.clips,
        overwrite=config.overwrite,
        trust_code=config.trust_code,
    )
    sounds = text.count("<audio ")
    heard = "without sound"
    if sounds:  # whoever passes a report on should know that it can be listened to
        heard = f"with {counted(sounds, 'sound')} to hear, which --worst 0 leaves out"
    notice(f"written: {config.out}, {heard}")
