"""Exported policies act as the checkpoint does, whatever the spaces, or are not written."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from hsa2c.agents.gym.acting import AgentPolicy
from hsa2c.agents.gym.export import export
from hsa2c.agents.gym.networks import Agent
from hsa2c.agents.gym.spaces import leaves
from hsa2c.agents.gym.statistics import Statistics
from hsa2c.agents.network import num_parameters
from hsa2c.errors import ConfigError

NUMBERS = Box(-3, 3, (3,))
PARTS = Dict({"at": NUMBERS, "kind": Discrete(3), "action_mask": MultiBinary(4)})
SPACES = {
    "start": (NUMBERS, Discrete(4, start=2), "clip"),
    "pixels": (Box(0, 255, (20, 20, 3), np.uint8), Box(-0.1, 0.2, (2,)), "clip"),
    "mask": (PARTS, Discrete(4), "clip"),
    "tuple": (Tuple((MultiDiscrete([2, 3]), Box(-1, 1, ()))), MultiDiscrete([2, 3], start=[1, 0]), "clip"),
    "bits": (NUMBERS, MultiBinary(3), "clip"),
    "names": (Dict({"action": NUMBERS, "a": Dict({"b": NUMBERS}), "a_b": NUMBERS}), Discrete(3), "clip"),
    "squash": (NUMBERS, Box(-1, np.array([[2, np.inf], [1, 1]], np.float32), (2, 2)), "squash"),
}
needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))), reason="onnx or onnxscript is not installed"
)


def policy(observations, actions, bounds="clip", *, greedy=True, recurrent="none", own=None, kind=AgentPolicy):
    agent = Agent(leaves(observations), actions, recurrent=recurrent, own=own)
    statistics = Statistics(leaves(observations), observations=True, rewards=True)
    width = (statistics.size - 1) // 2
    random = np.random.default_rng(1)
    weights = random.normal(0, 0.3, num_parameters(agent))
    v = np.concatenate([weights, [1.0], np.full(width, 0.5), np.full(width, 2.0)]).astype(np.float32)
    return kind(agent, v, statistics, observations, actions, bounds=bounds, greedy=greedy, seed=1)


def inputs(observation):
    """In the module's order: a mask comes last."""
    parts = observation if isinstance(observation, tuple) else [observation]
    if isinstance(observation, dict) and "a_b" in observation:
        parts = [observation["a"]["b"], observation["a_b"], observation["action"]]
    elif isinstance(observation, dict):
        parts = [observation["at"], observation["kind"], observation["action_mask"].astype(bool)]
    return [np.asarray(part)[None] for part in parts]


@pytest.mark.filterwarnings("ignore:.torch.jit.load. is:DeprecationWarning")
@pytest.mark.parametrize("name", SPACES)
def test_torchscript_acts_as_the_policy(name, tmp_path):
    observations, actions, bounds = SPACES[name]
    acting = policy(observations, actions, bounds)
    export(acting, tmp_path / "policy.pt")
    loaded = torch.jit.load(tmp_path / "policy.pt")
    observations.seed(7)
    for _ in range(5):
        observation = observations.sample()
        action, parameters = loaded(*map(torch.from_numpy, inputs(observation)))
        np.testing.assert_allclose(action[0].numpy(), acting(observation), rtol=1e-4, atol=1e-5)
        assert parameters.dtype == torch.float32
        assert action[0].numpy() in actions


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_onnx_acts_as_the_policy(name, tmp_path):
    from onnx.reference import ReferenceEvaluator

    observations, actions, bounds = SPACES[name]
    acting = policy(observations, actions, bounds)
    export(acting, tmp_path / "policy.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["policy.onnx"]
    loaded = ReferenceEvaluator(str(tmp_path / "policy.onnx"))
    observation = observations.sample()
    given = dict(zip(loaded.input_names, inputs(observation), strict=True))
    action, _ = loaded.run(None, given)
    np.testing.assert_allclose(action[0], acting(observation), rtol=1e-4, atol=1e-5)


RECURRENT = {"lstm": ["hidden", "cell"], "gru": ["hidden"]}


def carried(recurrent, loaded):
    """Actions of three environments over 20 steps, with the memory passed on; and the policy's."""
    acting = policy(PARTS, Discrete(4), recurrent=recurrent)
    memory = [np.zeros((3, 64), np.float32) for _ in RECURRENT[recurrent]]
    PARTS.seed(5)
    found, expected = [], []
    for _ in range(20):
        seen = [PARTS.sample() for _ in range(3)]
        action, _, *memory = loaded([*map(np.concatenate, zip(*map(inputs, seen), strict=True)), *memory])
        found.append(action)
        expected.append(acting.batch(seen))
    return np.array(found), np.array(expected)


@pytest.mark.filterwarnings("ignore:.torch.jit.load. is:DeprecationWarning")
@pytest.mark.parametrize("recurrent", RECURRENT)
def test_torchscript_remembers_by_inputs_and_outputs(recurrent, tmp_path):
    export(policy(PARTS, Discrete(4), recurrent=recurrent), tmp_path / "p.pt")
    loaded = torch.jit.load(tmp_path / "p.pt")
    found, expected = carried(recurrent, lambda given: [x.numpy() for x in loaded(*map(torch.from_numpy, given))])
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected)) > 1


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("recurrent", RECURRENT)
def test_onnx_remembers_by_inputs_and_outputs(recurrent, tmp_path):
    from onnx.reference import ReferenceEvaluator

    export(policy(PARTS, Discrete(4), recurrent=recurrent), tmp_path / "p.onnx")
    loaded = ReferenceEvaluator(str(tmp_path / "p.onnx"))
    names = ["at", "kind", "action_mask", *RECURRENT[recurrent]]
    assert loaded.input_names == names
    assert loaded.output_names[2:] == [f"next_{name}" for name in RECURRENT[recurrent]]
    found, expected = carried(recurrent, lambda given: loaded.run(None, dict(zip(names, given, strict=True))))
    np.testing.assert_array_equal(found, expected)


class Wrong(AgentPolicy):
    def batch(self, observations, masks=None, starts=None):
        return super().batch(observations, masks, starts) + 1


class Forgets(AgentPolicy):
    def batch(self, observations, masks=None, starts=None):
        self.reset()
        return super().batch(observations, masks, starts)


class Odd(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 4)

    def forward(self, x):
        raise ValueError("not for tracing\nat all")


@pytest.mark.parametrize(
    ("what", "file", "said"),
    [
        ({"kind": Wrong}, "p.pt", "its actions are not those of the checkpoint"),
        ({"kind": Forgets, "recurrent": "gru"}, "p.pt", "its actions are not those of the checkpoint"),
        ({"greedy": False}, "p.pt", "must be loaded with greedy=True"),
        ({}, "p.h5", "must end in .onnx or .pt"),
        ({}, "no/p.pt", "cannot be written"),
    ],
)
def test_what_cannot_be_exported_is_one_line(what, file, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        export(policy(NUMBERS, Discrete(4), **what), tmp_path / file)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_torch_cannot_export_is_one_line(tmp_path):
    class Untraceable(AgentPolicy):
        def batch(self, observations, masks=None, starts=None):
            return np.zeros(len(observations))

    with pytest.raises(ConfigError, match=r"torch cannot export this network: not for tracing$"):
        export(policy(NUMBERS, Discrete(4), own=Odd(), kind=Untraceable), tmp_path / "p.pt")


def test_onnx_that_is_not_installed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"pip install 'hsa2c\[export\]'$"):
        export(policy(NUMBERS, Discrete(4)), tmp_path / "p.onnx")
