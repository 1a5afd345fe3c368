import json
import os
import re
import signal
import threading
from contextlib import closing, contextmanager, nullcontext
from itertools import islice

import pytest
from tiny_runs import noises, settings
from two_processes import in_both

from melpatch.cli import main
from melpatch.data.manifest import load_corpus
from melpatch.distributed import on_rank_zero
from melpatch.errors import DataError, Interrupted, UnreachableError
from melpatch.training import loop, stopping
from melpatch.training.config import build
from melpatch.training.loop import fit
from melpatch.training.run import Run

SIGNALS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP]


def send(number):
    """Send a signal to this process, and return once Python has heard of it."""
    os.kill(os.getpid(), number)
    for _ in range(10):
        pass


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_while_it_is_heeded_and_then_does_what_it_did_before(number):
    heard = []
    before = signal.signal(number, lambda *_: heard.append(number))
    try:
        with stopping.caught():
            assert stopping.requested() == 0
            send(number)
            assert stopping.requested() == number
        assert heard == []
        send(number)
        assert heard == [number]
    finally:
        signal.signal(number, before)


def test_what_was_asked_of_one_training_is_not_asked_of_the_next():
    for _ in range(2):
        with stopping.caught():
            assert stopping.requested() == 0
            send(signal.SIGTERM)


def test_a_second_ctrl_c_ends_at_once_and_a_second_sigterm_does_not():
    with stopping.caught():
        for _ in range(3):
            send(signal.SIGTERM)
        assert stopping.requested() == signal.SIGTERM
    before = signal.getsignal(signal.SIGINT)  # in a background job of a shell it is ignored
    with pytest.raises(KeyboardInterrupt), stopping.caught():  # noqa: PT012
        send(signal.SIGINT)
        send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.caught():
            send(signal.SIGHUP)
            assert stopping.requested() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_system_without_some_signals_has_the_others(monkeypatch):
    monkeypatch.setattr(stopping, "stop_signals", lambda: (signal.SIGTERM, signal.SIGINT))
    with stopping.caught():
        send(signal.SIGTERM)
        assert stopping.requested() == signal.SIGTERM


def test_in_another_thread_signals_are_left_alone():
    found = []

    def work():
        with stopping.caught():
            found.append([signal.getsignal(number) for number in SIGNALS])

    before = [signal.getsignal(number) for number in SIGNALS]
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return noises(tmp_path_factory.mktemp("noise"))


def train(corpus, folder, ask=None, **how):
    """Train in a folder, from wherever it stands; ``ask`` is called after every step."""
    config = settings(**{"log_every": 5} | how)
    run = (
        Run.reopen(folder)
        if on_rank_zero((folder / "config.toml").exists)
        else Run.create(folder, config)
    )
    objective = build(run.config)
    if ask is not None:
        objective.after_step = ask
    return fit(objective, corpus, run)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_training_that_is_asked_ends_after_its_step_saved_and_goes_on_as_if_it_had_not(
    corpus, tmp_path, number
):
    with pytest.raises(
        Interrupted,
        match=rf"{signal.Signals(number).name} and saved after step 7 of 12; .* --resume",
    ) as caught:
        train(corpus, tmp_path / "run", lambda step: send(number) if step == 6 else None)
    assert caught.value.signal == number
    assert max(path.name for path in (tmp_path / "run" / "resume").iterdir()) == "step-000000007"
    assert train(corpus, tmp_path / "run").step == 12
    train(corpus, tmp_path / "whole")
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_training_asked_in_its_last_step_is_complete_and_ends_the_command_all_the_same(
    corpus, tmp_path
):
    with pytest.raises(
        Interrupted, match=r"complete and saved after step 12 when SIGTERM"
    ) as caught:
        train(corpus, tmp_path / "run", stopped_at(11))
    assert caught.value.signal == signal.SIGTERM
    train(corpus, tmp_path / "whole")
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert train(corpus, tmp_path / "run").step == 12


def test_a_training_asked_while_it_is_saved_for_the_last_time_ends_the_command(
    corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(Run, "save", lambda run, state, publish: send(signal.SIGTERM))
    with pytest.raises(Interrupted, match="complete"):
        train(corpus, tmp_path, save_every=12)


def stopped_at(wanted):
    return lambda step: send(signal.SIGTERM) if step == wanted else None


def one_of_two(rank, folder):
    """Go on with a run in two processes, of which the second alone is asked to end; return what was raised."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29501",
    }
    with pytest.raises(Interrupted) as caught:
        train(load_corpus([folder / "noise"]), folder / "run", stopped_at(8) if rank else None)
    return str(caught.value)


def test_a_run_goes_on_in_another_number_of_processes_with_the_clips_that_are_next(
    tmp_path, monkeypatch
):
    """One process up to step 5, two up to step 10, in which they agree on what one heard after step 9; then one."""
    corpus = noises(tmp_path / "noise")
    train(corpus, tmp_path / "whole", log_every=1)
    with pytest.raises(Interrupted):
        train(corpus, tmp_path / "run", stopped_at(4), log_every=1)
    told = in_both(one_of_two, tmp_path, monkeypatch)
    assert all("stopped by SIGTERM and saved after step 10 of 12" in each for each in told)
    assert train(corpus, tmp_path / "run").step == 12
    losses = [
        [
            json.loads(line)["loss"]
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("run", "whole")
    ]
    assert len(losses[0]) == 12
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    starts = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert len(starts) == 3  # the first of several processes writes


@contextmanager
def store_away_at(step):
    """Let no clip be fetched from a step on."""
    whole = loop.step_batches

    def until(trainer, corpus, first_step):
        with closing(whole(trainer, corpus, first_step)) as feed:
            yield from islice(feed, step - first_step)
            raise UnreachableError("far.wav", "cannot be fetched", "check the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "step_batches", until)
        yield


def away_on_the_second(rank, folder):
    with pytest.raises(DataError) as caught, store_away_at(7) if rank else nullcontext():
        train(load_corpus([folder / "noise"]), folder / "run")
    whole = train(load_corpus([folder / "noise"]), folder / "run")
    return [str(caught.value), whole.step]


@pytest.mark.parametrize("together", [False, True])
def test_a_store_that_goes_away_ends_the_run_saved_and_no_clip_is_bad(
    tmp_path, monkeypatch, together
):
    corpus = noises(tmp_path / "noise")
    if together:
        ends = in_both(away_on_the_second, tmp_path, monkeypatch)
    else:
        ends = [away_on_the_second(1, tmp_path)]
    told = "far.wav: cannot be fetched; check the network; .*run: saved after step 7, continue with"
    assert all(re.match(told, message) and step == 12 for message, step in ends)
    assert not (tmp_path / "run" / "rejected.csv").exists()
    if not together:
        train(corpus, tmp_path / "whole")
        for name in ("metrics.jsonl", "model.safetensors"):
            files = [tmp_path / run / name for run in ("run", "whole")]
            assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGINT, 130)]
)
def test_the_command_line_tells_how_to_go_on_and_its_code_names_the_signal(
    monkeypatch, capsys, number, code
):
    def stopped(config):
        raise Interrupted("runs/x: stopped; go on with --resume", number)

    monkeypatch.setattr("melpatch.commands.list.run", stopped)
    assert main(["list"]) == code
    assert capsys.readouterr().err == "melpatch list: runs/x: stopped; go on with --resume\n"
