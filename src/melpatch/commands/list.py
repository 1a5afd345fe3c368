"""List what there is to choose from: objectives, encoders, recipes, protocols, datasets, weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import tyro
from rich.table import Table

from melpatch import registry
from melpatch.progress import console, show_json
from melpatch.registry import Piece

Kind = Literal[
    "objectives",
    "encoders",
    "recipes",
    "protocols",
    "datasets",
    "interop",
    "targets",
    "weights",
    "commands",
    "all",
]
_FACTS = ("family", "files", "hub", "encoder", "needs", "licence")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to list, and how."""

    kind: tyro.conf.Positional[Kind] = "all"
    """Kind of piece to list; interop are the formats of weights that --init reads, weights their
    families with needs and licences, targets what melpatch export writes."""
    json: bool = False
    """Print one JSON object, kind to name to summary and origin, instead of tables."""


def run(config: Config) -> None:
    """Print every piece with its summary, and its package where that is not melpatch."""
    if config.kind == "weights":
        _list_weights(as_json=config.json)
        return
    kinds = registry.KINDS if config.kind == "all" else (config.kind,)
    listed = {kind: registry.pieces(kind) for kind in kinds}
    if config.json:
        plain = {
            kind: {name: piece._asdict() for name, piece in pieces.items()}
            for kind, pieces in listed.items()
        }
        show_json(plain)
        return
    for kind, pieces in listed.items():
        console().print(_table(kind, pieces))


def _list_weights(*, as_json: bool) -> None:
    """Print the families of weights that --init reads, by the name of their format."""
    formats = {name: registry.find("interop", name) for name in registry.all_names("interop")}
    facts = {
        name: {fact: getattr(weight_format, fact) for fact in _FACTS}
        | {"classifier": _classifier(weight_format)}
        for name, weight_format in formats.items()
    }
    if as_json:
        show_json({"weights": facts})
        return
    for family in facts.values():
        table = Table(title=family["family"], title_justify="left", box=None, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column()
        for fact in (*_FACTS[1:], "classifier"):
            table.add_row(fact, family[fact])
        console().print(table)


def _classifier(weight_format: Any) -> str:
    """Return whether a format states its head, so that its classifiers are used as they are."""
    from melpatch.interop.base import WeightFormat  # not above: it imports torch

    if weight_format.head is WeightFormat.head:
        return "left out"
    return "read by melpatch import"


def _table(kind: str, pieces: Mapping[str, Piece]) -> Table:
    origins = {piece.origin for piece in pieces.values()}
    table = Table(title=kind, title_justify="left", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, piece in pieces.items():
        row = [name, piece.summary]
        if origins != {"melpatch"}:
            row.append("" if piece.origin == "melpatch" else f"({piece.origin})")
        table.add_row(*row)
    return table
