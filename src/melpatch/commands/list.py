"""List what there is to choose from: objectives, encoders, recipes, protocols, datasets and commands."""

import ast
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import tyro
from rich.table import Table

import melpatch
from melpatch import registry
from melpatch.progress import console

Kind = Literal["objectives", "encoders", "recipes", "protocols", "datasets", "commands"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to list, and how."""

    kind: tyro.conf.Positional[Kind | Literal["all"]] = "all"
    """Which kind of piece to list."""
    json: bool = False
    """Print one JSON object, kind to name to summary, instead of tables."""


def run(config: Config) -> None:
    """Print every registered piece with its one-line summary."""
    kinds: tuple[Kind, ...] = get_args(Kind) if config.kind == "all" else (config.kind,)
    found = {kind: pieces(kind) for kind in kinds}
    if config.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for kind, summaries in found.items():
        table = Table("name", "what it is", title=kind, title_justify="left", box=None)
        for name, summary in summaries.items():
            table.add_row(name, summary)
        console().print(table)


def pieces(kind: Kind) -> dict[str, str]:
    """Return the first docstring line of every piece of a kind by its name, read without importing the piece."""
    if kind == "recipes":
        return _recipes()
    return {name: registry.summary(kind, name) for name in registry.names(kind)}


def _recipes() -> dict[str, str]:
    """Return the summaries of all recipes: the public functions of the files in ``recipes/``."""
    found = {}
    for name in registry.names("recipes"):
        file = Path(melpatch.__file__).with_name("recipes") / f"{name}.py"
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                found[node.name] = (ast.get_docstring(node) or "").split("\n")[0]
    return found
