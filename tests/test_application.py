"""What every application is held to, and how one is found."""

import subprocess
import sys

import pytest

from tests.processes import REPOSITORY

PATIENCE_S = 60


@pytest.mark.parametrize("module", ["agents.application", "examples.lda.application"])
def test_an_application_loads_no_console(module):
    code = f"import sys, {module}; print(sorted({{'rich', 'torch', 'mpi4py', 'matplotlib'}} & set(sys.modules)))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout == "[]\n"
