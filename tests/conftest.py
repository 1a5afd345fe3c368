"""Settings for all tests: one thread, and examples of hypothesis that are the same on every CI run."""

import os
import sys

import pytest
import shape_checks
import torch
from hypothesis import settings
from matplotlib.figure import Figure

settings.register_profile("local", deadline=None, max_examples=30)
settings.register_profile("ci", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
torch.set_num_threads(1)
shape_checks.install()

BIRDS = {
    "birds-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: birds\nVersion: 1.2\n",
    "birds-1.2.dist-info/entry_points.txt": (
        "[melpatch.objectives]\nwarbler = birds.objectives:Warbler\nssast = birds.objectives:SSAST\n"
        "broken = birds.broken:X\n"
        "[melpatch.recipes]\nforest = birds.recipes:forest\n"
        "[melpatch.commands]\ncount = birds.count\n"
    ),
    "birds/__init__.py": '"""Birds."""\n',
    "birds/broken.py": '"""Broken."""\n1 / 0\n',
    "birds/objectives.py": (
        '"""Objectives on birds."""\n'
        "from dataclasses import dataclass\n"
        "from melpatch.objectives.base import Objective\n\n\n"
        "class Warbler(Objective):\n"
        '    """Warblers sing.\n\n    More.\n    """\n\n'
        "    @dataclass(frozen=True, kw_only=True)\n"
        "    class Config:\n"
        '        """Settings."""\n\n'
        "        pitch: int = 3\n\n\n"
        "class SSAST(Warbler):\n"
        '    """Of the same name."""\n'
    ),
    "birds/recipes.py": (
        '"""Recipes on birds."""\n'
        "from melpatch.recipes.ssast import ssast\n\n\n"
        "def forest(size):\n"
        '    """Birds of the forest."""\n'
        "    return ssast(size)\n"
    ),
    "birds/count.py": (
        '"""Count the birds."""\n'
        "import sys\n"
        "from dataclasses import dataclass\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Config:\n"
        '    """What to count."""\n\n'
        "    most: int = 1\n"
        '    """Birds to count."""\n\n\n'
        "def run(config):\n"
        '    """Count."""\n'
        '    sys.stdout.write(f"{config.most} birds\\n")\n'
    ),
}


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """An installed package ``birds``, which offers pieces of its own by entry points."""
    for name, text in BIRDS.items():
        file = tmp_path / "site" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield tmp_path / "site"
    for name in [name for name in sys.modules if name.partition(".")[0] == "birds"]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def width_of_a_pipe(monkeypatch):
    """Tables are as wide as in a pipe, whatever terminal the tests run in."""
    monkeypatch.delenv("COLUMNS", raising=False)


DRAW = Figure.draw


@pytest.fixture(scope="session", autouse=True)
def blank_pictures():
    """Figures are made but saved blank, since layout and text take longer than most of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "draw", lambda *_: None)
        yield


@pytest.fixture
def draws(monkeypatch):
    """Let pictures be drawn."""
    monkeypatch.setattr(Figure, "draw", DRAW)
