from __future__ import annotations

import pytest
import yaml
from pydantic import ValidationError

from agents.settings import AgentConfig, network_identity
from hsa2c.config import to_yaml


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


def test_minibatches_that_divide_are_taken_and_none_makes_updates_of_a_time_step():
    assert AgentConfig(num_envs=3, t_max=15, minibatches=5).updates_per_pass == 5
    assert AgentConfig(num_envs=3, t_max=15).updates_per_pass == 15


def test_identity_tells_networks_apart():
    assert network_identity(6, "raw") == "mnih2013-4x84x84-6"
    assert network_identity(18, "standardised") == "mnih2013-standardised-4x84x84-18"
