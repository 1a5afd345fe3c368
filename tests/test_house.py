"""The house rules: floors, sizes, names, docstrings, no ambient randomness, and documents whose commands exist."""

import ast
import importlib.util
import itertools
import re
import shlex
import statistics
import tomllib
from functools import cache
from pathlib import Path

import pytest
from places import ROOT

from melpatch import cli, registry
from melpatch.config import to_toml
from melpatch.recipes.base import recipe
from melpatch.weight_files import is_weights

PACKAGE = ROOT / "src" / "melpatch"
SOURCES = sorted(PACKAGE.rglob("*.py"))
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("lab/*.md")),
]

# Nine floors, each with one or more levels. A room imports from its own folder and from the levels above it in this
# list, never from a neighbour on its own level.
FLOORS = {
    "ground": [
        {"errors", "faults", "machine", "time_left", "counted"},
        {
            "atomic",
            "opening",
            "rng",
            "progress",
            "distributed",
            "colours",
            "schedules",
            "placeholders",
            "outputs",
            "default_dtype",
            "interruption",
            "markup",
        },
        {"registry", "only_writer", "unchanged", "data_frames"},
        {"config", "flags"},
        {"help_page"},
        {"arguments"},
    ],
    "audio and networks": [{"audio", "nn"}],
    "data and encoders": [
        {"data", "checkpoint", "encoders"},
        {"datasets", "weight_files", "hub"},
        {"handed_over"},
    ],
    "objectives and weights": [{"objectives"}, {"interop"}],
    "training": [{"training"}],
    # A search is over what a run computes; the heads that people teach are kept as evaluation keeps probes.
    "use of a run": [
        {"inference"},
        {"recipes", "plots", "sklearn"},
        {"evaluation"},
        {"search"},
        {"page"},
    ],
    "workflows": [{"workflows"}],
    "protocols, comparison and export": [
        {"protocols", "comparison", "export"},
        {"targets", "reports"},
    ],
    "commands": [{"commands"}, {"cli"}, {"__main__"}],
}
LEVELS = [level for floor in FLOORS.values() for level in floor]
# Lines of a function, if not 60: the training loop is written out, so that it reads top to bottom,
# and evaluate says what each of its many settings is.
LONGEST = {"fit": 100, "evaluate": 85}
KINDS = ("objectives", "encoders", "recipes", "protocols", "datasets", "targets", "commands")
HEIGHT = {room: height for height, level in enumerate(LEVELS) for room in level}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "misc", "common"}
FORBIDDEN_LIBRARIES = {
    "torchaudio",
    "torchvision",
    "torchcodec",
    "timm",
    "librosa",
    "fairseq",
    "random",
    "pickle",
}
AMBIENT = re.compile(
    r"\btorch\.(rand|randn|randint|randperm|bernoulli|multinomial|normal)\("
    r"|\bnp\.random\.(?!default_rng\b|Generator\b)\w+"
)


def style():
    """Return ``tools/style.py``, which holds the guarded words, as a module."""
    spec = importlib.util.spec_from_file_location("style", ROOT / "tools" / "style.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def place(node_or_path, path=None):
    """Return ``file:line``, as an editor understands it."""
    if path is None:
        return str(node_or_path.relative_to(ROOT))
    return f"{path.relative_to(ROOT)}:{node_or_path.lineno}"


def everywhere(*kinds):
    """Yield every syntax node of these kinds in the package, with its file."""
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, kinds):
                yield path, node


def imported(node):
    """Return the dotted names that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.module == "melpatch":
        return [f"melpatch.{alias.name}" for alias in node.names]
    return [node.module or "."]


def imports():
    """Yield (file, node, dotted name) for every import in the package."""
    for path, node in everywhere(ast.Import, ast.ImportFrom):
        for name in imported(node):
            yield path, node, name


def room(path):
    """Return the room of a file: its folder below the package, or its own name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def public(body):
    """Yield the public classes, functions and methods of a module or class; the overloads of one count as one."""
    for node in body:
        overload = "overload" in map(ast.unparse, getattr(node, "decorator_list", []))
        if (
            isinstance(node, ast.FunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and not overload
        ):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body)


def configs():
    """Yield every configuration class: a dataclass called Config, or something Config."""
    for path, node in everywhere(ast.ClassDef):
        if node.name.endswith("Config"):
            yield path, node


