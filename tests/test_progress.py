"""Progress: a live bar on a terminal, lines in a log or notebook, silence from all ranks but 0."""

import io
import re
import sys

import pytest

from melpatch import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test sets ``clock.now``."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_a_log_gets_a_line_every_half_minute(clock, capsys):
    with progress.bar(100, "pretrain", "step") as bar:
        for _ in range(100):
            clock.now += 1.0
            bar.advance(loss=0.61234, memory="3.1 GiB memory")
    assert capsys.readouterr().err.splitlines() == [
        f"pretrain: {done}/100 steps, 1.0 steps/s, 0:0{done // 60}:{done % 60:02} elapsed, "
        f"about {100 - done} s left, loss 0.6123, 3.1 GiB memory"
        for done in (30, 60, 90)
    ]


def test_steps_of_an_earlier_run_do_not_count_towards_the_rate(clock, capsys):
    with progress.bar(910, "pretrain", "step", done=900) as bar:
        clock.now = 40.0
        bar.advance(2)
    assert (
        capsys.readouterr().err
        == "pretrain: 902/910 steps, 20.0 s each, 0:00:40 elapsed, about 3 min left\n"
    )


def test_a_loop_of_unknown_length_shows_no_time_left(clock, capsys):
    with progress.bar(None, "read", "file") as bar:
        clock.now = 40.0
        bar.advance(80)
    assert capsys.readouterr().err == "read: 80 files, 2.0 files/s, 0:00:40 elapsed\n"


@pytest.mark.usefixtures("clock")
def test_a_loop_that_ends_soon_shows_nothing(capsys):
    assert list(progress.track("abc", 3, "read", "letter")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_a_notebook_gets_one_line_that_is_rewritten(monkeypatch, clock, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    with progress.bar(4, "pretrain", "step") as bar:
        for _ in range(4):
            clock.now += 1.0
            bar.advance()
    lines = capsys.readouterr().err.split("\r\033[K")
    assert lines[1].startswith("pretrain: 1/4 steps, 1.0 steps/s")
    assert lines[-1] == "pretrain: 4/4 steps, 1.0 steps/s, 0:00:04 elapsed, about 0 s left\n"


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    with progress.bar(4, "pretrain", "step") as bar:
        bar.advance(3, loss=0.5)
    shown = terminal.getvalue()
    assert "pretrain" in shown
    assert "3/4 steps" in shown
    assert "loss 0.5" in shown


def test_a_bar_within_another_stands_on_the_same_screen_and_goes_when_it_is_done(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    for _ in range(2):
        with progress.bar(2, "outer", "round") as outer:
            for _ in range(2):
                with progress.bar(5, "inner", "step") as inner:
                    inner.advance(5)
                    assert inner.progress is outer.progress
                outer.advance()
            assert [task.description for task in outer.progress.tasks] == ["outer"]
    assert progress._live == []
    last = terminal.getvalue().rsplit("outer", 1)[1]
    assert "2/2" in last
    assert "inner" not in last


def test_a_bar_that_fails_leaves_the_screen_to_the_next(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with (
        pytest.raises(ValueError, match="no luck"),
        progress.bar(2, "outer", "round"),
        progress.bar(2, "inner", "step"),
    ):
        raise ValueError("no luck")
    assert progress._live == []


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK"])
def test_only_rank_zero_shows_anything(variable, monkeypatch, clock, capsys):
    monkeypatch.setenv(variable, "1")
    with progress.bar(2, "pretrain", "step") as bar:
        clock.now = 100.0
        bar.advance()
    progress.notice("look")
    assert capsys.readouterr().err == ""


def test_a_loop_without_steps_shows_nothing(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress.track("", 0, "probing", "file")) == []
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("total", [9, 1_000_000])
def test_a_line_fits_its_terminal_and_gives_up_names_before_numbers(columns, total, clock):
    bar = progress.Bar(total, "fine-tuning", "step", 0)
    at_once = max(1, total // 1000)
    for _ in range((total - total // 3) // at_once):
        clock.now += 0.5 * at_once
        bar.advance(at_once, loss=0.61234, clips="229.3 clips/s", memory="3.1 GiB memory")
    line = bar.line(columns)
    assert len(line) <= columns
    assert f"{bar.done}/{total} steps"[:columns] in line
    if columns >= 60:
        assert " left" in line
        assert "loss 0.6123" in line
    if columns >= 80:
        assert line.startswith("fine-tuning: ")
        assert "2.0/s" in line or "2.0 steps/s" in line
    if columns >= 200:
        assert bar.line() == line


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_terminal_of_any_width_shows_the_count_on_one_line(columns, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    with progress.bar(300, "training", "step") as bar:
        bar.advance(120, loss=0.6, clips="229.3 clips/s", memory="3.1 GiB memory")
    lines = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", terminal.getvalue()).split("\r")
    assert "120/300 steps" in lines[-1]
    assert max(len(line.rstrip()) for line in lines) <= columns


def test_a_process_without_stderr_shows_nothing_and_goes_on(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", None)
    progress.notice("look")
    with progress.bar(2, "pretrain", "step") as bar:
        clock.now = 100.0
        bar.advance()
    assert bar.done == 1


def test_a_notice_is_a_line_on_stderr(capsys):
    progress.notice("3 recordings could not be read")
    assert capsys.readouterr() == ("", "3 recordings could not be read\n")


def test_tables_in_a_pipe_are_wide_and_brackets_are_text(capsys):
    line = "x" * 130 + " [bold]"
    progress.console().print(line)
    assert capsys.readouterr().out.rstrip() == line
