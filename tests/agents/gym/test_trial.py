"""Code of the user's that ends its process, tried in another one."""

import os
import subprocess
import sys

import pytest

from tests.processes import PATIENCE_S, REPOSITORY

TRY = """
import os, sys
from hsa2c.agents.gym.trial import survive
from hsa2c.errors import ConfigError
here = os.getpid()
def trial():
    assert os.getpid() != here
    print("said", flush=True)
    {act}
try:
    survive(trial, "env", {limit_s})
except ConfigError as error:
    print("refused:", error)
else:
    print("goes on")
"""


@pytest.mark.parametrize(
    ("act", "said"),
    [
        ("os._exit(3)", "refused: env ends its process with exit code 3"),
        ("os._exit(0)", "refused: env ends its process with exit code 0"),
        ("os.abort()", "refused: env ends its process by SIGABRT"),
        ("raise ValueError", "goes on"),
        ("sys.exit(3)", "goes on"),
        ("pass", "goes on"),
        ("__import__('signal').pause()", "goes on"),
    ],
)
def test_what_ends_its_process_is_refused_and_silent(act, said):
    done = subprocess.run(
        [sys.executable, "-c", TRY.format(act=act, limit_s=0.5 if "pause" in act else None)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (f"{said}\n", "", 0)


def test_nothing_is_tried_beside_other_threads():
    beside = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    done = subprocess.run(
        [sys.executable, "-c", f"{beside}\n{TRY.format(act='os._exit(3)', limit_s=None)}"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("goes on\n", 0)
