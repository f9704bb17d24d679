"""What the launcher learns of a master, from a real process that is one."""

import os
import signal
import subprocess
import sys

import pytest

from hsa2c.cluster.world import EXIT_RECORD
from hsa2c.errors import EXIT_FAILED
from hsa2c.run import exit_record
from tests.processes import REPOSITORY, wait_until

MASTER = """
import sys, time
from hsa2c.run import exit_record
exit_record.hold()
print("held", flush=True)
sys.stdin.readline()
exit_record.give(3)
print("given", flush=True)
time.sleep(60)
"""


def test_master_lives_speaks_and_is_gone(tmp_path):
    path = tmp_path / "exit_record"
    assert (exit_record.given(path), exit_record.master_is_gone(path)) == (None, False), "it has not begun"
    environment = os.environ | {EXIT_RECORD: str(path), "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", MASTER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as master:
        assert master.stdout.readline() == "held\n"
        assert (exit_record.given(path), exit_record.master_is_gone(path)) == (None, False)
        master.stdin.write("\n")
        master.stdin.flush()
        assert master.stdout.readline() == "given\n"
        assert (exit_record.given(path), exit_record.master_is_gone(path)) == (3, False)
        master.send_signal(signal.SIGKILL)
        wait_until(lambda: exit_record.master_is_gone(path), "the end of the lock")
    assert exit_record.given(path) == 3


def test_without_a_launcher_nothing_is_held_or_given(tmp_path, monkeypatch):
    monkeypatch.delenv(EXIT_RECORD, raising=False)
    monkeypatch.chdir(tmp_path)
    exit_record.hold()
    exit_record.give(0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "code", "expected"), [("0", 137, 0), ("1", 0, 1), (None, 137, 137), ("", 0, EXIT_FAILED)]
)
def test_the_masters_word_counts_not_mpiexecs(tmp_path, said, code, expected):
    """Some rank's exit code is that of mpiexec; without the master's word it has died, whatever that code is."""
    path = tmp_path / "exit_record"
    if said is not None:
        path.write_text(said)
    assert exit_record.outcome(path, code) == expected
