"""The trained agents in checkpoints/: they load, are what their folder says, and play."""

import json
from pathlib import Path

import pytest

from hsa2c.agents.application import APPLICATION
from hsa2c.agents.commands import evaluate
from hsa2c.run import checkpoint as checkpoints

FOLDER = Path(__file__).resolve().parents[1] / "checkpoints"
AGENTS = {
    "pong": ("Pong", 10.0),
    "spaceinvaders": ("SpaceInvaders", 200.0),
}  # a score that chance never gives and that these reach in any game

pytestmark = pytest.mark.timeout(300)


def test_every_agent_is_listed_here():
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == AGENTS.keys()


@pytest.mark.parametrize("name", AGENTS)
def test_is_of_its_game_and_small(name):
    checkpoint, path, skipped = checkpoints.read(FOLDER / name, prefer="best")
    assert skipped == []
    config = APPLICATION.build_config(checkpoint.config)
    assert config.game == AGENTS[name][0]
    assert checkpoint.identity == APPLICATION.identity(config)
    assert path.stat().st_size < 2.8e6
    assert not Path(config.output.run_dir).is_absolute()


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_plays(name, capsys):
    assert evaluate.main([str(FOLDER / name), "--games", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["min"] >= AGENTS[name][1]
