"""What the processes of a node share: u, the optimiser's state, B and the rate, in one anonymous mapping."""

from __future__ import annotations

import mmap

import numpy as np
import torch

from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import ProblemError


class SharedVectors:
    """u, the optimiser's state, B, the rate and the interrupt flag of a node, in one anonymous shared mapping.

    Attributes:
        u: float32 [size], in the node's layout.
        state: float32 [state_dim], zeros at first.
        applied: Updates of u by each process, also by those that it replaced; int64 [p].
    """

    def __init__(self, size: int, state_dim: int, p: int = 1) -> None:
        rate_at = -(-4 * (size + state_dim) // 8) * 8
        self._memory = mmap.mmap(-1, rate_at + 16 + 8 * p + 1)
        self._rate_scale = np.frombuffer(self._memory, np.float64, count=1, offset=rate_at)
        self._local_updates = np.frombuffer(self._memory, np.int64, count=1, offset=rate_at + 8)
        self.applied = np.frombuffer(self._memory, np.int64, count=p, offset=rate_at + 16)
        floats = torch.frombuffer(self._memory, dtype=torch.float32, count=size + state_dim)
        self.u = floats[:size]
        self.state = floats[size:]

    def go_on(self, state: Vector | None) -> None:
        """Take over an optimiser's state, float32 [state_dim], if there is one.

        Raises:
            ProblemError: It is of another length or type.
        """
        if state is None:
            return
        own = self.state.numpy()
        if state.shape != own.shape or state.dtype != own.dtype:
            raise ProblemError(
                f"the optimiser's state is {state.dtype} {list(state.shape)}, must be {own.dtype} {list(own.shape)}"
            )
        own[:] = state

    @property
    def rate_scale(self) -> float:
        """Factor on the local learning rate, for processes that do not stop for an exchange."""
        return float(self._rate_scale[0])

    @rate_scale.setter
    def rate_scale(self, value: float) -> None:
        self._rate_scale[0] = value

    @property
    def local_updates(self) -> int:
        """B, for processes that do not stop for an exchange: each takes it over when it has made its last B updates."""
        return int(self._local_updates[0])

    @local_updates.setter
    def local_updates(self, value: int) -> None:
        self._local_updates[0] = value

    @property
    def interrupted(self) -> bool:
        """Whether the node's processes are to finish early."""
        return self._memory[-1] != 0

    @interrupted.setter
    def interrupted(self, value: bool) -> None:
        self._memory[-1] = int(value)
