"""A policy as a file that needs no hsa2c: ONNX or TorchScript, from raw observations to the likeliest action.

Inputs are the leaves of the observation, [n, ...] each, as the environment gives them: "observation" where there is
one. Outputs are "action", as the environment takes it, and "parameters", the logits or means [n, P].
"""

from __future__ import annotations

import importlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from numpy.typing import NDArray
from torch import Tensor, nn

from hsa2c.agents.gym.acting import AgentPolicy
from hsa2c.agents.gym.networks import to_tensors
from hsa2c.agents.gym.spaces import MASK, empty, mask_of, take
from hsa2c.agents.gym.statistics import scaled
from hsa2c.errors import ConfigError

_CHECKED = 64  # random observations
_NEAR = 1e-4  # of an action's numbers, relative and absolute

Runner = Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]]
"""Runs a file that was written: inputs to outputs."""


class GreedyPolicy(nn.Module):
    """Raw observations to the likeliest action and the distribution's parameters; made of what a policy is made of."""

    low: Tensor
    high: Tensor

    def __init__(self, policy: AgentPolicy) -> None:
        super().__init__()
        parts = policy.parts
        self.agent, self._actions, self._leaves = parts.agent, parts.actions, list(parts.leaves)
        space = parts.observation_space
        self.masked = isinstance(space, Dict) and MASK in space.spaces
        self.inputs = [path.replace(".", "_") or "observation" for path in parts.leaves] + [MASK] * self.masked
        for k, path in enumerate(self._leaves):
            mean, deviation = parts.moments[path] or (None, None)
            self.register_buffer(f"mean_{k}", mean)
            self.register_buffer(f"deviation_{k}", deviation)
        if isinstance(self._actions.space, Box):
            self.register_buffer("low", torch.from_numpy(self._actions.space.low))
            self.register_buffer("high", torch.from_numpy(self._actions.space.high))

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """Action [n, ...] and parameters [n, P] of leaves [n, ...], and of a mask, bool [n, P], where they have one."""
        seen = {path: self._normalised(k, given[k]) for k, path in enumerate(self._leaves)}
        parameters, _, _ = self.agent(seen, (), torch.zeros(0, dtype=torch.bool))
        mask = given[-1].reshape(parameters.shape).bool() if self.masked else None
        return self._to_env(self._actions.sample(parameters, self.agent.log_std, mask, greedy=True)), parameters

    def _normalised(self, k: int, x: Tensor) -> Tensor:
        mean = getattr(self, f"mean_{k}")
        return x if mean is None else scaled(x, mean, getattr(self, f"deviation_{k}"))

    def _to_env(self, actions: Tensor) -> Tensor:
        """As `Actions.to_env`, of tensors."""
        space = self._actions.space
        if isinstance(space, Discrete):
            return actions + int(space.start)
        shaped = actions.reshape(-1, *(space.shape or ()))
        if isinstance(space, MultiDiscrete):
            return shaped + torch.from_numpy(space.start)
        if not isinstance(space, Box):
            return shaped.long()
        bounded = self.low.isfinite() & self.high.isfinite()
        bottom, top = torch.where(bounded, self.low, 0.0), torch.where(bounded, self.high, 0.0)
        inner = shaped.tanh() if self._actions.squash else shaped.clamp(-1, 1)
        shaped = torch.where(bounded, bottom + (inner + 1) * 0.5 * (top - bottom), shaped)
        return torch.minimum(torch.maximum(shaped, self.low), self.high)


def export(policy: AgentPolicy, path: Path) -> None:
    """Write a policy in the format of the file's ending: .onnx, or .pt for TorchScript.

    Raises:
        ConfigError: There is no such format; see also `to_onnx` and `to_torchscript`.
    """
    formats = {".onnx": to_onnx, ".pt": to_torchscript}
    if path.suffix not in formats:
        raise ConfigError(f"{path}: must end in .onnx or .pt (TorchScript)")
    formats[path.suffix](policy, path)


