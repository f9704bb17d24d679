"""Networks for any space: encoders of each leaf, perhaps a recurrent core, a head for the policy and one for the value.

A network of one's own is a torch module whose `forward` takes the observation (a tensor [n, ...], or a dict of tensors
where the space has parts) and gives the numbers of the policy, float32 [n, P], and the value, [n] or [n, 1]. P is
`hsa2c.agents.gym.spaces.action_parameters` of the action space: logits, or means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from torch import Tensor, nn
from torch.nn import functional

from hsa2c.agents.gym.spaces import action_parameters, empty, image_axes, is_image, normalised, width
from hsa2c.errors import ConfigError

State = tuple[Tensor, ...]
"""Of a recurrent core: float32 [n, hidden] each; empty without one."""


class Encoder(nn.Module):
    """Leaves of an observation as one vector, [n, size]: pixels by a convolution, choices as ones among zeros."""

    def __init__(self, spaces: Mapping[str, Space[Any]], convolution: str) -> None:
        super().__init__()
        self.spaces = dict(spaces)
        self.convolutions = nn.ModuleList()  # in the order of the leaves that are images
        self.size = 0
        for space in spaces.values():
            if is_image(space):
                assert isinstance(space, Box)
                channels, _ = image_axes(space)
                made = _mnih(channels) if convolution == "mnih" else _impala(channels)
                with torch.no_grad():
                    numbers = made(self._image(space, torch.zeros((1, *space.shape), dtype=torch.uint8))).shape[1]
                self.convolutions.append(made)
                self.size += numbers
            else:
                self.size += width(space)

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """[n, size]."""
        parts = []
        convolutions = iter(self.convolutions)
        for path, space in self.spaces.items():
            x = observations[path]
            if is_image(space):
                assert isinstance(space, Box)
                parts.append(next(convolutions)(self._image(space, x)))
            elif isinstance(space, Discrete):
                parts.append(functional.one_hot(x - int(space.start), int(space.n)).float())
            elif isinstance(space, MultiDiscrete):
                columns = (x - torch.from_numpy(space.start)).reshape(x.shape[0], -1).unbind(1)
                sizes = [int(n) for n in space.nvec.ravel()]
                parts += [functional.one_hot(c, n).float() for c, n in zip(columns, sizes, strict=True)]
            else:
                parts.append(x.reshape(x.shape[0], -1).float())
        return torch.cat(parts, dim=1)

    @staticmethod
    def _image(space: Box, x: Tensor) -> Tensor:
        _, last = image_axes(space)
        x = x.float() / 255
        if len(space.shape) == 2:
            return x.unsqueeze(1)
        return x.permute(0, 3, 1, 2).contiguous() if last else x


def _mnih(channels: int) -> nn.Module:
    """Mnih et al. 2015: three convolutions."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, 8, 4, padding=2), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, padding=1), nn.ReLU(), nn.Flatten()
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(functional.relu(self.first(functional.relu(x))))
        return x + y


def _impala(channels: int) -> nn.Module:
    """Espeholt et al. 2018, Figure 3: three blocks of a convolution, a pooling and two residual parts."""
    blocks: list[nn.Module] = []
    for into in (16, 32, 32):
        blocks += [nn.Conv2d(channels, into, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)]
        blocks += [_Residual(into), _Residual(into)]
        channels = into
    return nn.Sequential(*blocks, nn.ReLU(), nn.Flatten())


