"""Configurations: to TOML and back without loss, and a message for every mistake that names the key and the remedy."""

import dataclasses
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melpatch import config, registry
from melpatch.errors import ConfigError, SettingError


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.1
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        config.check(self.rate > 0, "rate", self.rate, "above 0")


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    inner: Inner = field(default_factory=Inner)
    others: tuple[Inner, ...] = ()
    mode: Literal["fast", "exact", 1] = "fast"
    patch: tuple[int, int] = (16, 16)
    shapes: tuple[tuple[int, int], ...] = ()
    limit: int | None = None
    window: float | None = 25.0
    size: int | tuple[int, int] = 1
    maybe: Inner | None = None
    folder: Path = Path("runs")
    files: tuple[Path, ...] = ()
    flag: bool = False


class Grid:
    @dataclass(frozen=True, kw_only=True)
    class Config:
        size: int = 3


@dataclass(frozen=True, kw_only=True)
class Holder:
    grid: Any = field(default_factory=Grid.Config, metadata=config.piece("objectives"))
    other: Any = field(default=None, metadata=config.piece("objectives"))


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
inners = st.builds(Inner, rate=st.floats(1e-30, 1e30), names=st.lists(text, max_size=3).map(tuple))
pairs = st.tuples(st.integers(0, 99), st.integers(0, 99))
outers = st.builds(
    Outer,
    # Of 63 bits and a sign, as settings may be.
    count=st.integers(-(2**63) + 1, 2**63 - 1),
    inner=inners,
    others=st.lists(inners, max_size=2).map(tuple),
    mode=st.sampled_from(["fast", "exact", 1]),
    patch=pairs,
    shapes=st.lists(pairs, max_size=2).map(tuple),
    limit=st.none() | st.integers(0, 9),
    window=st.none() | st.floats(-1e37, 1e37),
    size=st.integers(0, 9) | pairs,
    maybe=st.none() | inners,
    folder=st.sampled_from([Path("a/b"), Path("/x y/ü")]),
    files=st.lists(st.sampled_from([Path("a"), Path("b/c")])).map(tuple),
    flag=st.booleans(),
)


@given(settings=outers)
def test_toml_and_back_is_the_identity(settings, tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "config.toml"
    file.write_text(config.to_toml(settings), encoding="utf-8")
    assert config.from_toml(Outer, file) == settings


def test_fields_keep_their_order_and_a_none_that_is_the_default_is_left_out():
    written = config.to_dict(Outer(count=1, window=None))
    assert list(written) == [
        f.name for f in dataclasses.fields(Outer) if f.name not in ("limit", "maybe")
    ]
    assert written["window"] == "none"


def test_missing_keys_take_their_defaults():
    assert config.from_dict(Outer, {"count": 2}) == Outer(count=2)


def test_an_integer_may_stand_for_a_float():
    value = config.from_dict(Inner, {"rate": 2}).rate
    assert (value, type(value)) == (2.0, float)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"cuont": 1}, "run: unknown key 'cuont'; known: count, inner, others, "),
        ({"count": 1, "inner": {"rat": 1}}, "run.inner: unknown key 'rat'; known: rate, names"),
        ({"count": "1"}, "run.count: '1' is not of type int"),
        ({"count": True}, "run.count: True is not of type int"),
        ({"count": 1.0}, "run.count: 1.0 is not of type int"),
        ({"count": 1, "flag": 1}, "run.flag: 1 is not of type bool"),
        (
            {"count": 1, "mode": "quick"},
            "run.mode: 'quick' is not of type Literal['fast', 'exact', 1]",
        ),
        ({"count": 1, "mode": True}, "run.mode: True is not of type Literal['fast', 'exact', 1]"),
        ({"count": 1, "patch": [16]}, "run.patch: [16] is not of type tuple[int, int]"),
        ({"count": 1, "patch": [16, "x"]}, "run.patch[1]: 'x' is not of type int"),
        ({"count": 1, "limit": "x"}, "run.limit: 'x' is not of type int"),
        (
            {"count": 1, "size": [1]},
            "run.size: [1] is not of type int; or run.size: [1] is not of type tuple[int, int]",
        ),
        ({"count": 1, "folder": 3}, "run.folder: 3 is not of type Path"),
        ({"count": 1, "inner": 3}, "run.inner: 3 is not of type Inner"),
        ({"count": 1, "inner": {"rate": -1.0}}, "run.inner: rate = -1.0; allowed: above 0"),
        (
            {"count": 1, "others": [{}, {"rate": "x"}]},
            "run.others[1].rate: 'x' is not of type float",
        ),
        ({}, "run: Outer.__init__() missing 1 required keyword-only argument: 'count'"),
    ],
)
def test_messages(data, message):
    with pytest.raises(ConfigError) as caught:
        config.from_dict(Outer, data, "run")
    assert str(caught.value).startswith(message)


