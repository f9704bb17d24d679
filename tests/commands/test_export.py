"""`hsa2c export`, in this process."""

import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv

import hsa2c
from hsa2c.commands.export import main
from tests.api import problems
from tests.api.problems import minimise

GYM = "hsa2c.agents.gym.application"


def test_an_application_without_a_format_says_so(tmp_path, capsys):
    run = minimise(tmp_path, problems.MODEL)
    assert main([str(run.dir), str(tmp_path / "p.pt")], app="hsa2c.minimising.application") == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("application minimise: has no format to export to")
    assert not (tmp_path / "p.pt").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.load. is:DeprecationWarning")
def test_a_trained_policy_becomes_a_file(tmp_path, capsys):
    run = hsa2c.train(env="CartPole-v1", agent_steps=500, p=1, run_dir=tmp_path, name="pole", progress=False)
    file = tmp_path / "p.pt"
    assert main([str(run.dir), str(file)], app=GYM) == 0
    assert capsys.readouterr().out == f"{file}\n"
    observation, _ = CartPoleEnv().reset(seed=1)
    for exported in (file, run.export(tmp_path / "again.pt")):
        action, _ = torch.jit.load(exported)(torch.from_numpy(observation)[None])
        assert int(action) == run.load(greedy=True)(observation)
