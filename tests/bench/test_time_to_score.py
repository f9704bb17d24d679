"""The benchmark against real, very short runs: games that a frame cap ends after 100 agent steps."""

import json

import pytest
import yaml

from bench.time_to_score import main

pytestmark = pytest.mark.timeout(300)

SHORT = {
    "agent": {"num_envs": 8, "t_max": 5, "passes": 1, "minibatches": 1, "precision": "float32"},
    "env": {"max_frames": 400, "noop_max": 5},
    "output": {"log_every_s": 0.5, "checkpoint_every_s": 5.0},
}


@pytest.fixture
def measure(tmp_path, capfd):
    def measure(*arguments):
        config = tmp_path / "short.yaml"
        config.write_text(yaml.safe_dump(SHORT))
        fixed = ["--games", "2", "--run-dir", str(tmp_path), "--json", f"--train=--config={config}", "--train=--p=1"]
        code = main([*fixed, *arguments])
        return code, json.loads(capfd.readouterr().out)

    return measure


def test_reaches_a_score_that_anybody_reaches(measure):
    code, result = measure("--score", "-21", "--minutes", "2")
    (run,) = result["runs"]
    assert (code, run["reached"], run["seed"]) == (0, True, 1)
    assert run["agent_steps"] >= 100 * 95  # 100 games of up to 400 frames, no-ops among them
    assert 3 < run["seconds"] < 120
    assert result["seconds"] == run["seconds"]
    assert -21 <= run["evaluated"]["min"] <= run["evaluated"]["mean"] <= run["evaluated"]["max"] <= 21
    assert run["evaluated"]["checkpoint"].endswith(".safetensors")
    assert result["machine"]["cores"] >= 1


def test_says_so_if_the_score_is_not_reached(measure):
    code, result = measure("--score", "21", "--minutes", "0.05", "--seeds", "3", "4")
    assert code == 1
    assert [run["seed"] for run in result["runs"]] == [3, 4]
    assert [run["reached"] for run in result["runs"]] == [False, False]
    assert result["seconds"] is None