def test_a_file_that_is_missing_or_not_toml_is_named(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"absent\.toml: cannot be read \(No such file or directory\); give a run folder",
    ):
        config.from_toml(Outer, tmp_path / "absent.toml")
    for content in (b"count = ", b"\xff"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(ConfigError, match=r"bad\.toml: not TOML \(.*\); correct that line"):
            config.from_toml(Outer, tmp_path / "bad.toml")


def test_check_names_field_value_and_allowed():
    config.check(True, "rate", 1, "above 0")
    with pytest.raises(ConfigError, match=r"^rate = 0; allowed: above 0$"):
        config.check(False, "rate", 0, "above 0")


def test_owner_is_the_class_a_config_is_nested_in():
    assert config.owner(Grid.Config()) is Grid
    assert config.owner(Grid.Config) is Grid


@pytest.fixture
def pieces(monkeypatch):
    """A registry that knows one piece, ``grid``."""
    monkeypatch.setattr(registry, "names", lambda folder: ["grid"])
    monkeypatch.setattr(registry, "find", lambda folder, name: {"grid": Grid}[name])
    monkeypatch.setattr(registry, "name_of", lambda piece: piece.__name__.lower())


@pytest.mark.usefixtures("pieces")
def test_a_piece_is_written_with_its_name_and_read_back_through_the_registry():
    holder = Holder(grid=Grid.Config(size=5), other=Grid.Config())
    written = config.to_dict(holder)
    assert written == {"grid": {"name": "grid", "size": 5}, "other": {"name": "grid", "size": 3}}
    assert config.from_dict(Holder, written) == holder
    assert config.from_dict(Holder, config.to_dict(Holder())) == Holder()


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("value", [{"size": 5}, 3, "grid"])
def test_a_piece_without_a_name_names_those_that_exist(value):
    with pytest.raises(ConfigError, match=r"config\.grid: needs a table with a name; known: grid"):
        config.from_dict(Holder, {"grid": value})


@pytest.mark.usefixtures("pieces")
def test_a_mistake_inside_a_piece_names_its_path():
    with pytest.raises(ConfigError, match=r"config\.grid: unknown key 'sise'; known: size"):
        config.from_dict(Holder, {"grid": {"name": "grid", "sise": 5}})


def test_a_piece_of_the_users_own_code_needs_no_registration(monkeypatch):
    module = ModuleType("birds")
    exec(
        "from dataclasses import dataclass\n"
        "class Warbler:\n"
        "    needs_labels = False\n"
        "    @dataclass(frozen=True, kw_only=True)\n"
        "    class Config:\n"
        "        size: int = 3\n",
        vars(module),
    )
    monkeypatch.setitem(sys.modules, "birds", module)
    holder = Holder(grid=module.Warbler.Config(size=7))
    written = config.to_dict(holder)
    assert written == {"grid": {"name": "birds:Warbler", "size": 7}}
    assert config.from_dict(Holder, written, trust_code=True) == holder


# ----------------------------------------------------------------------- what others may write


@pytest.mark.parametrize(
    "text",
    [
        "count = 1\n" + "x = " + "[" * 100_000 + "]" * 100_000,
        "count = " + "9" * 5000,
        "count = " + "9" * 400,
        "count = nan",
        "count = 1\nwindow = nan",
        "count = 1\nwindow = -inf",
        "count = 1\nwindow = 1e999",
        "count = 1\nwindow = 1" + "0" * 400,
        "count = 9223372036854775808",
        "count = 1\nfolder = 3",
        'count = 1\nmode = ["fast"]',
        "count = 1\n[mode]\nx = 1",
        'count = 1\n"' + "k" * 100_000 + '" = 1',
        "count = 1\ncount = 2",
        "\x00",
    ],
    ids=lambda text: text[:30],
)
def test_damaged_settings_are_refused_in_one_short_line(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.toml") as caught:
        config.from_toml(Outer, path)
    assert len(str(caught.value)) < 1000


def test_settings_in_a_pipe_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.toml")
    with pytest.raises(ConfigError, match="is a named pipe, not a file"):
        config.from_toml(Outer, tmp_path / "config.toml")


def test_text_that_is_no_unicode_is_refused_by_its_name():
    @dataclass(frozen=True)
    class Named:
        labels: tuple[str, ...] = ()

    assert "ü" in config.to_toml(Named(("ü",)))
    with pytest.raises(SettingError, match=r"labels = .*udce9.*; allowed: text in UTF-8"):
        config.to_toml(Named(("a", "\udce9t\udce9")))
