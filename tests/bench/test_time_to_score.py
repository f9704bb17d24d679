"""The benchmark against real, very short runs."""

import json
import signal
import subprocess
import sys
import time

import pytest

from bench.testbed.runs import events
from bench.time_to_score import main

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def measure(short, capfd):
    def measure(*arguments):
        code = main(["--games", "2", "--train=--p=1", *short, *arguments])
        return code, json.loads(capfd.readouterr().out)

    return measure


@pytest.mark.slow
def test_reaches_a_score_that_anybody_reaches(measure):
    code, result = measure("--score", "-21", "--minutes", "2", "--train=--set=env.max_frames=100")
    (run,) = result["runs"]
    assert (code, run["reached"], run["seed"]) == (0, True, 1)
    assert run["agent_steps"] >= 100 * 20  # 100 games of up to 100 frames, no-ops among them
    assert 3 < run["seconds"] < 120
    assert result["seconds"] == run["seconds"]
    assert -21 <= run["evaluated"]["min"] <= run["evaluated"]["mean"] <= run["evaluated"]["max"] <= 21
    assert run["evaluated"]["checkpoint"].endswith(".safetensors")
    assert result["machine"]["cores"] >= 1


@pytest.mark.slow
def test_a_run_ends_with_its_benchmark(short, tmp_path):
    options = ["--score", "21", "--minutes", "2", "--train=--p=1", *short]
    benchmark = subprocess.Popen([sys.executable, "-m", "bench.time_to_score", *options], stderr=subprocess.PIPE)
    try:
        while not (logs := [log for log in tmp_path.glob("runs/*/metrics.jsonl") if log.stat().st_size]):
            assert benchmark.poll() is None
            time.sleep(0.1)
        benchmark.terminate()
        benchmark.communicate(timeout=60)
    finally:
        benchmark.kill()
    assert benchmark.returncode == 128 + signal.SIGTERM
    (ended,) = events(logs[0].parent, "stop")  # in good order, and before the benchmark itself
    assert ended["message"] == "asked to stop"


@pytest.mark.slow
def test_says_so_if_the_score_is_not_reached(measure):
    code, result = measure("--score", "1e6", "--minutes", "0.05", "--seeds", "3")
    assert code == 1
    assert [(run["seed"], run["reached"]) for run in result["runs"]] == [(3, False)]
    assert result["seconds"] is None
