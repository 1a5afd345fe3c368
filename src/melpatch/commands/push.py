"""Push a run to the Hugging Face Hub, with a model card: for transformers, or the run itself."""

import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import tyro

from melpatch import hub, registry
from melpatch.export.card import CARD, UNKNOWN
from melpatch.export.source import Source
from melpatch.inference.model import load
from melpatch.progress import notice
from melpatch.targets.base import Target


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which run to push, and where to."""

    run: tyro.conf.Positional[Path]
    """Run folder of a classifier or of a pretrained encoder."""
    repository: tyro.conf.Positional[str]
    """Repository of the Hub, as owner/name; it is created if it does not exist."""
    to: Literal["hf", "run"] = "hf"
    """What is pushed, as melpatch export writes it: hf, a folder for transformers; run, the run itself."""
    licence: str | None = None
    """Licence of the weights, for the model card (apache-2.0, cc-by-4.0, ...)."""
    private: bool = False
    """Let only the owner see a new repository."""
    revision: str | None = None
    """Branch to push to; it is created if it does not exist."""
    trust_code: bool = False
    """Allow the run to name code outside melpatch, such as your own encoder; that code is run."""


def run(config: Config) -> None:
    """Write the export into a temporary folder and push its files in one commit."""
    hub.require_repository(config.repository)
    target: Target = registry.find("targets", config.to)()
    model = load(config.run, device="cpu", trust_code=config.trust_code)
    source = Source(config.run, model, licence=config.licence)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "files"
        for note in target.write(source, files):
            notice(note)
        _name_the_repository(files / CARD, config.repository)
        if config.licence is None:
            notice(
                f"the model card says licence {UNKNOWN}, so that nobody may use the weights: give "
                "--licence, or fill it in on the Hub"
            )
        address = hub.push(
            files,
            config.repository,
            private=config.private,
            revision=config.revision,
            message=f"Push with melpatch {version('melpatch')}",
        )
    notice(f"pushed: {address}")


def _name_the_repository(card: Path, repository: str) -> None:
    """Write the repository into the lines of a model card that say how it is used."""
    text = card.read_text(encoding="utf-8")
    for placeholder in ("PATH OR owner/name", "owner/name"):
        text = text.replace(placeholder, repository)
    card.write_text(text, encoding="utf-8")