class Agent(nn.Module):
    """Policy and value of an observation, with what is carried from one step to the next.

    Args:
        spaces: Leaves of the observation space.
        action_space: Of one environment.
        hidden: Width of the hidden layers, and of a recurrent core.
        layers: Hidden layers of each tower.
        convolution: mnih or impala.
        recurrent: none, lstm or gru.
        log_std: Logarithm of the deviation that actions of a Box have at first.
        own: A network of one's own in the place of all of it.
    """

    def __init__(
        self,
        spaces: Mapping[str, Space[Any]],
        action_space: Space[Any],
        *,
        hidden: int = 64,
        layers: int = 2,
        convolution: str = "mnih",
        recurrent: str = "none",
        log_std: float = 0.0,
        own: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self._paths = list(spaces)
        parameters = action_parameters(action_space)
        self.log_std: nn.Parameter | None = None
        if isinstance(action_space, Box):
            self.log_std = nn.Parameter(torch.full((parameters,), log_std))
        self.own, self.hidden, self._kind = own, hidden, recurrent
        self.core: nn.LSTMCell | nn.GRUCell | None = None
        self.policy: nn.Module
        self.value: nn.Module
        if own is not None:
            if recurrent != "none":
                raise ConfigError(f"agent.recurrent = {recurrent!r}: must be none with a network of one's own")
            return
        self.encoder = Encoder(spaces, convolution)
        if recurrent != "none":
            self.before = _tower(self.encoder.size, hidden, 1)
            self.core = (nn.LSTMCell if recurrent == "lstm" else nn.GRUCell)(hidden, hidden)
            self.policy, self.value = nn.Linear(hidden, parameters), nn.Linear(hidden, 1)
        elif len(self.encoder.convolutions):
            self.before = _tower(self.encoder.size, 8 * hidden, 1, nn.ReLU)
            self.policy, self.value = nn.Linear(8 * hidden, parameters), nn.Linear(8 * hidden, 1)
        else:  # two towers: the value's errors do not disturb the policy (Andrychowicz et al. 2021, section 3.2)
            self.policy = nn.Sequential(_tower(self.encoder.size, hidden, layers), nn.Linear(hidden, parameters))
            self.value = nn.Sequential(_tower(self.encoder.size, hidden, layers), nn.Linear(hidden, 1))

    def begin(self, n: int) -> State:
        """The state at the start of n episodes."""
        if self.core is None:
            return ()
        return tuple(torch.zeros(n, self.hidden) for _ in range(2 if self._kind == "lstm" else 1))

    def forward(self, observations: Mapping[str, Tensor], state: State, starts: Tensor) -> tuple[Tensor, Tensor, State]:
        """One step: numbers of the policy [n, P], values [n], and the state afterwards.

        Args:
            observations: Leaves by path, [n, ...].
            state: Before the step.
            starts: bool [n]: the observation is the first of an episode, so that the state is that of the start.
        """
        if self.own is not None:
            parameters, values = self.own_output(observations)
            return parameters, values.reshape(-1), ()
        x = self.encoder(observations)
        if self.core is not None:
            keep = (~starts).float().unsqueeze(1)
            state = tuple(part * keep for part in state)
            x = self.before(x)
            after = self.core(x, state) if isinstance(self.core, nn.LSTMCell) else (self.core(x, state[0]),)
            return self.policy(after[0]), self.value(after[0]).squeeze(1), tuple(after)
        if len(self.encoder.convolutions):
            x = self.before(x)
        return self.policy(x), self.value(x).squeeze(1), ()

    def own_output(self, observations: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What a network of one's own gives, as it gives it."""
        assert self.own is not None
        parameters, values = self.own(observations[self._paths[0]] if len(self._paths) == 1 else observations)
        return parameters, values

    def sequence(self, observations: Mapping[str, Tensor], state: State, starts: Tensor) -> tuple[Tensor, Tensor]:
        """T steps of n environments, [T, n, ...]: numbers of the policy [T, n, P] and values [T, n]."""
        T, n = starts.shape
        if self.core is None:
            flat = {path: x.reshape(T * n, *x.shape[2:]) for path, x in observations.items()}
            parameters, values, _ = self(flat, (), starts.reshape(-1))
            return parameters.view(T, n, -1), values.view(T, n)
        found = []
        for t in range(T):
            parameters, values, state = self({path: x[t] for path, x in observations.items()}, state, starts[t])
            found.append((parameters, values))
        return torch.stack([parameters for parameters, _ in found]), torch.stack([values for _, values in found])


def _tower(size: int, hidden: int, layers: int, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(size, hidden), activation()]
        size = hidden
    return nn.Sequential(*parts)


def initialise(agent: Agent, seed: int) -> None:
    """Draw the weights: orthogonal, gain sqrt(2), of the policy 0.01 and of the value 1 (Andrychowicz et al. 2021)."""
    if agent.own is not None:
        return
    generator = torch.Generator().manual_seed(seed)
    last = [_last(agent.policy), _last(agent.value)]
    for module in agent.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            gain = 0.01 if module is last[0] else 1.0 if module is last[1] else math.sqrt(2)
            nn.init.orthogonal_(module.weight, gain, generator=generator)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LSTMCell | nn.GRUCell):
            for name, parameter in module.named_parameters():
                if "weight" in name:
                    nn.init.orthogonal_(parameter, 1.0, generator=generator)
                else:
                    nn.init.zeros_(parameter)
            if isinstance(module, nn.LSTMCell):  # it forgets little at first (Jozefowicz et al. 2015, section 2.2)
                assert module.bias_ih is not None
                nn.init.ones_(module.bias_ih[module.hidden_size : 2 * module.hidden_size])


def check(agent: Agent, spaces: Mapping[str, Space[Any]], parameters: int) -> None:
    """Let a network of one's own see two observations, drawn from their space.

    Args:
        agent: Has it.
        spaces: Leaves of the observation space.
        parameters: Numbers of the policy, P.

    Raises:
        ConfigError: It fails, what it gives does not fit, or it has a state beside its parameters.
    """
    n, arrays = 2, empty(spaces, (2,))
    for path, space in spaces.items():
        for i in range(n):
            arrays[path][i] = space.sample()
    seen = {path: x.float() if normalised(spaces[path]) else x for path, x in to_tensors(arrays).items()}
    buffers = {name: buffer.clone() for name, buffer in agent.named_buffers()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # processes that are forked from one with more could hang
    try:
        with torch.no_grad():
            policy, value = agent.own_output(seen)
    except Exception as error:
        raise ConfigError(f"agent.network: fails on {n} observations: {type(error).__name__}: {error}") from None
    finally:
        torch.set_num_threads(threads)
    _check_output(n, parameters, policy, value)
    if any(parameter.dtype != torch.float32 for parameter in agent.parameters()):
        raise ConfigError("agent.network: its parameters must be float32")
    for name, buffer in agent.named_buffers():
        if not torch.equal(buffer, buffers.get(name, buffer)):
            raise ConfigError(
                f"agent.network: its buffer {name.removeprefix('own.')} changes with use, but is neither shared nor"
                " saved: must be constant (LayerNorm does in the place of BatchNorm)"
            )


def _check_output(n: int, parameters: int, policy: Any, value: Any) -> None:
    for what, gave, must in (("policy", policy, ((n, parameters),)), ("value", value, ((n,), (n, 1)))):
        if tuple(getattr(gave, "shape", ())) not in must:
            raise ConfigError(
                f"agent.network: for {n} observations the {what} is {_shape(gave)}, must be"
                f" {' or '.join(str(list(shape)) for shape in must)}"
            )
        if not bool(torch.isfinite(gave).all()):
            raise ConfigError(f"agent.network: for {n} observations the {what} is not finite")


def _shape(x: Any) -> str:
    return str(list(x.shape)) if isinstance(x, Tensor) else f"a {type(x).__name__}"


def _last(module: nn.Module) -> nn.Module:
    return module[-1] if isinstance(module, nn.Sequential) else module


def to_tensors(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """Leaves as tensors, without a copy."""
    return {path: torch.from_numpy(np.ascontiguousarray(array)) for path, array in arrays.items()}
