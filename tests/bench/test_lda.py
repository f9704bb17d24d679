"""The LDA benchmark's quick look."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_quick_look_at_the_local_step() -> None:
    command = [sys.executable, "-m", "bench.lda", "--quick", "--parts", "local", "--json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["quick"]
    assert result["local_step"]["docs_per_cpu_s"] > result["local_step"]["unpruned_docs_per_cpu_s"] > 0
    assert result["local_step"]["statistics_error"] < 1e-6
