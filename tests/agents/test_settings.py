from __future__ import annotations

import pytest
import yaml
from pydantic import ValidationError

from hsa2c.agents.settings import AgentConfig, network_identity
from hsa2c.config.loading import to_yaml


def test_survives_yaml():
    config = AgentConfig(policy_clip=None, max_gradient_norm=None, precision="bfloat16", discount=1)
    assert AgentConfig(**yaml.safe_load(to_yaml(config))) == config


def test_frozen():
    with pytest.raises(AttributeError):
        AgentConfig().discount = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"minibatches": 5}, "minibatches", "Value error, a divisor of t_max = 32"),
        ({"minibatches": 4, "t_max": 5}, "minibatches", "Value error, a divisor of t_max = 5"),
        ({"t_max": 0}, "t_max", "Input should be greater than or equal to 1"),
        ({"t_max": 2.0}, "t_max", "Input should be a valid integer"),
        ({"discount": 1.5}, "discount", "Input should be less than or equal to 1"),
        ({"policy_clip": 0.0}, "policy_clip", "Input should be greater than 0"),
        ({"returns": "mc"}, "returns", "Input should be 'gae' or 'n-step'"),
        ({"precision": "float64"}, "precision", "Input should be 'auto', 'float32' or 'bfloat16'"),
        ({"discont": 0.9}, "discont", "Unexpected keyword argument"),
    ],
)
def test_bad_value_is_refused_by_its_name(values, field, message):
    with pytest.raises(ValidationError) as error:
        AgentConfig(**values)
    assert [(e["loc"], e["msg"]) for e in error.value.errors()] == [((field,), message)]


@pytest.mark.parametrize(("processes", "num_envs"), [(1, 64), (2, 64), (3, 32), (4, 32), (5, 16), (8, 16), (1024, 16)])
def test_games_of_a_node_are_shared_out_to_its_processes(processes, num_envs):
    assert AgentConfig().environments(processes, processes, cores=processes) == num_envs
    assert AgentConfig(num_envs=7).environments(processes, processes, cores=1) == 7


@pytest.mark.parametrize(
    ("nodes", "processes", "cores", "num_envs"),
    [
        *((1, 1, 1, 64), (1, 2, 1, 64), (2, 1, 1, 64), (2, 1, 2, 64)),  # small runs are as they were
        *((4, 1, 2, 64), (8, 1, 2, 32), (10, 1, 2, 16), (40, 1, 2, 4), (40, 1, 40, 64), (1000, 1, 2, 4)),
        *((1, 8, 1, 16), (1, 28, 2, 8), (4, 28, 2, 4), (4, 28, 112, 16)),
    ],
)
def test_games_of_a_host_are_shared_out_to_the_processes_of_all_its_nodes(nodes, processes, cores, num_envs):
    config = AgentConfig()
    assert config.environments(processes, nodes * processes, cores) == num_envs
    assert num_envs * config.t_max / config.updates_per_pass(num_envs) == 64


@pytest.mark.parametrize(
    ("t_max", "num_envs", "parts"),
    [(32, 64, 32), (32, 32, 16), (32, 16, 8), (32, 100, 32), (32, 1, 1), (5, 6, 1), (5, 63, 1), (15, 30, 5), (1, 1, 1)],
)
def test_updates_have_64_samples_at_least_where_the_rollout_has(t_max, num_envs, parts):
    assert AgentConfig(t_max=t_max).updates_per_pass(num_envs) == parts
    assert parts == 1 or num_envs * t_max / parts >= 64


def test_minibatches_that_divide_are_taken():
    assert AgentConfig(t_max=15, minibatches=5).updates_per_pass(3) == 5


def test_identity_tells_networks_apart():
    assert network_identity(6, "raw") == "mnih2013-4x84x84-6"
    assert network_identity(18, "standardised") == "mnih2013-standardised-4x84x84-18"
