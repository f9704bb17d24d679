"""What a signal does to a command: while it loads, while it works, where it is ignored."""

import ctypes
import os
import signal
import subprocess
import sys

import pytest

from hsa2c import signals
from hsa2c.commands.options import guarded
from tests.processes import REPOSITORY, environment, usual_signals

PATIENCE_S = 30.0
SLOW = """
import time
print("importing", flush=True)
time.sleep(60)
"""
DOORS = {
    "train.py": ["train.py"],
    "evaluate.py": ["evaluate.py", "nothing"],
    "examples.lda": ["-m", "examples.lda"],
    "examples.lda show": ["-m", "examples.lda", "show", "nothing"],
    "hsa2c plan": ["-m", "hsa2c", "plan"],
    "hsa2c doctor": ["-m", "hsa2c", "doctor"],
    "hsa2c report": ["-m", "hsa2c", "report", "nothing"],
}
WORK = """
import signal, sys
from hsa2c import signals
from hsa2c.commands.options import guarded

def act():
    try:
        print("working", flush=True)
        signal.pause()
    finally:
        print("cleaned up", flush=True)

sys.exit(guarded("prog", act))
"""


@pytest.fixture
def at_defaults():
    """The signals' handlers as a process has them that ignores none."""
    before = {name: signal.getsignal(name) for name in signals.STOPPING}
    for name in signals.STOPPING:
        signal.signal(name, signal.default_int_handler if name == signal.SIGINT else signal.SIG_DFL)
    yield
    signals.restore(before)


def raising(signum, error=None):
    def act():
        try:
            signal.raise_signal(signum)
        except KeyboardInterrupt:
            if error is None:
                raise
            raise error from None  # as a half-loaded library may

    return act


@pytest.mark.usefixtures("at_defaults")
@pytest.mark.parametrize("signum", signals.STOPPING)
@pytest.mark.parametrize("error", [None, ImportError("half loaded")])
def test_signal_becomes_a_line_and_128_plus_its_number(capsys, signum, error):
    assert guarded("prog", raising(signum, error)) == 128 + signum
    assert capsys.readouterr() == ("", "prog: interrupted\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.usefixtures("at_defaults")
def test_ignored_signal_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    heard = []
    before = signals.catch(lambda signum, _: heard.append(signum))
    assert set(before) == set(signals.STOPPING) - {signal.SIGHUP}
    signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGUSR1)
    assert heard == [signal.SIGUSR1]
    signals.restore(before)
    assert guarded("prog", lambda: signal.raise_signal(signal.SIGHUP) or 0) == 0
    signals.to_default()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL


@pytest.mark.usefixtures("at_defaults")
def test_what_a_library_has_installed_gives_way():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    libc = ctypes.CDLL(None)
    libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
    libc.signal(signal.SIGHUP, None)  # the default, which would end this process
    signals.catch_again()
    signal.raise_signal(signal.SIGHUP)
    assert libc.signal(signal.SIGHUP, 1) == 1


def started(*command, **variables):
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=usual_signals,
    )


@pytest.mark.parametrize(
    ("prog", "signum"),
    [(prog, signal.SIGINT) for prog in DOORS] + [("train.py", name) for name in signals.STOPPING[1:]],
)
def test_signal_during_the_imports_is_one_line(tmp_path, prog, signum):
    (tmp_path / "argparse.py").write_text(SLOW)  # which every command imports
    with started(*DOORS[prog], PYTHONPATH=os.pathsep.join([str(tmp_path), str(REPOSITORY)])) as command:
        try:
            assert command.stdout.readline() == "importing\n"
            command.send_signal(signum)
            assert command.communicate(timeout=PATIENCE_S) == ("", f"{prog}: interrupted\n")
        finally:
            command.kill()
    assert command.returncode == 128 + signum


@pytest.mark.parametrize("signum", signals.STOPPING)
def test_signal_at_work_passes_through_what_cleans_up(signum):
    with started("-c", WORK) as command:
        try:
            assert command.stdout.readline() == "working\n"
            command.send_signal(signum)
            assert command.communicate(timeout=PATIENCE_S) == ("cleaned up\n", "prog: interrupted\n")
        finally:
            command.kill()
    assert command.returncode == 128 + signum


def test_second_signal_ends_what_cleans_up_for_long():
    long = WORK.replace('print("cleaned up", flush=True)', 'print("cleaning", flush=True); signal.pause()')
    with started("-c", long) as command:
        try:
            assert command.stdout.readline() == "working\n"
            command.send_signal(signal.SIGTERM)
            assert command.stdout.readline() == "cleaning\n"
            for _ in range(int(PATIENCE_S * 10)):
                command.send_signal(signal.SIGINT)
                try:
                    command.wait(0.1)
                    break
                except subprocess.TimeoutExpired:
                    continue
        finally:
            command.kill()
    assert command.returncode == 128 + signal.SIGTERM
