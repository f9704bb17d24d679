"""How a node holds u in its shared memory: a copy of v, or a form that is cheaper to read and to change.

Where an update touches a few rows of a large parameter, copying all of it in line 4 and changing all of it in line 6
would cost more than the gradient. A layout of the problem's own says how v becomes u, what of it a process reads, how
it changes, and what vector it then is; Algorithms 1 and 2 and the transports see vectors like v.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

from hsa2c.config.sections import OptimiserConfig
from hsa2c.dpsgd.problem import Problem
from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import ProblemError
from hsa2c.node.optimiser import Rule, SharedOptimiser, check_gradient, rule_of


class Access(NamedTuple):
    """One process's hands on u."""

    read: Callable[[], Any]
    """Line 4: a private u_hat, in the form that the problem's gradient takes; constant until the next call."""
    step: Callable[[Any], None]
    """Line 6: change u by a gradient, without a lock; raises `ProblemError` where the gradient does not fit u."""
    scale_rate: Callable[[float], None]
    """Set the learning rate to so many times the one it starts with."""
    finite: Callable[[Any], bool]
    """Whether a gradient holds neither NaN nor infinity; raises as `step`."""


class Layout(Protocol):
    """See the module. An implementation is made before the processes are forked, and must not hold what they change.

    Attributes:
        size: Floats of u in shared memory.
        state_size: Floats of the local optimiser's state there.
        in_place: Whether u is a vector like v throughout, so that it may be copied and added to while processes change
        it.
    """

    in_place: bool = False

    @property
    def size(self) -> int: ...  # noqa: D102

    @property
    def state_size(self) -> int: ...  # noqa: D102

    def enter(self, v: Vector, u: Vector) -> None:
        """Line 2: let u, float32 [size], be v, float32 [dim]; raises `ProblemError` where v is not."""

    def value(self, u: Vector) -> Vector:
        """What u is as a vector, float32 [dim], for line 7; valid until the next call of `enter` or `value`."""

    def attach(self, u: torch.Tensor, state: torch.Tensor, problem: Problem) -> Access:
        """A process's access to u, float32 [size], and the optimiser's state, float32 [state_size]; both shared.

        Raises:
            ProblemError: The problem lacks what this layout asks of it.
        """


class DenseLayout(Layout):
    """U is a copy of v; a process reads all of it, and torch's optimisers change it.

    Args:
        dim: Length of v.
        rule: The local optimiser.
        tail: So many of the last numbers it leaves alone: a gradient of them is subtracted as it is.
    """

    in_place = True

    def __init__(self, dim: int, rule: Rule, tail: int = 0) -> None:
        self._dim = dim
        self._rule = rule
        self._head = dim - tail

    @property
    def size(self) -> int:
        """See `Layout`."""
        return self._dim

    @property
    def state_size(self) -> int:
        """See `Layout`."""
        return self._rule.state_size(self._head)

    def enter(self, v: Vector, u: Vector) -> None:
        """See `Layout.enter`."""
        if v.shape != u.shape or v.dtype != u.dtype:
            raise ProblemError(f"v is {v.dtype} {list(v.shape)}, must be {u.dtype} {list(u.shape)}")
        u[:] = v

    def value(self, u: Vector) -> Vector:
        """See `Layout.value`."""
        return u

    def attach(self, u: torch.Tensor, state: torch.Tensor, problem: Problem) -> Access:
        """See `Layout.attach`."""
        u_hat, head = torch.empty_like(u), self._head
        optimiser = SharedOptimiser(u[:head], state, self._rule)

        def step(g: Any) -> None:
            check_gradient(g, self._dim)
            optimiser.step(g[:head])
            u[head:].sub_(g[head:])  # unlocked: a lost write is S_b of Eq. 3

        def finite(g: Any) -> bool:
            check_gradient(g, self._dim)
            # One number instead of one for each element: a sum is finite only if all that it adds are.
            return bool(g.sum().isfinite())

        change = step if head < self._dim else optimiser.step
        return Access(lambda: u_hat.copy_(u), change, optimiser.scale_rate, finite)


def dense_layout(dim: int, optimiser: OptimiserConfig) -> Layout:
    """The layout of a parameter that is read and changed as a whole."""
    return DenseLayout(dim, rule_of(optimiser))
