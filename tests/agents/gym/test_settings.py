"""Defaults that depend on the kind of space, and what reaches the network and the pace of it."""

import math
import subprocess
import sys

import pytest
import torch

from hsa2c.agents.gym.application import APPLICATION
from hsa2c.agents.gym.settings import ActorCriticConfig, EnvironmentConfig, GymConfig, passes_of, rollout_of
from hsa2c.cluster.world import World
from hsa2c.config.loading import read_yaml, to_dict
from hsa2c.run import begin
from tests.processes import REPOSITORY

SHIPPED = sorted((REPOSITORY / "configs" / "gym").glob("*.yaml"))


@pytest.mark.parametrize(
    ("agent", "continuous", "passes"),
    [
        ({}, False, 4),
        ({}, True, 10),
        ({"loss": "vtrace"}, True, 1),
        ({"loss": "mine:loss"}, False, 1),
        ({"passes": 3}, True, 3),
    ],
)
def test_passes_depend_on_loss_and_actions(agent, continuous, passes):
    assert passes_of(ActorCriticConfig(**agent), continuous=continuous) == passes


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_read_by_its_name(path, tmp_path):
    pytest.importorskip("mujoco", reason="these environments need hsa2c[gym]")
    name, given = f"gym/{path.stem}", {"output.run_dir": str(tmp_path)}
    config = begin.prepare(APPLICATION, given, name, World(0, 1, started_by_mpi=False)).config
    for section, fields in read_yaml(path).items():
        for field, value in fields.items():
            assert to_dict(config)[section][field] == value, f"{section}.{field}"


@pytest.mark.parametrize(("env", "passes"), [("CartPole-v1", 4), ("Pendulum-v1", 10)])
def test_an_update_is_worth_the_steps_that_it_is_the_only_one_of(env, passes):
    assert APPLICATION.work_per_update(GymConfig(env=EnvironmentConfig(id=env))) == pytest.approx(64 / passes)


def test_the_first_deviation_is_the_configured_one():
    given = GymConfig(env=EnvironmentConfig(id="Pendulum-v1"), agent=ActorCriticConfig(log_std=math.log(0.2)))
    policy = APPLICATION.policy(given, APPLICATION.initial(given))
    assert policy.parts.agent.log_std.exp().tolist() == [pytest.approx(0.2)]


def test_the_launcher_loads_neither_torch_nor_mpi(tmp_path):
    code = f"""
import sys
from hsa2c.agents.gym.application import APPLICATION
from hsa2c.cluster.world import World
from hsa2c.run import begin, launcher
alone = World(0, 1, False)
config = begin.prepare(APPLICATION, {{"output.run_dir": {str(tmp_path)!r}}}, None, alone).config
launcher.check(APPLICATION, config, alone)
APPLICATION.title(config), APPLICATION.limits(config), APPLICATION.shown(config)
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"torch", "mpi4py", "tensorboard", "matplotlib"}}))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
    assert (run.returncode, run.stdout, run.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize(
    ("agent", "nodes", "processes", "t_max"),
    [
        ({}, 1, 28, 128),
        ({}, 4, 1, 128),
        ({}, 2, 8, 64),
        ({}, 4, 8, 32),
        ({}, 40, 28, 8),
        ({"t_max": 100}, 4, 8, 100),
        ({"recurrent": "lstm"}, 4, 8, 128),
    ],
)
def test_rollouts_are_shorter_with_more_nodes(agent, nodes, processes, t_max):
    assert rollout_of(ActorCriticConfig(**agent), nodes, processes) == t_max


def test_a_learner_has_the_rollouts_of_its_runs_nodes():
    config = APPLICATION.build_config(
        {"cluster": {"nodes": 4, "processes": 8}, "env": {"id": "Pendulum-v1", "num_envs": 2}}
    )
    problem = APPLICATION.problems(config, 0, 0)(0)
    v = torch.from_numpy(APPLICATION.initial(config))
    problem.gradient(v, lambda: False)
    assert problem.report()["agent_steps"] == 2 * 32
    problem.close()
