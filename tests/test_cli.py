"""The front door: instant help, exit codes, and errors that take one line."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from melpatch import __version__, cli, distributed, progress, registry
from melpatch.config import check
from melpatch.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Greeting."""

    times: int = 1
    """How often to greet."""

    def __post_init__(self) -> None:
        check(self.times >= 0, "times", self.times, "0 or more")


@pytest.fixture
def greet(monkeypatch):
    """A command ``greet-all`` that exists for this test only; ``module.run`` may be replaced."""
    module = ModuleType("melpatch.commands.greet_all", "Greet everybody.\n\nAs often as asked.")
    module.Config, module.run = Config, lambda config: sys.stdout.write("hello\n" * config.times)
    names, summary = registry.names, registry.summary
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "names", lambda folder: sorted([*names(folder), "greet_all"]))
    monkeypatch.setattr(
        registry, "summary", lambda f, name: "Greet." if name == "greet_all" else summary(f, name)
    )
    return module


def failing(error):
    def run(config):
        raise error

    return run


def in_a_process(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **options
    )


def imported_by(arguments):
    """Return what melpatch prints for some arguments, and which heavy libraries it imports for that."""
    libraries = {"torch", "numpy", "tyro", "rich", "sklearn", "scipy", "lightning_fabric"}
    code = (
        "import sys; from melpatch.cli import main; code = main(sys.argv[1:]); "
        f"print('imported:', *sorted({libraries} & sys.modules.keys())); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    out, _, names = done.stdout.rpartition("imported:")
    return out, set(names.split())


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(word):
    assert imported_by([word])[1] == set()


@pytest.mark.parametrize(
    "words",
    [
        ["pretrain"],
        ["pretrain", "asit_2024", "--size", "base"],
        ["pretrain", "cola", "--encoder", "cnn14"],
        ["finetune", "--recipe", "ast_esc50"],
        ["evaluate"],
        ["embed"],
    ],
    ids=" ".join,
)
def test_the_help_of_a_command_needs_no_torch_and_is_the_same_as_with_it(
    words, capsys, monkeypatch
):
    out, imported = imported_by([*words, "--help"])
    assert imported <= {"numpy", "tyro"}
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main([*words, "--help"]) == 0  # the tests have imported torch
    assert out == capsys.readouterr().out


def test_after_help_the_libraries_are_the_real_ones():
    code = (
        "from melpatch import cli\n"
        "assert cli.main(['pretrain', '--help']) == 0\n"
        "from melpatch.objectives.ssast import SSAST\n"
        "import torch, rich\n"
        "assert issubclass(SSAST, torch.nn.Module)\n"
        "assert torch.zeros(2).sum() == 0\n"
    )
    done = in_a_process(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
@pytest.mark.usefixtures("greet")
def test_help_lists_every_command_with_its_line(arguments, capsys):
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    for name in registry.names("commands"):
        assert f"{name.replace('_', '-')}  " in out
        assert registry.summary("commands", name) in out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"melpatch {__version__}\n"


@pytest.mark.usefixtures("greet")
def test_a_command_runs_with_its_arguments(capsys):
    assert cli.main(["greet-all", "--times", "2"]) == 0
    assert capsys.readouterr().out == "hello\nhello\n"


@pytest.mark.usefixtures("greet")
def test_the_arguments_of_the_process_are_the_default(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["melpatch", "greet-all"])
    assert cli.main() == 0
    assert capsys.readouterr().out == "hello\n"


def test_a_command_may_read_its_arguments_itself(greet, capsys):
    greet.parse = lambda arguments: Config(times=len(arguments))
    assert cli.main(["greet-all", "--any", "thing", "goes"]) == 0
    assert capsys.readouterr().out == "hello\n" * 3


@pytest.mark.usefixtures("greet")
def test_the_help_of_a_command_tells_what_it_does_and_each_option(capsys):
    assert cli.main(["greet-all", "--help"]) == 0
    out = capsys.readouterr().out
    for part in (
        "usage: melpatch greet-all",
        "Greet everybody.",
        "--times INT",
        "How often to greet. (default: 1)",
    ):
        assert part in out


@pytest.mark.usefixtures("greet")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--times", "two"], "--times two; allowed: a whole number"),
        (["--times=two"], "--times two; allowed: a whole number"),
        (["--times"], "--times needs a value: a whole number"),
        (["stray"], "unexpected 'stray'; 'melpatch greet-all --help' shows what it takes"),
    ],
)
def test_a_value_that_cannot_be_read_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert cli.main(["greet-all", *arguments]) == 2
    assert capsys.readouterr().err == f"melpatch greet-all: error: {message}\n"


@pytest.mark.usefixtures("greet")
@pytest.mark.parametrize(
    ("flag", "advice"),
    [("--tims", "did you mean --times?"), ("--xyz=1", "'melpatch greet-all --help' lists them")],
)
def test_an_unknown_flag_is_one_line_that_names_the_nearest(flag, advice, capsys):
    assert cli.main(["greet-all", flag, "2"]) == 2
    line = f"melpatch greet-all: error: unknown flag {flag.partition('=')[0]}; {advice}\n"
    assert capsys.readouterr().err == line


@pytest.mark.usefixtures("greet")
@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("great-all", "did you mean greet-all?"),
        ("zzz", "'melpatch --help' lists them"),
        ("--zzz", "'melpatch --help' lists them"),
    ],
)
def test_an_unknown_command_is_exit_code_2_with_advice(word, advice, capsys):
    assert cli.main([word]) == 2
    assert (
        capsys.readouterr().err
        == f"melpatch {word}: error: no command is called '{word}'; {advice}\n"
    )


