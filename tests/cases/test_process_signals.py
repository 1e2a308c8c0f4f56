"""Signals: one line, a status of their own, a checkpoint where training is under way, and the same bytes afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fae.core.interrupts import Interrupted, is_interrupted, put_off, raise_interrupt, receive
from fae.run.folder import RunFolder
from fae.run.recipe import load_recipe
from sent_signals import send_one_by_one

from commands import Done, contents, fae, strict_json, succeed, unfinished, write_log, write_recipe

LINE = "fae: interrupted; the same command continues from here"
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """One thread, and the handlers as before: a command leaves the system's behind once a signal has come."""
    handlers, threads = {number: signal.getsignal(number) for number in STATUS}, torch.get_num_threads()
    torch.set_num_threads(1)
    for number in STATUS:  # a test run in the background ignores some of them
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def signal_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int, number: int = signal.SIGTERM) -> list[int]:
    """Send this process a signal in the n-th call of a function of fae, named with its module; counts the calls."""
    module, _, attribute = name.rpartition(".")
    original, calls = getattr(sys.modules[module], attribute), [0]

    def counting(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            signal.raise_signal(number)
        return original(*arguments, **named)

    monkeypatch.setattr(name, counting)
    return calls


def interrupted(done: Done, number: int = signal.SIGTERM) -> None:
    """The command ended of that signal, with one line."""
    assert (done.status, done.stdout) == (STATUS[signal.Signals(number)], "")
    assert done.stderr.splitlines()[-1] == LINE
    assert done.stderr.count("fae: ") == 1


def outcome(run: Path) -> tuple[dict[str, bytes], Any, Any]:
    """Everything but times: files, test metrics, metrics of the validations."""
    files = {name: data for name, data in contents(run).items() if "progress" not in name and "best/" not in name}
    record = strict_json((run / "run.json").read_text())
    files.pop("checkpoint/manifest.json")  # it has the checksum of the progress, which has times
    return files, record["test"], record["train"]["validation_curve"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """By order of batches: the recipe, and what comes of it."""
    found = {}
    torch.set_num_threads(1)
    for order, train in (("interleaved", {"early_stopping": 3}), ("adaptive", {"adaptive_rate": 50})):
        folder = tmp_path_factory.mktemp(order)
        write_log(folder)
        recipe = write_recipe(folder, train={"epochs": 3, "learning_rate": 0.05, "order": order, **train})
        succeed("run", recipe, "--out", folder / "run")
        found[order] = recipe, outcome(folder / "run")
    return found


@pytest.mark.parametrize("order", ["interleaved", "adaptive"])
@pytest.mark.parametrize(
    ("place", "call"),
    [
        ("is_interrupted", 1),
        ("is_interrupted", 7),
        ("is_interrupted", 13),  # the last batch of the first epoch is near
        ("is_interrupted", 14),
        ("evaluate", 1),
        ("evaluate", 2),
        ("evaluate", 3),
        ("save_checkpoint", 2),
    ],
)
def test_a_signal_in_training_saves_and_ends_as_undisturbed(
    order: str, place: str, call: int, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, expected = undisturbed[order]
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        module = "kept_states" if place == "save_checkpoint" else "trainer"
        calls = signal_at(patch, f"fae.training.{module}.{place}", call)
        interrupted(fae("run", recipe, "--out", run))
        assert calls[0] >= call
    assert not unfinished(run)
    progress = strict_json((run / "checkpoint" / "progress.json").read_text())
    assert not progress["complete"]
    if place == "is_interrupted":
        assert progress["batches"] == call, "saved behind the batch in which it came"
    done = succeed("run", recipe, "--out", run)
    assert f"train: continues after batch {progress['batches']}\n" in done.stderr
    assert outcome(run) == expected


@pytest.mark.parametrize("number", STATUS)
@pytest.mark.parametrize(
    "place",
    [
        "fae.ingest.shards.sharded_reading.task",
        "fae.ingest.numbering.second_pass.task",
        "fae.profile.profile.task",
        "fae.calibrate.calibrate.task",
        "fae.pack.pack.task",
        "fae.run.folder.write_record",
    ],
)
def test_a_signal_in_another_stage_loses_nothing(
    place: str, number: int, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, expected = undisturbed["interleaved"]
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        signal_at(patch, place, 1, number)
        interrupted(fae("run", recipe, "--out", run), number)
    if number == signal.SIGTERM:
        succeed("run", recipe, "--out", run)
        assert not unfinished(run)
        assert outcome(run) == expected


def test_the_library_handles_no_signal(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """In a program of one's own Ctrl-C is Python's."""
    before = {number: signal.getsignal(number) for number in STATUS}
    RunFolder(load_recipe(undisturbed["interleaved"][0]), tmp_path / "run").stage("ingest")
    assert {number: signal.getsignal(number) for number in STATUS} == before
    assert fae("--version").status == 0
    assert {number: signal.getsignal(number) for number in STATUS} == before


def test_what_is_ignored_stays_ignored(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    succeed("ingest", undisturbed["interleaved"][0], "--out", tmp_path / "run")
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_put_off() -> None:
    with pytest.raises(Interrupted):
        receive(15)
    with pytest.raises(Interrupted) as found:
        _put_off_to_the_end()
    assert found.value.number == 15
    with put_off():
        receive(2)
        with pytest.raises(Interrupted):
            raise_interrupt()
    assert not is_interrupted()


def _put_off_to_the_end() -> None:
    with put_off():
        receive(15)
        assert is_interrupted()


_LONG_CALL = """
import ctypes, sys
from fae.cli import main as command
from fae.cli.process import signals
import fae.run.folder
signals._PATIENCE_SECONDS = float(sys.argv.pop(1))

def work(*_, **__):
    library, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    print("ready", file=sys.stderr, flush=True)
    for _ in range(2):  # the second time it waits for ever, and no signal ends the call
        library.pthread_mutex_lock(lock)

fae.run.folder.RunFolder.run = work
sys.exit(command.main(sys.argv[1:]))
"""


def await_sleep(pid: int) -> None:
    """Wait until all threads of a process sleep and use no time, as where the main thread is in a call that never ends.

    While another one works, as those that load libraries ahead do, the main thread may sleep before the call, too.
    """
    before: list[tuple[str, ...]] = []
    quiet = 0
    while quiet < 5:
        time.sleep(0.05)
        try:
            stats = [path.read_text().rpartition(")")[2].split() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
        except (FileNotFoundError, ProcessLookupError):  # of a thread that has just ended
            stats = []
        now = [(fields[0], fields[11], fields[12]) for fields in stats]  # state, processor time, that of the system
        quiet = quiet + 1 if now and now == before and all(state == "S" for state, *_ in now) else 0
        before = now


@pytest.mark.parametrize(
    ("patience", "signals"), [("0.5", 1), ("60", 2)], ids=["one signal and some patience", "a second signal"]
)
def test_a_call_that_does_not_return(patience: str, signals: int, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """Python hears of a signal when the call returns; the line comes without that."""
    command = [
        sys.executable,
        "-c",
        _LONG_CALL,
        patience,
        "run",
        undisturbed["interleaved"][0],
        "--out",
        tmp_path / "run",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    await_sleep(process.pid)
    send_one_by_one(process.pid, signal.SIGTERM, signals)
    started = time.monotonic()
    said = process.stderr.read()
    assert process.wait(60) == 143
    assert time.monotonic() - started < 10
    assert said.splitlines() == [LINE]
