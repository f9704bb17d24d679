"""Robust regression, which `bench.rate` minimises: a function that is not convex, and what Theorem 1 needs of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hsa2c.dpsgd.problem import Problem
from hsa2c.dpsgd.theory import Objective

DIM, _ROWS = 10, 400
MU = 0.5  # the constant of the theorem's A


class RobustRegression(Objective):
    """f(u) = mean_i r_i^2 / (2 + 2 r_i^2), r_i = x_i u - y_i, with |x_i| = 1, noise, and a tenth of outliers."""

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        x = random.standard_normal((_ROWS, DIM))
        self.x: npt.NDArray[np.float64] = x / np.linalg.norm(x, axis=1, keepdims=True)
        self.y: npt.NDArray[np.float64] = self.x @ (2 * random.standard_normal(DIM)) / math.sqrt(DIM)
        self.y += 0.5 * random.standard_normal(_ROWS)
        self.y[: _ROWS // 10] += 10 * random.standard_normal(_ROWS // 10)
        least = min(self._descend(random.standard_normal(DIM)) for _ in range(5))
        # |phi'| is at most 3 sqrt(3) / 16, at r^2 = 1/3, and |phi''| at most 1, at 0.
        curvature = float(np.linalg.eigvalsh(self.x.T @ self.x / _ROWS).max())
        super().__init__(L=curvature, V=3 * math.sqrt(3) / 16, gap=self.value(np.zeros(DIM)) - least)

    def value(self, u: npt.NDArray[Any]) -> float:
        """What f is at u."""
        r = self.x @ u - self.y
        return float(np.mean(r**2 / (2 + 2 * r**2)))

    def gradient(self, u: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Of f, exactly."""
        r = self.x @ u - self.y
        return self.x.T @ (r / (1 + r**2) ** 2) / _ROWS

    def row_gradient(self, i: int, u: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Of the i-th summand."""
        r = self.x[i] @ u - self.y[i]
        return self.x[i] * (r / (1 + r * r) ** 2)

    def _descend(self, u: npt.NDArray[np.float64]) -> float:
        for _ in range(2000):
            u = u - 3.0 * self.gradient(u)
        return self.value(u)


class Row(Problem):
    """The gradient of one row, drawn at random."""

    def __init__(self, f: RobustRegression, seed: Sequence[int]) -> None:
        self._f = f
        self._random = np.random.default_rng(seed)
        self._rows: list[int] = []

    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> Any:
        """See `Problem`."""
        if not self._rows:
            self._rows = self._random.integers(_ROWS, size=1000).tolist()
        return self._f.row_gradient(self._rows.pop(), u_hat)

    def report(self) -> Mapping[str, Any]:
        """See `Problem`."""
        return {}

    def close(self) -> None:
        """See `Problem`."""
        pass


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A run; as many nodes as M."""

    T: int
    M: int
    p: int
    B: int

    @property
    def product(self) -> int:
        """T M p B: gradients behind the last v."""
        return self.T * self.M * self.p * self.B
