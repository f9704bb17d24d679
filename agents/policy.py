"""A network that only acts: what an evaluation needs of an agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hsa2c.agents.export import Exportable
from hsa2c.agents.network import ActorCritic, autocast, bind
from hsa2c.agents.settings import OBSERVATION_SHAPE, Pixels, Precision
from hsa2c.errors import ConfigError

_CHECKED = 64  # random observations, of an export


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise for sampling actions: ``(logits + noise).argmax(-1)`` has the distribution softmax(logits).

    The Gumbel-max trick; -log of an Exp(1) variable is a Gumbel variable. A third of the time of softmax and
    torch.multinomial on a few rows.

    Args:
        shape: [..., num_actions].
        generator: Where the randomness comes from, and the only thing that changes.

    Returns:
        float32, of that shape.
    """
    return torch.empty(shape).exponential_(generator=generator).log_().neg_()


class Policy:
    """Acts as a flat vector of weights says.

    Args:
        v: float32 [dim]; copied, so later writes to it change nothing here.
        num_actions: Of the game.
        pixels: What the network was trained with (`hsa2c.agents.settings.AgentConfig.pixels`).
        greedy: Take the likeliest action; otherwise sample.
        seed: Of the sampling.
        precision: Of the hidden layers.
    """

    def __init__(
        self,
        v: Tensor | NDArray[np.float32],
        num_actions: int,
        *,
        pixels: Pixels,
        greedy: bool,
        seed: int,
        precision: Precision = "float32",
    ) -> None:
        self._network = ActorCritic(num_actions, pixels)
        flat = v.detach().clone() if isinstance(v, Tensor) else torch.from_numpy(v.copy())
        bind(self._network, flat)
        self._greedy = greedy
        self._generator = torch.Generator().manual_seed(seed)
        self._precision = precision

    @torch.inference_mode()
    def __call__(self, observations: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Actions int64 [n] for observations uint8 [n, 4, 84, 84]; a number of int64 for one of them."""
        if observations.ndim == 3:
            single: NDArray[np.int64] = self(observations[None])[0]
            return single
        with autocast(self._precision):
            logits, _ = self._network(torch.from_numpy(observations))
        actions: NDArray[np.int64] = (
            (logits if self._greedy else logits + gumbel_noise(logits.shape, self._generator)).argmax(dim=1).numpy()
        )
        return actions

    def batch(
        self, observations: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], masks: None = None, starts: Any = None
    ) -> NDArray[np.int64]:
        """Actions for several environments, int64 [n]; see `hsa2c.agents.gym.acting.AgentPolicy.batch`.

        Args:
            observations: One of each, uint8 [4, 84, 84].
            masks: There are none: a game has all its actions at any time.
            starts: Nothing is remembered, so nothing depends on it.
        """
        return self(np.asarray(observations))

    def reset(self) -> None:
        """Begin new games: there is nothing to forget."""

    def exportable(self) -> Exportable:
        """For `hsa2c.agents.export.export`: "observation", uint8 [n, 4, 84, 84], to the likeliest action of the game's.

        Raises:
            ConfigError: It samples its actions.
        """
        if not self._greedy:
            raise ConfigError("the policy samples its actions, must be loaded with greedy=True")
        random = np.random.default_rng(1)
        shape = (_CHECKED, *OBSERVATION_SHAPE)
        ground, pixels = (
            random.integers(0, 256, (_CHECKED, 1, 1, 1), np.uint8),
            random.integers(0, 256, shape, np.uint8),
        )
        seen = np.where(random.random(shape) < 0.2, pixels, ground)  # something before a background, as in games
        module = _Likeliest(self._network).eval().requires_grad_(False)
        return Exportable(module, ["observation"], [], [], [[seen]], [self(seen)])


class _Likeliest(nn.Module):
    def __init__(self, network: ActorCritic) -> None:
        super().__init__()
        self._network = network

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [n] and logits [n, num_actions]."""
        logits, _ = self._network(*given)
        return logits.argmax(1), logits
