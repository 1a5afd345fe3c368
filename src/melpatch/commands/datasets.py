"""Show the public datasets that melpatch prepares by name: what is heard, the licence, and what to download."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tyro
from rich.table import Table

from melpatch import registry
from melpatch.datasets.base import Card
from melpatch.progress import console


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which dataset to show, and how."""

    name: tyro.conf.Positional[str | None] = None
    """Dataset to show the whole card of; by default all of them, a line each."""
    json: bool = False
    """Print JSON for scripts: the card, or name to card."""


def run(config: Config) -> None:
    """Print one card whole, or the heads of all."""
    cards: dict[str, Card] = {name: registry.find("datasets", name) for name in _names(config)}
    if config.json:
        plain = {name: _plain(card) for name, card in cards.items()}
        sys.stdout.write(json.dumps(plain.get(config.name or "", plain), indent=2) + "\n")
        return
    if config.name:
        (card,) = cards.values()
        console().print(_whole(card))
        return
    console().print(_heads(cards))
    console().print("melpatch datasets NAME tells what to download and what to type then.")
    console().print(
        "Own folders and CSV files work the same: melpatch prepare FOLDER --out corpus.csv"
    )


def _names(config: Config) -> list[str]:
    return registry.names("datasets") if config.name is None else [config.name]


def _plain(card: Card) -> dict[str, Any]:
    """Return what a card says, without its functions."""
    fields = {field.name: getattr(card, field.name) for field in dataclasses.fields(card)}
    return {name: value for name, value in fields.items() if not callable(value)}


def _heads(cards: dict[str, Card]) -> Table:
    table = Table(
        "name", "what is heard", "size", "licence", "metric", "splits", "subsets", box=None
    )
    for card in cards.values():
        splits, subsets = ", ".join(card.splits), ", ".join(card.subsets)
        table.add_row(
            card.name, card.summary, card.size, card.licence, card.metric, splits, subsets
        )
    return table


def _whole(card: Card) -> Table:
    table = Table(title=card.name, title_justify="left", show_header=False, box=None)
    for name, value in _lines(card):
        table.add_row(name, value)
    return table


def _lines(card: Card) -> Iterator[tuple[str, str]]:
    yield "what is heard", card.summary
    yield "licence", card.licence
    yield "size", card.size
    yield "metric", card.metric
    yield "splits", ", ".join(card.splits)
    if card.subsets:
        yield "subsets", f"{', '.join(card.subsets)} (--subset; the first is the default)"
    if card.labels:
        yield "labels", f"{len(card.labels)}: {', '.join(card.labels)}"
    yield "download", card.download
    yield "then type", f"melpatch prepare {card.name} --root FOLDER --out {card.name}.csv"
