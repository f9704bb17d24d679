"""Line 6 of Algorithm 2: torch.optim on the shared vector, with its state in shared memory too.

# Paper: u <- u - eta * g. Here RMSProp and Adam are choices as well, because deep networks learn faster by them; their
# running means belong to the node, are updated by all its processes without a lock, and are kept across pulls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop

from hsa2c.config.sections import OptimiserConfig
from hsa2c.errors import ProblemError

#: Running means that a rule keeps, of the parameter's length each.
_MEANS = {"sgd": 0, "rmsprop": 1, "adam": 2}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which optimiser, and its constants; the meaning of each is `hsa2c.config.sections.OptimiserConfig`'s."""

    name: str
    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    decay: float = 0.99
    epsilon: float = 1e-8

    def state_size(self, dim: int) -> int:
        """Length of the flat state for a parameter of length `dim`: its running means and the count of updates."""
        means = _MEANS[self.name]
        return means * dim + 1 if means else 0


def rule_of(optimiser: OptimiserConfig) -> Rule:
    """The local optimiser of a configuration."""
    return Rule(
        name=optimiser.name,
        learning_rate=optimiser.learning_rate,
        beta1=optimiser.beta1,
        beta2=optimiser.beta2,
        decay=optimiser.decay,
        epsilon=optimiser.epsilon,
    )


class SharedOptimiser:
    """One process's hands on the node's optimiser: u and state are shared, the gradient is its own.

    torch.optim's rules as functions, on the flat vectors as they lie. Its classes would do the same, and load torch's
    compiler to begin with: 800 modules, 70 MB and a second and a half for every node.

    Args:
        u: float32 [dim] in shared memory.
        state: float32 [rule.state_size(dim)] in shared memory; zeros at first.
        rule: Which optimiser.

    Raises:
        ProblemError: `state` is of another length.
    """

    def __init__(self, u: torch.Tensor, state: torch.Tensor, rule: Rule) -> None:
        self._u = u
        self._rule = rule
        self._eta = rule.learning_rate
        dim = u.numel()
        if state.shape != (size := rule.state_size(dim),):
            raise ProblemError(f"the optimiser's state is {list(state.shape)}, must be [{size}]")
        self._means = [state[k * dim : (k + 1) * dim] for k in range(_MEANS[rule.name])]
        self._count = state[-1:].squeeze()
        self._apply = {"sgd": self._sgd, "rmsprop": self._rmsprop, "adam": self._adam}[rule.name]

    def scale_rate(self, scale: float) -> None:
        """Set the learning rate to `scale` times the rule's."""
        self._eta = self._rule.learning_rate * scale

    def step(self, g: torch.Tensor) -> None:
        """U <- u - eta * (g as the rule transforms it), in place and unlocked.

        Raises:
            ProblemError: `g` is unlike u.
        """
        check_gradient(g, self._u.numel())
        self._apply(g)

    def _sgd(self, g: torch.Tensor) -> None:
        self._u.add_(g, alpha=-self._eta)

    def _rmsprop(self, g: torch.Tensor) -> None:
        (mean_square,) = self._means
        rmsprop(
            [self._u],
            [g],
            [mean_square],
            grad_avgs=[],
            momentum_buffer_list=[],
            state_steps=[self._count],
            foreach=False,
            lr=self._eta,
            alpha=self._rule.decay,
            eps=self._rule.epsilon,
            weight_decay=0.0,
            momentum=0.0,
            centered=False,
        )

    def _adam(self, g: torch.Tensor) -> None:
        mean, mean_square = self._means
        adam(
            [self._u],
            [g],
            [mean],
            [mean_square],
            max_exp_avg_sqs=[],
            state_steps=[self._count],
            fused=True,  # one pass over the memory instead of one for each term
            amsgrad=False,
            beta1=self._rule.beta1,
            beta2=self._rule.beta2,
            lr=self._eta,
            weight_decay=0.0,
            eps=self._rule.epsilon,
            maximize=False,
        )


def check_gradient(g: Any, dim: int) -> None:
    """Refuse a gradient unlike u: torch's fused optimisers read as many numbers as u has, wherever g ends.

    Raises:
        ProblemError: It is no tensor, or not float32 [dim] without gaps.
    """
    is_tensor = isinstance(g, torch.Tensor)
    if is_tensor and g.shape == (dim,) and g.dtype is torch.float32 and g.is_contiguous():
        return
    what = f"{g.dtype} {list(g.shape)}, strides {list(g.stride())}" if is_tensor else f"a {type(g).__name__}"
    raise ProblemError(f"a gradient is {what}: must be {torch.float32} [{dim}] without gaps, as v has {dim} numbers")
