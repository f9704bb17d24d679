"""Line 6 of Algorithm 2: torch.optim on the shared vector, with its state in shared memory too.

# Paper: u <- u - eta * g. Here RMSProp and Adam are choices as well, because they are what learns Atari; their running
# means belong to the node, are updated by all its processes without a lock, and are kept across pulls.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which optimiser, and its constants; the meaning of each is `hsa2c.config.OptimiserConfig`'s."""

    name: str
    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    decay: float = 0.99
    epsilon: float = 1e-8

    def state_size(self, dim: int) -> int:
        """Length of the flat state for a parameter of length `dim`: its running means and the count of updates."""
        means = {"sgd": 0, "rmsprop": 1, "adam": 2}[self.name]
        return means * dim + 1 if means else 0


class SharedOptimiser:
    """One process's hands on the node's optimiser: u and state are shared, the gradient is its own.

    Args:
        u: float32 [dim] in shared memory.
        state: float32 [rule.state_size(dim)] in shared memory; zeros at first.
        rule: Which optimiser.
    """

    def __init__(self, u: torch.Tensor, state: torch.Tensor, rule: Rule) -> None:
        self._u = u
        self._eta = rule.learning_rate
        self._optimiser = _make(u, rule)
        if rule.name != "sgd":
            self._optimiser.state[u] = _views(state, rule.name, u.numel())

    def scale_rate(self, scale: float) -> None:
        """Set the learning rate to `scale` times the rule's."""
        self._optimiser.param_groups[0]["lr"] = self._eta * scale

    def step(self, g: torch.Tensor) -> None:
        """U <- u - eta * (g as the rule transforms it), in place and unlocked."""
        self._u.grad = g
        self._optimiser.step()


def _make(u: torch.Tensor, rule: Rule) -> torch.optim.Optimizer:
    # fused: one pass over the memory instead of one for each term, where torch has it for processors.
    if rule.name == "sgd":
        return torch.optim.SGD([u], lr=rule.learning_rate)
    if rule.name == "rmsprop":
        return torch.optim.RMSprop([u], lr=rule.learning_rate, alpha=rule.decay, eps=rule.epsilon, foreach=False)
    return torch.optim.Adam([u], lr=rule.learning_rate, betas=(rule.beta1, rule.beta2), eps=rule.epsilon, fused=True)


def _views(state: torch.Tensor, name: str, dim: int) -> dict[str, torch.Tensor]:
    """torch.optim's state for one parameter, as views of the flat shared one."""
    count = state[-1:].view(())
    if name == "rmsprop":
        return {"step": count, "square_avg": state[:dim]}
    return {"step": count, "exp_avg": state[:dim], "exp_avg_sq": state[dim : 2 * dim]}