def to_torchscript(policy: AgentPolicy, path: Path) -> None:
    """Write a policy as TorchScript, once its actions are the same: ``torch.jit.load(path)``.

    Args:
        policy: One without memory, loaded with ``greedy=True``.
        path: The file.

    Raises:
        ConfigError: The policy cannot be exported, or the file cannot be written.
    """

    def write(module: GreedyPolicy, inputs: Sequence[Tensor], file: Path) -> Runner:
        torch.jit.trace(module, tuple(inputs), check_trace=False).save(str(file))  # type: ignore[no-untyped-call]
        loaded = torch.jit.load(str(file))  # type: ignore[no-untyped-call]
        return lambda given: [x.numpy() for x in loaded(*map(torch.from_numpy, given))]

    _export(policy, path, write)


def to_onnx(policy: AgentPolicy, path: Path) -> None:
    """Write a policy as ONNX, once its actions are the same by ONNX's reference evaluator.

    Args:
        policy: One without memory, loaded with ``greedy=True``.
        path: The file.

    Raises:
        ConfigError: The policy cannot be exported, a package is missing, or the file cannot be written.
    """
    for needed in ("onnx", "onnxscript"):
        try:
            importlib.import_module(needed)
        except ModuleNotFoundError:
            raise ConfigError(f"{path}: ONNX needs {needed}: pip install 'hsa2c[export]'") from None

    def write(module: GreedyPolicy, inputs: Sequence[Tensor], file: Path) -> Runner:
        from onnx.reference import ReferenceEvaluator

        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of what it does not need
        axes = (tuple({0: torch.export.Dim("n")} for _ in inputs),)
        torch.onnx.export(
            module,
            tuple(inputs),
            file,
            input_names=module.inputs,
            output_names=["action", "parameters"],
            dynamic_shapes=axes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        run: Any = ReferenceEvaluator(str(file)).run
        return lambda given: list(run(None, dict(zip(module.inputs, given, strict=True))))

    _export(policy, path, write)


def _export(policy: AgentPolicy, path: Path, write: Callable[[GreedyPolicy, Sequence[Tensor], Path], Runner]) -> None:
    parts = policy.parts
    if parts.agent.core is not None:
        raise ConfigError(f"{path}: a policy with memory (agent.recurrent) cannot be exported")
    if not parts.greedy:
        raise ConfigError(f"{path}: the policy samples its actions, must be loaded with greedy=True")
    module, (inputs, expected) = GreedyPolicy(policy).eval().requires_grad_(False), _examples(policy)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of its own parts
        file = Path(folder) / path.name
        try:
            with torch.no_grad():
                action, _ = write(module, [torch.from_numpy(x[:2]) for x in inputs], file)(inputs)
        except Exception as error:  # of torch's, of many kinds, about a network of one's own
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise ConfigError(f"{path}: torch cannot export this network: {why}") from None
        if not np.allclose(action, expected, rtol=_NEAR, atol=_NEAR):
            raise ConfigError(f"{path}: is not written: its actions are not those of the checkpoint")
        try:
            path.write_bytes(file.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def _examples(policy: AgentPolicy) -> tuple[list[NDArray[Any]], NDArray[Any]]:
    """Random observations, as the module takes them, and the policy's actions."""
    parts = policy.parts
    space = parts.observation_space
    space.seed(1)
    observations = [space.sample() for _ in range(_CHECKED)]
    arrays = empty(parts.leaves, (_CHECKED,))
    for i, observation in enumerate(observations):
        for path, part in zip(parts.leaves, take(observation, space), strict=True):
            arrays[path][i] = part
    inputs = [x.numpy() for x in to_tensors(arrays).values()]
    masks = [mask for observation in observations if (mask := mask_of(observation, None)) is not None]
    if masks:
        inputs.append(np.stack(masks))
    return inputs, policy.batch(observations, [None] * _CHECKED)
