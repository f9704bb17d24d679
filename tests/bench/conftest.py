import pytest
import yaml

SHORT = {
    "agent": {"num_envs": 8, "t_max": 5, "passes": 1, "minibatches": 1, "precision": "float32"},
    "env": {"max_frames": 400, "noop_max": 5},
    "output": {"log_every_s": 0.5, "checkpoint_every_s": 5.0},
}


@pytest.fixture
def short(tmp_path):
    """Options for a benchmark: games that a frame cap ends after 100 agent steps, and runs kept in `tmp_path`."""
    config = tmp_path / "short.yaml"
    config.write_text(yaml.safe_dump(SHORT))
    return ["--run-dir", str(tmp_path / "runs"), "--json", f"--train=--config={config}"]
