"""What a signal does to a command: while it loads, while it works, where it is ignored."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from hsa2c import signals
from hsa2c.commands import entry
from hsa2c.commands.options import guarded
from tests.processes import REPOSITORY, environment, usual_signals, wait_until

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


def test_another_thread_catches_nothing():
    """Python would refuse it."""
    found = []

    def act():
        found.append(signals.catch(lambda *_: None))
        found.append(signals.handlers())
        signals.restore(found[0])
        signals.to_default()
        with signals.raising() as look:
            look()

    before = signals.handlers()
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    assert found == [{}, {}]
    assert signals.handlers() == before
    assert set(before) == set(signals.STOPPING)


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


#: A command whose native code holds Python's lock for ever, and looks for no signal.
DEAF = """
import collections, itertools, sys
from hsa2c.commands.options import guarded

def act():
    print("working", flush=True)
    collections.deque(itertools.repeat(0), maxlen=0)

def main(arguments):
    return guarded("prog", {act})
"""
ENTER = "import sys; from hsa2c.commands import entry; entry.ATTENDED = ('own',); sys.exit(entry.enter('prog', 'own'))"


def attended(folder, act):
    (folder / "own.py").write_text(DEAF.format(act=act))
    return started("-c", ENTER, PYTHONPATH=os.pathsep.join([str(folder), str(REPOSITORY)]))


def test_evaluate_is_attended():
    assert all(f'"{module}"' in (REPOSITORY / "evaluate.py").read_text() for module in entry.ATTENDED)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_an_attended_command_that_does_not_hear(tmp_path, signum):
    with attended(tmp_path, "act") as command:
        try:
            assert command.stdout.readline() == "working\n"
            [child] = psutil.Process(command.pid).children()
            command.send_signal(signum)
            began_at = time.monotonic()
            assert command.communicate(timeout=PATIENCE_S) == ("", "prog: interrupted\n")
            assert time.monotonic() - began_at < 3.0
            assert not psutil.pid_exists(child.pid)
        finally:
            command.kill()
    assert command.returncode == 128 + signum


@pytest.mark.parametrize(
    ("act", "code"), [("lambda: 2", 2), ("lambda: __import__('os').kill(__import__('os').getpid(), 9)", -9)]
)
def test_attended_command_ends_as_what_it_attends(tmp_path, act, code):
    with attended(tmp_path, act) as command:
        assert command.communicate(timeout=PATIENCE_S) == ("", "")
    assert command.returncode == code


@pytest.mark.parametrize(
    ("act", "how"),
    [("lambda: __import__('os')._exit(3)", "with exit code 3"), ("__import__('os').abort", "by SIGABRT")],
)
def test_attended_command_whose_process_is_ended_says_so(tmp_path, act, how):
    with attended(tmp_path, act) as command:
        said = f"prog: its process was ended {how}, by an environment or a library of its\n"
        assert command.communicate(timeout=PATIENCE_S) == ("", said)
    assert command.returncode == 1


def test_attended_command_that_hears_says_its_own_line(tmp_path):
    with attended(tmp_path, "lambda: print('working', flush=True) or __import__('signal').pause()") as command:
        try:
            assert command.stdout.readline() == "working\n"
            command.send_signal(signal.SIGTERM)
            assert command.communicate(timeout=PATIENCE_S) == ("", "prog: interrupted\n")
        finally:
            command.kill()
    assert command.returncode == 128 + signal.SIGTERM


def test_nothing_outlives_an_attended_command_that_is_killed(tmp_path):
    with attended(tmp_path, "act") as command:
        assert command.stdout.readline() == "working\n"
        [child] = psutil.Process(command.pid).children()
        command.kill()
        command.wait(PATIENCE_S)
    ended = lambda: not psutil.pid_exists(child.pid) or child.status() == psutil.STATUS_ZOMBIE
    wait_until(ended, "the end of what it attends", PATIENCE_S)


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
