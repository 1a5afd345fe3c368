"""Counted instructions are beside those expected; the counting itself needs Valgrind and minutes."""

import importlib
import json

import pytest
from places import ROOT

DUMP = """# callgrind format
desc: Timerange: Basic block 0 - 120836
desc: Trigger: dump search, 100,000 x 192
summary: 0
totals: 639053
"""


@pytest.fixture
def instructions(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("instructions")


@pytest.fixture
def expecting(instructions, monkeypatch, tmp_path):
    """The benchmark with a table of its own and counts that a test gives it."""

    def expect(expected, counts, versions=None):
        table = {"versions": versions or instructions.versions(), "counts": expected}
        monkeypatch.setattr(instructions, "TABLE", tmp_path / "instructions.json")
        instructions.TABLE.write_text(json.dumps(table))
        monkeypatch.setattr(instructions, "count", lambda: counts)
        monkeypatch.setattr(instructions.shutil, "which", lambda name: f"/usr/bin/{name}")
        return instructions

    return expect


@pytest.mark.parametrize(
    ("count", "fits"), [(1000, True), (1029, True), (971, True), (1031, False), (969, False)]
)
def test_a_count_may_differ_by_three_in_a_hundred(instructions, count, fits):
    (finding,) = instructions.compare({"a": count}, {"a": 1000})
    assert finding.fits == fits
    assert finding.ratio == pytest.approx(count / 1000)


def test_a_workload_without_a_count_or_without_an_expected_one_does_not_fit(instructions):
    gone, kept, new = instructions.compare({"kept": 5, "new": 5}, {"gone": 5, "kept": 5})
    assert (gone.name, gone.ratio, gone.fits) == ("gone", None, False)
    assert (kept.name, kept.ratio, kept.fits) == ("kept", 1.0, True)
    assert (new.name, new.ratio, new.fits) == ("new", None, False)


def test_the_exit_code_says_whether_all_fit(expecting, capsys):
    table = {"a": 1_000_000, "b": 2_000_000}
    settings = expecting(table, table).Config()
    assert expecting(table, table).main(settings) == 0
    assert expecting(table, table | {"b": 2_200_000}).main(settings) == 1
    records = capsys.readouterr().out.splitlines()
    assert json.loads(records[0]) == {"name": "a", "count": 1.0, "ratio": 1.0, "fits": True}
    assert json.loads(records[3]) == {"name": "b", "count": 2.2, "ratio": 1.1, "fits": False}
    assert records[4].startswith("counts differ by more than 3%")


def test_other_versions_and_a_missing_valgrind_are_told(expecting, capsys, monkeypatch):
    other = expecting({"a": 1}, {"a": 1}, versions={"torch": "1.0"})
    assert other.main(other.Config()) == 2
    assert "holds for {'torch': '1.0'}" in capsys.readouterr().out
    monkeypatch.setattr(other.shutil, "which", lambda name: None)
    assert other.main(other.Config()) == 2
    assert "apt install valgrind" in capsys.readouterr().out


def test_what_was_counted_is_expected_from_then_on(expecting, capsys):
    benchmark = expecting({"a": 1}, {"b": 7, "a": 5})
    assert benchmark.main(benchmark.Config(write=True)) == 0
    assert benchmark.main(benchmark.Config()) == 0
    assert [*json.loads(benchmark.TABLE.read_text())["counts"]] == ["a", "b"]


def test_a_dump_is_read_by_its_name(instructions):
    assert instructions.counted(DUMP) == ("search, 100,000 x 192", 639053)


def test_the_workloads_are_those_of_the_table(instructions, tmp_path, monkeypatch):
    words = []
    monkeypatch.setattr(instructions, "control", words.append)
    threads = instructions.torch.get_num_threads()
    try:
        instructions.run_workloads(tmp_path)
    finally:
        instructions.torch.set_num_threads(threads)
        instructions.gc.enable()
    dumped = {word.removeprefix("--dump=") for word in words if word.startswith("--dump=")}
    table = json.loads(instructions.TABLE.read_text())
    assert dumped == {*table["counts"], instructions.NOTHING}
    assert words[:2] == ["--instr=on", "--instr=off"]
