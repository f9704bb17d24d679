"""Small problems with known gradients, for every test of the core."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


class Analytic:
    """A problem whose gradient is a formula; counts its gradients."""

    def __init__(self, formula: Callable[[torch.Tensor], torch.Tensor], *, seconds: float = 0.0) -> None:
        self._formula = formula
        self._seconds = seconds
        self._updates = 0

    def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor | None:
        time.sleep(self._seconds)
        self._updates += 1
        return self._formula(u_hat)

    def report(self) -> Mapping[str, Any]:
        updates, self._updates = self._updates, 0
        return {"updates": updates}

    def close(self) -> None:
        pass


def quadratic(target: torch.Tensor, curvature: torch.Tensor | float = 1.0, **options: Any) -> Analytic:
    """f(u) = sum_k c_k (u_k - target_k)^2 / 2, with gradient c_k (u_k - target_k)."""
    return Analytic(lambda u: curvature * (u - target), **options)


def double_well(**options: Any) -> Analytic:
    """f(u) = sum_k (u_k^2 - 1)^2 / 4, not convex: minima at -1 and 1, a maximum at 0."""
    return Analytic(lambda u: u**3 - u, **options)