def test_every_room_has_its_floor():
    assert {room(path) for path in SOURCES} - {"__init__"} <= HEIGHT.keys()


def test_rooms_import_from_lower_floors_only():
    wrong = []
    for path, node, name in imports():
        here, there = room(path), name.partition("melpatch.")[2].split(".")[0]
        if here == "__init__" or not name.startswith("melpatch.") or here == there:
            continue
        if HEIGHT.get(there, 99) >= HEIGHT[here]:
            wrong.append(f"{place(node, path)} imports {name}")
    assert wrong == []


def test_commands_do_not_import_each_other():
    wrong = [
        f"{place(node, path)} imports {name}"
        for path, node, name in imports()
        if room(path) == "commands"
        and name.startswith("melpatch.commands")
        and name != "melpatch.commands.base"
    ]
    assert wrong == []


def test_no_import_is_relative():
    assert [place(node, path) for path, node in everywhere(ast.ImportFrom) if node.level] == []


def test_objectives_do_not_know_each_other():
    wrong = [
        f"{place(node, path)} imports {name}"
        for path, node, name in imports()
        if room(path) == "objectives"
        and name.startswith("melpatch.objectives")
        and name.removeprefix("melpatch.objectives.") not in registry.NOT_PIECES
    ]
    assert wrong == []


def test_no_library_that_fails_beside_a_cpu_torch_or_runs_code_from_files():
    wrong = [
        f"{place(node, path)} imports {name}"
        for path, node, name in imports()
        if name.split(".")[0] in FORBIDDEN_LIBRARIES
    ]
    assert wrong == []


def test_no_ambient_randomness():
    wrong = [
        f"{place(path)}: {match.group()}"
        for path in SOURCES
        if path.name != "rng.py"
        for match in AMBIENT.finditer(path.read_text(encoding="utf-8"))
    ]
    assert wrong == []


def test_nothing_prints():
    calls = [
        place(node, path)
        for path, node in everywhere(ast.Call)
        if ast.unparse(node.func) == "print"
    ]
    assert calls == []


