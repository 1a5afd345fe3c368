"""Progress: a live bar on a terminal, lines in a log or notebook, silence from all ranks but 0."""

import io
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
    with progress.bar(100, "pretrain") as bar:
        for _ in range(100):
            clock.now += 1
            bar.advance(loss=0.61234, memory="3.1 GiB")
    assert capsys.readouterr().err.splitlines() == [
        "pretrain: 30/100, 1.0/s, 0:00:30 elapsed, 0:01:10 left, loss 0.6123, memory 3.1 GiB",
        "pretrain: 60/100, 1.0/s, 0:01:00 elapsed, 0:00:40 left, loss 0.6123, memory 3.1 GiB",
        "pretrain: 90/100, 1.0/s, 0:01:30 elapsed, 0:00:10 left, loss 0.6123, memory 3.1 GiB",
    ]


def test_steps_of_an_earlier_run_do_not_count_towards_the_rate(clock, capsys):
    with progress.bar(1000, "pretrain", done=900) as bar:
        clock.now = 40
        bar.advance(20)
    assert (
        capsys.readouterr().err == "pretrain: 920/1000, 2.0 s each, 0:00:40 elapsed, 0:02:40 left\n"
    )


def test_a_loop_of_unknown_length_shows_no_time_left(clock, capsys):
    with progress.bar(None, "read") as bar:
        clock.now = 40
        bar.advance(80)
    assert capsys.readouterr().err == "read: 80, 2.0/s, 0:00:40 elapsed\n"


@pytest.mark.usefixtures("clock")
def test_a_loop_that_ends_soon_shows_nothing(capsys):
    assert list(progress.track("abc", 3, "read")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_a_notebook_gets_one_line_that_is_rewritten(monkeypatch, clock, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    with progress.bar(4, "pretrain") as bar:
        for _ in range(4):
            clock.now += 1
            bar.advance()
    lines = capsys.readouterr().err.split("\r\033[K")
    assert lines[1].startswith("pretrain: 1/4, 1.0/s")
    assert lines[-1] == "pretrain: 4/4, 1.0/s, 0:00:04 elapsed, 0:00:00 left\n"


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    with progress.bar(4, "pretrain") as bar:
        bar.advance(3, loss=0.5)
    shown = terminal.getvalue()
    assert "pretrain" in shown
    assert "3/4" in shown
    assert "loss 0.5" in shown


def test_a_bar_within_another_stands_on_the_same_screen_and_goes_when_it_is_done(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    for _ in range(2):
        with progress.bar(2, "outer") as outer:
            for _ in range(2):
                with progress.bar(5, "inner") as inner:
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
        progress.bar(2, "outer"),
        progress.bar(2, "inner"),
    ):
        raise ValueError("no luck")
    assert progress._live == []


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK"])
def test_only_rank_zero_shows_anything(variable, monkeypatch, clock, capsys):
    monkeypatch.setenv(variable, "1")
    with progress.bar(2, "pretrain") as bar:
        clock.now = 100
        bar.advance()
    progress.notice("look")
    assert capsys.readouterr().err == ""


def test_a_notice_is_a_line_on_stderr(capsys):
    progress.notice("3 recordings could not be read")
    assert capsys.readouterr() == ("", "3 recordings could not be read\n")


def test_tables_in_a_pipe_are_wide_and_brackets_are_text(capsys):
    line = "x" * 130 + " [bold]"
    progress.console().print(line)
    assert capsys.readouterr().out.rstrip() == line