@pytest.mark.usefixtures("greet")
def test_a_setting_out_of_range_is_one_line_and_exit_code_2(capsys):
    assert cli.main(["greet-all", "--times", "-1"]) == 2
    assert capsys.readouterr().err == "melpatch greet-all: error: --times -1; allowed: 0 or more\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("birds: empty;\nadd recordings"), 2, "error: birds: empty; add recordings"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed."),
            2,
            "error: a decoding process was killed, perhaps for lack of memory; give fewer --workers, or 0",
        ),
        (
            KeyError("x"),
            1,
            "KeyError: 'x'; this is a defect; run again with --debug for the traceback",
        ),
        (
            AssertionError(),
            1,
            "AssertionError; this is a defect; run again with --debug for the traceback",
        ),
    ],
)
def test_what_ends_a_command_is_one_line_and_an_exit_code(greet, error, code, line, capsys):
    greet.run = failing(error)
    assert cli.main(["greet-all"]) == code
    assert capsys.readouterr().err == f"melpatch greet-all: {line}\n"


@pytest.mark.parametrize("error", [DataError("birds: empty"), ValueError("x")])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_debug_anywhere_lets_the_exception_through(greet, error, place):
    greet.run = failing(error)
    arguments = ["greet-all", "--times", "1"]
    arguments.insert(place, "--debug")
    with pytest.raises(type(error)):
        cli.main(arguments)


def test_a_reader_that_goes_away_is_no_error():
    """As in ``melpatch list | head -1``: nothing on stderr, and the exit code of a program stopped by SIGPIPE."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "melpatch", "list", "--json"],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("words", [["list"], ["list", "nothing"]])
def test_a_reader_of_tables_or_errors_that_goes_away_is_no_error(stream, words):
    """As in ``melpatch list 2>&1 | head -1``, for output of rich and for messages."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: pipe}
        done = subprocess.run(
            [sys.executable, "-m", "melpatch", *words], **streams, text=True, timeout=60
        )
    expected = 2 if "nothing" in words else 141 if stream == "stdout" else 0
    assert done.returncode == expected
    if words == ["list"]:
        assert not done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_process_without_standard_streams_does_its_work(closed, tmp_path):
    command = f"{sys.executable} -m melpatch list --json {closed}; echo $? > {tmp_path}/code"
    subprocess.run(command, shell=True, capture_output=True, timeout=60)
    assert (tmp_path / "code").read_text() == "0\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", ["list", "list --json", "--help"])
def test_output_that_finds_no_room_is_one_line_and_exit_code_2(words):
    command = f"{sys.executable} -m melpatch {words} > /dev/full"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    (line,) = done.stderr.splitlines()
    assert "No space left on device" in line
    assert done.returncode == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp932"])
def test_a_terminal_with_another_encoding_gets_what_it_can_show(greet, encoding, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    greet.run = lambda config: progress.console().print("Zilpzalp ± 鳥 \udcff")
    assert cli.main(["greet-all"]) == 0
    assert raw.getvalue().startswith(b"Zilpzalp ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_a_command_tidy_up_and_gives_its_exit_code(greet, number, capsys):
    tidied = []

    def work(config):
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            tidied.append(True)

    greet.run = work
    before = signal.getsignal(number)
    assert cli.main(["greet-all"]) == 128 + number
    assert tidied == [True]
    assert f"stopped by {signal.Signals(number).name}" in capsys.readouterr().err
    assert signal.getsignal(number) == before


def test_faults_of_the_machine_are_one_line_and_exit_code_2(greet, capsys):
    greet.run = failing(OSError(errno.EMFILE, "Too many open files"))
    assert cli.main(["greet-all"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("melpatch greet-all: error: Too many open files; close other programs")


def test_python_dash_m_is_the_same_door():
    done = subprocess.run(
        [sys.executable, "-m", "melpatch", "lst"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "did you mean list?" in done.stderr


# ----------------------------------------------------------------------------------------------------------- processes


@pytest.fixture
def several(monkeypatch):
    """As if torchrun had started two processes, of which this is the one whose number is set; say who failed first."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "process_group", nullcontext)
    return monkeypatch.setattr


def test_a_command_that_is_the_work_of_one_process_says_so(greet, several, capsys):
    assert cli.main(["greet-all"]) == 2
    line = "melpatch greet-all: error: melpatch greet-all runs in one process only; start it without torchrun\n"
    assert capsys.readouterr().err == line
    greet.TOGETHER = True
    assert cli.main(["greet-all"]) == 0


@pytest.mark.parametrize("number", [0, 1])
def test_the_first_process_alone_says_what_goes_on(greet, several, capsys, number):
    greet.TOGETHER = True
    several(distributed, "rank", lambda: number)
    assert cli.main(["greet-all", "--times", "2"]) == 0
    assert capsys.readouterr().out == ("hello\n" * 2 if number == 0 else "")


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("first", [True, False])
def test_the_process_that_fails_first_alone_says_of_what(greet, several, capsys, number, first):
    greet.TOGETHER, greet.run = True, failing(DataError("no sound"))
    several(distributed, "rank", lambda: number)
    several(distributed, "first_to_fail", lambda: first)
    assert cli.main(["greet-all"]) != 0
    assert capsys.readouterr().err == ("melpatch greet-all: error: no sound\n" if first else "")
