"""Exported Atari agents act as the checkpoint does: on their game's frames, and whatever their pixels."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import hsa2c
from hsa2c.agents.export import export
from hsa2c.agents.network import initial_vector
from hsa2c.agents.policy import Policy
from hsa2c.commands.export import main
from hsa2c.envs.atari import AtariEnvs
from hsa2c.envs.names import resolve_game
from hsa2c.envs.protocol import EvaluationProtocol
from hsa2c.errors import ConfigError

PONG = Path(__file__).resolve().parents[2] / "checkpoints" / "pong"
needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))), reason="onnx or onnxscript is not installed"
)
ignore_jit = pytest.mark.filterwarnings("ignore:.torch.jit.load. is:DeprecationWarning")


def same_on_the_screen(run, steps):
    """Whether a file acts as the checkpoint, on what two environments show when the checkpoint acts."""
    policy = hsa2c.load(PONG, greedy=True)
    taken = []
    with AtariEnvs(resolve_game("Pong"), EvaluationProtocol().env_config(), 2, seed=3) as envs:
        observations = envs.reset()
        for _ in range(steps):
            actions = policy.batch(observations)
            assert run(observations).tolist() == actions.tolist()
            observations = envs.step(actions).obs
            taken += actions.tolist()
    assert len(set(taken)) > 1


@ignore_jit
def test_torchscript_of_a_shipped_agent_plays_as_it(tmp_path, capsys):
    file = tmp_path / "pong.pt"
    assert main([str(PONG), str(file)], app="hsa2c.agents.application") == 0
    assert capsys.readouterr().out == f"{file}\n"
    loaded = torch.jit.load(file)
    same_on_the_screen(lambda seen: loaded(torch.from_numpy(seen))[0].numpy(), steps=100)


@needs_onnx
@pytest.mark.slow
def test_onnx_of_a_shipped_agent_plays_as_it(tmp_path):
    from onnx.reference import ReferenceEvaluator

    file = tmp_path / "pong.onnx"
    assert main([str(PONG), str(file)], app="hsa2c.agents.application") == 0
    loaded = ReferenceEvaluator(str(file))
    same_on_the_screen(lambda seen: loaded.run(None, {"observation": seen})[0], steps=20)


@ignore_jit
@pytest.mark.parametrize("pixels", ["raw", "standardised", "background"])
def test_any_number_of_observations_and_any_pixels(pixels, tmp_path):
    acting = Policy(initial_vector(6, 1, "torch"), 6, pixels=pixels, greedy=True, seed=1)
    export(acting.exportable(), tmp_path / "p.pt")
    loaded = torch.jit.load(tmp_path / "p.pt")
    for n in (1, 5):
        seen = np.random.default_rng(n).integers(0, 256, (n, 4, 84, 84), np.uint8)
        action, logits = loaded(torch.from_numpy(seen))
        assert action.tolist() == acting.batch(list(seen)).tolist()
        assert logits.shape == (n, 6)


def test_a_policy_that_samples_is_refused():
    with pytest.raises(ConfigError, match="must be loaded with greedy=True"):
        Policy(initial_vector(6, 1), 6, pixels="raw", greedy=False, seed=1).exportable()
