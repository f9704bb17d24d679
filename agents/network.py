"""The network of Mnih et al. 2013 with a policy and a value head, its weights living in one flat vector.

The flat vector is the parameter that the rest of the project knows: `bind` makes the weights views of it. This is the
definition; what trains is `hsa2c.agents.fast_network`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hsa2c.agents.settings import OBSERVATION_SHAPE, Initialisation, Pixels, Precision

CONV1_STRIDE = 4
CONV2_STRIDE = 2

_HIDDEN_INPUTS = 32 * 9 * 9


class _Conv2d(nn.Conv2d):
    """Weights as memory is found; torch's own way to this, the meta device, takes half a second to load."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


class _Linear(nn.Linear):
    """As `_Conv2d`."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


class ActorCritic(nn.Module):
    """Convolutions 16 @ 8x8 / 4 and 32 @ 4x4 / 2, a layer of 256, ReLU after each; two linear heads.

    Weights are memory as found until `bind` or `initialise`: construction draws no random numbers.

    Args:
        num_actions: Of the game.
        pixels: See `hsa2c.agents.settings.AgentConfig.pixels`.

    Source: Mnih et al. 2013, section 4.1, with the heads of Mnih et al. 2016.
    """

    def __init__(self, num_actions: int, pixels: Pixels = "background") -> None:
        super().__init__()
        self._pixels = pixels
        self.conv1 = _Conv2d(OBSERVATION_SHAPE[0], 16, kernel_size=8, stride=CONV1_STRIDE)
        self.conv2 = _Conv2d(16, 32, kernel_size=4, stride=CONV2_STRIDE)
        self.hidden = _Linear(_HIDDEN_INPUTS, 256)
        self.policy = _Linear(256, num_actions)
        self.value = _Linear(256, 1)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """The policy and the value of states.

        Args:
            observations: uint8 [batch, 4, 84, 84].

        Returns:
            Logits float32 [batch, num_actions] and values float32 [batch], whatever `autocast` is around.
        """
        x = functional.relu(self._first(observations))
        x = functional.relu(self.conv2(x))
        x = functional.relu(self.hidden(x.flatten(1)))
        with torch.autocast("cpu", enabled=False):  # the heads cost nothing, and importance ratios need the digits
            x = x.float()
            return self.policy(x), self.value(x).squeeze(1)

    def _first(self, observations: Tensor) -> Tensor:
        """The first convolution, of scaled pixels; what is cheaper to scale than they are is scaled instead."""
        mixed = torch.is_autocast_enabled("cpu")
        # Whole numbers up to 255, and their differences, are exact in bfloat16 (8 significant bits).
        pixels = observations.to(torch.get_autocast_dtype("cpu") if mixed else torch.float32)
        weight, bias, stride = self.conv1.weight, self.conv1.bias, self.conv1.stride
        assert bias is not None
        zero, deviation = grey_levels(observations, self._pixels)
        x = functional.conv2d(pixels.sub_(zero.to(pixels.dtype)), weight, stride=stride)
        return x * (1 / deviation).to(x.dtype) + bias[:, None, None].to(x.dtype)


def grey_levels(observations: Tensor, pixels: Pixels) -> tuple[Tensor, Tensor]:
    """The whole grey level that becomes 0, and how far from it 1 is, at least 1; float32 [batch, 1, 1, 1] each.

    The deviation is that of every fourth row of pixels, and the median is of every fourth column of those: as good, in
    a fraction of the time.

    Args:
        observations: uint8 [batch, 4, 84, 84].
        pixels: Which levels; see `hsa2c.agents.settings.AgentConfig.pixels`.
    """
    if pixels == "raw":
        shape = (observations.shape[0], 1, 1, 1)  # which an export follows, and not len
        return torch.zeros(shape), torch.full(shape, 255.0)
    rows = observations[:, :, ::4].flatten(1)
    sample = rows.float()
    zero = _median(rows[:, ::4]) if pixels == "background" else sample.mean(1, keepdim=True).round()
    deviation = torch.linalg.vector_norm(sample.sub_(zero), dim=1) / math.sqrt(sample.shape[1])
    return zero[:, :, None, None], deviation.clamp_min(1)[:, None, None, None]


def _median(levels: Tensor) -> Tensor:
    """The upper median of each row, uint8 [n, m] to float32 [n, 1]; numpy finds it at least twice as fast as torch."""
    middle = levels.shape[1] // 2
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if tracing or torch.compiler.is_compiling():  # an export has torch's operations alone
        return levels.float().topk(levels.shape[1] - middle).values[:, -1:]
    return torch.from_numpy(np.partition(levels.numpy(), middle, axis=1)[:, middle, None]).float()


def autocast(precision: Precision) -> torch.autocast:
    """A context in which `ActorCritic.forward` computes its hidden layers in this precision.

    Only forward belongs in it; loss and backward do not.
    """
    # Each weight is used once a forward, and may be rewritten before the next: a cache of cast weights is no gain.
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


def num_parameters(module: nn.Module) -> int:
    """Length of the flat vector (dim)."""
    return sum(parameter.numel() for parameter in module.parameters())


def bind(module: nn.Module, flat: Tensor) -> None:
    """Make the weights views of a flat vector, in the order of `module.parameters()`, without a copy.

    Whoever writes `flat` later changes the network; what the weights were before is dropped.

    Args:
        module: Any module with float32 parameters.
        flat: float32 [dim], contiguous; may be shared memory.
    """
    for parameter, view in zip(module.parameters(), parameter_views(module, flat), strict=True):
        parameter.data = view


def parameter_views(module: nn.Module, flat: Tensor) -> list[Tensor]:
    """`flat`, float32 [dim], cut into the shapes of the module's parameters, in their order, without a copy."""
    dim = num_parameters(module)
    assert flat.dtype == torch.float32 and flat.shape == (dim,) and flat.is_contiguous(), (
        f"flat vector is {flat.dtype} {list(flat.shape)}, the network needs contiguous float32 [{dim}]"
    )
    shapes = [parameter.shape for parameter in module.parameters()]
    parts = torch.split(flat.detach(), [shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def initialise(module: ActorCritic, seed: int, initialisation: Initialisation = "orthogonal") -> None:
    """Draw the weights anew, in place, from a generator of their own.

    orthogonal: gain sqrt(2), 1 for the value and 0.01 for the policy, so that play starts near uniform; biases 0
    (OpenAI baselines; Andrychowicz et al. 2021, section 3.2). torch: torch's default, uniform in +- 1 / sqrt(inputs).
    """
    generator = torch.Generator().manual_seed(seed)
    hidden = math.sqrt(2)
    layers = (
        (module.conv1, hidden),
        (module.conv2, hidden),
        (module.hidden, hidden),
        (module.policy, 0.01),
        (module.value, 1),
    )
    for layer, gain in layers:
        assert layer.bias is not None
        if initialisation == "orthogonal":
            nn.init.orthogonal_(layer.weight, gain, generator=generator)
            nn.init.zeros_(layer.bias)
        else:
            bound = 1 / math.sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def initial_vector(num_actions: int, seed: int, initialisation: Initialisation = "orthogonal") -> Tensor:
    """The flat vector of a network drawn by `initialise`, float32 [dim]; the same for the same arguments."""
    network = ActorCritic(num_actions)
    flat = torch.empty(num_parameters(network))
    bind(network, flat)
    initialise(network, seed, initialisation)
    return flat
