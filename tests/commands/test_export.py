"""`hsa2c export`, in this process."""

import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv

import hsa2c
from hsa2c.commands.export import main
from tests.processes import REPOSITORY

GYM = "hsa2c.agents.gym.application"


def test_an_application_without_a_format_says_so(tmp_path, capsys):
    assert main([str(REPOSITORY / "checkpoints" / "pong"), str(tmp_path / "p.pt")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("application hsa2c: has no format to export to")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.load. is:DeprecationWarning")
def test_a_trained_policy_becomes_a_file(tmp_path, capsys):
    run = hsa2c.train(env="CartPole-v1", agent_steps=500, p=1, run_dir=tmp_path, name="pole", progress=False)
    file = tmp_path / "p.pt"
    assert main([str(run.dir), str(file)], app=GYM) == 0
    assert capsys.readouterr().out == f"{file}\n"
    observation, _ = CartPoleEnv().reset(seed=1)
    action, _ = torch.jit.load(file)(torch.from_numpy(observation)[None])
    assert int(action) == run.load(greedy=True)(observation)