def test_a_page_stays_a_page():
    lines = {place(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: count for name, count in lines.items() if count > 400} == {}
    assert statistics.median(count for count in lines.values() if count) < 200


def test_functions_fit_on_a_screen():
    long = {
        place(node, path): node.end_lineno - node.lineno + 1
        for path, node in everywhere(ast.FunctionDef)
        if node.end_lineno - node.lineno >= LONGEST.get(node.name, 60)
    }
    assert long == {}


def test_rooms_are_named_after_what_lives_in_them():
    paths = [
        path
        for folder in ("src", "tests", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*.py")
    ]
    wrong = [
        place(path)
        for path in paths
        if FORBIDDEN_NAMES & {part.removesuffix(".py") for part in path.parts}
    ]
    assert wrong == []


def test_everything_public_has_a_docstring():
    modules = [
        place(path) for path in SOURCES if tree(path).body and not ast.get_docstring(tree(path))
    ]
    nodes = [
        place(n, path)
        for path in SOURCES
        for n in public(tree(path).body)
        if not ast.get_docstring(n)
    ]
    assert modules + nodes == []


def test_every_setting_says_what_it_is():
    """tyro shows the sentence under a field as the help of its flag; a nested configuration speaks for itself."""
    silent = []
    for path, cls in configs():
        for node, after in zip(cls.body, [*cls.body[1:], None], strict=True):
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if (
                isinstance(node, ast.AnnAssign)
                and not told
                and "Config" not in ast.unparse(node.annotation)
            ):
                silent.append(f"{place(node, path)} {node.target.id}")
    assert silent == []


def test_every_configuration_is_frozen_and_keyword_only():
    loose = [
        place(node, path)
        for path, node in configs()
        if {"frozen=True", "kw_only=True"}
        - {ast.unparse(k) for d in node.decorator_list for k in getattr(d, "keywords", [])}
    ]
    assert loose == []


def written_files():
    """Yield every file that holds prose of ours."""
    yield from SOURCES
    for name in ("docs", "lab", "examples", "benchmarks"):
        for path in sorted((ROOT / name).rglob("*")):
            if path.suffix in {".py", ".md", ".toml"}:
                yield path
    for name in ("README.md", "CONTRIBUTING.md"):
        yield ROOT / name


def test_prose_and_names_are_those_of_the_field():
    guarded = style().guarded
    wrong = [word for path in written_files() for word in guarded(path)]
    assert wrong == []


def summaries(kind):
    """Yield the name and the summary of every piece of a kind, as ``melpatch list`` shows them."""
    if kind != "recipes":
        for name in registry.names(kind):
            yield name, registry.summary(kind, name)
        return
    for path in SOURCES:
        if room(path) == kind and path.stem != "base":
            for node in public(tree(path).body):
                yield node.name, (ast.get_docstring(node) or "").partition("\n")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_summary_is_a_whole_sentence_on_one_line(kind):
    wrong = [
        f"{name}: {summary}"
        for name, summary in summaries(kind)
        if not re.fullmatch(r"[A-Z0-9].{10,98}\.", summary) or summary.startswith("Return ")
    ]
    assert wrong == []


def test_every_recipe_names_its_source():
    source = re.compile(r"Source\b.*(arXiv|lab/[\w-]+\.md|https?://|:func:)", re.DOTALL)
    recipes = [
        (path, node)
        for path in SOURCES
        if room(path) == "recipes" and path.stem != "base"
        for node in public(tree(path).body)
    ]
    assert [
        place(node, path)
        for path, node in recipes
        if not source.search(ast.get_docstring(node) or "")
    ] == []


def test_every_lab_file_that_is_cited_exists_and_is_in_the_index():
    texts = [path.read_text(encoding="utf-8") for path in [*SOURCES, *DOCUMENTS]]
    cited = {name for text in texts for name in re.findall(r"\blab/([\w-]+\.md)", text)}
    files = {path.name for path in (ROOT / "lab").glob("*.md")}
    index = (ROOT / "lab" / "README.md").read_text(encoding="utf-8")
    assert cited - files == set()
    assert [name for name in files - {"README.md"} if f"({name})" not in index] == []


def commands(document):
    """Yield the commands of a document's shell blocks as lists of words, each up to a pipe or the like."""
    blocks = re.findall(
        r"^```(?:bash|sh)\n(.*?)^```",
        document.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        end = next((i for i, word in enumerate(words) if word in {"|", ">", "&&", ";"}), len(words))
        if words[:end]:
            yield words[:end]


def written(program):
    return [(path, words) for path in DOCUMENTS for words in commands(path) if words[0] == program]


def test_the_readme_shows_the_two_commands_that_do_everything():
    shown = [words[:2] for path, words in written("make") if path.name == "README.md"]
    assert ["make", "demo"] in shown
    assert ["make", "test"] in shown


def test_every_make_target_that_a_document_shows_exists():
    targets = set(
        re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    missing = [
        f"{place(path)}: {' '.join(words)}"
        for path, words in written("make")
        if words[1] not in targets
    ]
    assert missing == []


def is_closed(words):
    """Whether a command can be read without files of the reader; tests/journeys runs the others."""
    return words[2:3] != ["auto"] and ":" not in "".join(words[2:3])


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=" ".join(words))
        for _, words in written("melpatch")
        if is_closed(words)
    ],
)
def test_every_command_that_a_document_shows_can_be_read(words, tmp_path, monkeypatch, capsys):
    """Its command and flags exist and its values are allowed; nothing is run."""
    monkeypatch.chdir(tmp_path)
    for flag, run in itertools.pairwise(
        words
    ):  # fine-tuning takes its defaults from the run it starts from
        if flag in {"--init", "--encoder-from"} and run != "scratch" and not is_weights(run):
            Path(run).mkdir(parents=True)
            Path(run, "config.toml").write_text(to_toml(recipe("ssast")("nano")), encoding="utf-8")
    try:
        cli.parse(words[1], words[2:])
    except SystemExit as wrong:
        pytest.fail(f"{' '.join(words)}: exit code {wrong.code}\n{capsys.readouterr().err}")


def test_the_version_is_the_one_on_top_of_the_changelog():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "version"
    ]
    top = re.search(
        r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert top is not None
    assert top.group(1) == version


def test_no_path_of_somebodys_machine_is_left_in_a_file():
    folders = ("src", "tests", "docs", "examples", "benchmarks", ".ci")
    found = [
        path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix != ".pyc"
    ]
    leak = re.compile(rb"(?<![\w.])/(work|root|home|Users)/")
    top = [path for path in ROOT.iterdir() if path.name != ".git"]  # a file in a worktree
    files = [path for path in [*top, *found] if path.is_file()]
    assert [place(path) for path in files if leak.search(path.read_bytes())] == []
