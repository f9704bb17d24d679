"""Processes that tell, fail, or say nothing."""

import os
import sys
import time

import pytest

from hsa2c.doctor.probe_output import tell
from hsa2c.doctor.probe_reader import listen
from hsa2c.errors import HSA2CError
from tests.processes import REPOSITORY, wait_until
from tests.test_faults import gone

TELLING = "from hsa2c.doctor.probe_output import sign, tell\n"


def heard(code, *, silence_s=10.0, enough=lambda heard: False):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", TELLING + code]
    return listen(command, environment, silence_s=silence_s, enough=enough, leave_s=0.5)


def test_what_is_told_is_taken_apart_from_other_output():
    found = heard("print('hello'); sign(3, 'started'); tell({'a': [1, None]}); print('hsa2c-doctor {', flush=True)")
    assert (found.told, found.stages, found.in_time) == ([{"a": [1, None]}], {3: "started"}, True)
    assert found.others == ["hello", "hsa2c-doctor {"]


def test_complaint_is_the_errors_last_line():
    assert heard("sign(0, 'started'); import nothing_of_the_kind").complaint == (
        "ModuleNotFoundError: No module named 'nothing_of_the_kind'"
    )


def test_silence_ends_them_with_their_children(tmp_path):
    """The process ignores TERM, and what it prints is no sign of life."""
    file = tmp_path / "pids"
    code = f"""
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "1000"])
pathlib.Path({str(file)!r}).write_text(f"{{os.getpid()}} {{child.pid}}")
sign(1, "started")
while True:
    print("still here", file=sys.stderr, flush=True)
    time.sleep(0.1)
"""
    began_at = time.monotonic()
    found = heard(code, silence_s=2.0)
    assert not found.in_time and found.stages == {1: "started"}
    assert time.monotonic() - began_at < 20
    wait_until(lambda: all(gone(pid) for pid in map(int, file.read_text().split())), "the end of both", limit_s=10)


def test_nobody_waits_for_them_once_all_was_heard():
    began_at = time.monotonic()
    assert heard("tell({}); import time; time.sleep(1000)", enough=lambda heard: bool(heard.told)).in_time
    assert time.monotonic() - began_at < 20


def test_what_pipes_would_not_keep_together_is_refused():
    with pytest.raises(HSA2CError, match=r"^5\d\d\d bytes to tell, more than 4096"):
        tell({"text": "x" * 5000})
