"""Show the public datasets that prepare knows by name: content, licence and what to download."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tyro
from rich.table import Table

from melpatch import registry
from melpatch.datasets.base import Card
from melpatch.progress import console, show_json


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which dataset to show, and how."""

    name: tyro.conf.Positional[str | None] = None
    """Dataset whose card to show; by default one line for each dataset."""
    json: bool = False
    """Print JSON for scripts: the card, or name to card."""


def run(config: Config) -> None:
    """Print the card of one dataset, or a table of all."""
    cards: dict[str, Card] = {name: registry.find("datasets", name) for name in _names(config)}
    if config.json:
        plain = {name: _plain(card) for name, card in cards.items()}
        show_json(plain.get(config.name or "", plain))
        return
    if config.name:
        (card,) = cards.values()
        console().print(_card(card))
        return
    console().print(_overview(cards))
    console().print("melpatch datasets NAME shows what to download and how to prepare it.")
    console().print("For your own folders and CSV files: melpatch prepare FOLDER --out corpus.csv")


def _names(config: Config) -> list[str]:
    return registry.all_names("datasets") if config.name is None else [config.name]


def _plain(card: Card) -> dict[str, Any]:
    """Return the fields of a card, without its functions, and whether ``prepare`` can make it."""
    fields = {field.name: getattr(card, field.name) for field in dataclasses.fields(card)}
    plain = {name: value for name, value in fields.items() if not callable(value)}
    return plain | {"make": card.make is not None}


def _overview(cards: dict[str, Card]) -> Table:
    table = Table(box=None)
    for name in ("name", "content", "licence", "metric", "splits"):
        table.add_column(name, no_wrap=name == "name")
    for card in cards.values():
        table.add_row(card.name, card.summary, card.licence, card.metric, ", ".join(card.splits))
    return table


def _card(card: Card) -> Table:
    table = Table(title=card.name, title_justify="left", show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in _lines(card):
        table.add_row(name, value)
    return table


def _lines(card: Card) -> Iterator[tuple[str, str]]:
    yield "content", card.summary
    yield "licence", card.licence
    yield "size", card.size
    yield "metric", card.metric
    yield "splits", ", ".join(card.splits)
    if card.subsets:
        yield "subsets", f"{', '.join(card.subsets)} (--subset; the first is the default)"
    if card.labels:
        yield "labels", f"{len(card.labels)}: {', '.join(card.labels)}"
    yield "download", card.download
    yield "prepare", f"melpatch prepare {card.name} --root FOLDER --out {card.name}.csv"
