"""What the launcher learns of a master, from a real process that is one."""

import os
import signal
import subprocess
import sys

from hsa2c.cluster.world import VERDICT
from hsa2c.run import exit_record as verdict
from tests.processes import REPOSITORY, wait_until

MASTER = """
import sys, time
from hsa2c.run import exit_record as verdict
verdict.hold()
print("held", flush=True)
sys.stdin.readline()
verdict.give(3)
print("given", flush=True)
time.sleep(60)
"""


def test_master_lives_speaks_and_is_gone(tmp_path):
    path = tmp_path / "verdict"
    assert (verdict.given(path), verdict.master_is_gone(path)) == (None, False), "it has not begun"
    environment = os.environ | {VERDICT: str(path), "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", MASTER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as master:
        assert master.stdout.readline() == "held\n"
        assert (verdict.given(path), verdict.master_is_gone(path)) == (None, False)
        master.stdin.write("\n")
        master.stdin.flush()
        assert master.stdout.readline() == "given\n"
        assert (verdict.given(path), verdict.master_is_gone(path)) == (3, False)
        master.send_signal(signal.SIGKILL)
        wait_until(lambda: verdict.master_is_gone(path), "the end of the lock")
    assert verdict.given(path) == 3


def test_without_a_launcher_nothing_is_held_or_given(tmp_path, monkeypatch):
    monkeypatch.delenv(VERDICT, raising=False)
    monkeypatch.chdir(tmp_path)
    verdict.hold()
    verdict.give(0)
    assert list(tmp_path.iterdir()) == []
