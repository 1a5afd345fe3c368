"""A paragraph for the methods of a paper, with the BibTeX entries that it cites."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from melpatch.config import owner, to_dict
from melpatch.counted import counted
from melpatch.data.sources import source_name
from melpatch.errors import MelpatchError
from melpatch.evaluation.majority import metric_in_words
from melpatch.evaluation.provenance import init_of
from melpatch.markup import paragraph
from melpatch.reports.bibliography import bibtex, cite_key, papers_of
from melpatch.reports.page import Section, code
from melpatch.training.config import RunConfig, read_settings
from melpatch.training.run import Run

_OWN = "melpatch"


def methods_section(
    folder: Path, settings: RunConfig, records: Sequence[Mapping[str, Any]]
) -> Section:
    """Return a paragraph on a run and its scores, to be edited, and what it cites.

    Args:
        folder: the run folder.
        settings: its settings.
        records: its evaluations.
    """
    papers = papers_of(owner(settings.objective))[:1]
    sentences = [*_start(folder, papers), *_training(folder, settings), *_scores(records)]
    entries = [bibtex(number) for number in dict.fromkeys(papers)]
    entries.append(
        f"@software{{{_OWN},\n  title = {{melpatch}},\n  version = {{{version(_OWN)}}},\n}}"
    )
    parts = [
        paragraph(" ".join(sentences)),
        paragraph("A draft from what the run records; what it cites, in BibTeX:"),
        code("\n\n".join(entries)),
    ]
    return Section("For a paper", parts)


def _start(folder: Path, papers: list[str]) -> Iterator[str]:
    """Yield a sentence on the weights that a run started from; their papers are appended."""
    init = init_of(folder)
    if init is None:
        return
    try:
        before = read_settings(Path(init))
    except MelpatchError:
        yield f"The network started from {init}."
        return
    cited = papers_of(owner(before.objective))[:1]
    papers.extend(cited)
    yield (
        f"The network started from one that was pretrained with {_named(before, cited)} on "
        f"{_corpora(before)}."
    )


def _training(folder: Path, settings: RunConfig) -> Iterator[str]:
    train = settings.train
    encoder = ", ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in to_dict(settings.encoder).items()
        if name in ("embed_dim", "depth", "num_heads")
    )
    about = f" ({encoder})" if encoder else ""
    own = papers_of(owner(settings.objective))[:1]
    length = f"{train.epochs:g} epochs"
    if train.steps is not None:
        length = counted(train.steps, "step")
    front_end = settings.front_end
    yield (
        f"We trained a {owner(settings.encoder).__name__} encoder{about} with "
        f"{_named(settings, own)} on {_corpora(settings)} for {length} of "
        f"{settings.loader.batch_size} segments of up to {settings.loader.seconds:g} s, with "
        f"{train.optimizer} at a learning rate of {train.lr:g} ({train.lr_schedule} schedule, "
        f"weight decay {train.weight_decay:g}) and seed {settings.seed}, by melpatch "
        f"{version(_OWN)} [{_OWN}]."
    )
    yield (
        f"Its input are log-mel spectrograms of {front_end.n_mels} bins from "
        f"{front_end.low_hz:g} to {front_end.top_hz:g} Hz of mono sound at "
        f"{front_end.sample_rate} Hz ({front_end.window_ms:g} ms windows every "
        f"{front_end.hop_ms:g} ms)."
    )
    seconds = Run.speed(folder).get("seconds")
    if seconds is not None:
        yield f"Training took {seconds:,.0f} s."


def _scores(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for record in records:
        if record["value"] is None:
            continue
        interval = ""
        if record["interval_95"] is not None:
            low, high = record["interval_95"]
            interval = f" (95 % interval {low:.3f} to {high:.3f})"
        splits = ", ".join(entry["split"] for entry in record["splits"])
        yield (
            f"Under the protocol {record['protocol']} (version {record['version']}), its "
            f"{metric_in_words(record['metric'])} on {record['corpus']} ({splits}; "
            f"{counted(record['n'], 'clip')}) is {record['value']:.3f}{interval}."
        )


def _named(settings: RunConfig, papers: Sequence[str]) -> str:
    name = owner(settings.objective).__name__
    return name + "".join(f" [{cite_key(number)}]" for number in papers)


def _corpora(settings: RunConfig) -> str:
    return " and ".join(map(source_name, settings.data)) or "data that were not recorded"
