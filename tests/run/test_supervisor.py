"""The launcher's eye on its job, with an onlooker that may end it."""

import signal
import subprocess
import threading

import pytest

from hsa2c.observe.console import Console
from hsa2c.run.supervisor import Supervisor


class Job:
    """Ends so many looks after it was asked to, or by itself after `looks`."""

    def __init__(self, looks=100, code=0):
        self.pid, self.looks, self.code, self.sent = -1, looks, code, []

    def wait(self, timeout=None):
        self.looks -= 1
        if self.looks <= 0 or (self.sent and self.looks < 100):
            return self.code
        raise subprocess.TimeoutExpired("job", timeout)

    def send_signal(self, signum):
        self.sent.append(signum)
        self.looks = 102

    def terminate(self):
        self.send_signal(signal.SIGTERM)


class Onlooker:
    """Says that it is enough at some look, and from then on."""

    def __init__(self, at=None):
        self.looks, self.at = 0, at

    def update(self):
        self.looks += 1
        return "enough" if self.at is not None and self.looks >= self.at else None


@pytest.fixture
def monitor(tmp_path, capsys):
    def monitor(onlooker, job):
        with Console(tmp_path, "A run", []) as console:
            code = Supervisor(onlooker).monitor(job, console, tmp_path / "word", here=True)
        return code, capsys.readouterr().err

    return monitor


def test_an_onlooker_looks_until_the_job_ends(monitor):
    onlooker, job = Onlooker(), Job(looks=5, code=3)
    assert monitor(onlooker, job)[0] == 3
    assert onlooker.looks == 4
    assert job.sent == []


def test_an_onlooker_ends_a_job_in_good_order_and_asks_once(monitor):
    onlooker, job = Onlooker(at=3), Job()
    code, shown = monitor(onlooker, job)
    assert (code, job.sent) == (0, [signal.SIGUSR1])
    assert shown.count("enough: writing a checkpoint and stopping") == 1


def test_nobody_needs_to_look(monitor):
    assert monitor(None, Job(looks=2))[0] == 0


def test_signals_are_caught_in_the_main_thread_alone():
    supervisor, before = Supervisor(), signal.getsignal(signal.SIGTERM)

    def look(seen):
        with supervisor.catching_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen = []
    thread = threading.Thread(target=look, args=(seen,))
    thread.start()
    thread.join()
    look(seen)
    assert seen[0] == before != seen[1]
    assert signal.getsignal(signal.SIGTERM) == before
