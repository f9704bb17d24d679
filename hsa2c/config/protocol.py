"""What the runtime needs of any application's configuration: sections that all of them have."""

from __future__ import annotations

from typing import Protocol

from hsa2c.config.sections import ClusterConfig, DPSGDConfig, OutputConfig


class RateConfig(Protocol):
    """What the master's monitor needs of the local optimiser's section; `hsa2c.config.sections.OptimiserConfig` says
    more.
    """

    @property
    def learning_rate(self) -> float | None:
        """Local learning rate at the start; None: the application's tracker reports it, as ``rate/eta``."""

    @property
    def half_after(self) -> float | None:
        """Work of a node after which it has fallen to a half."""

    @property
    def anneal(self) -> bool:
        """Fall to 0 at the run's limit."""


class LimitConfig(Protocol):
    """What the runtime needs of the section on when to stop."""

    @property
    def minutes(self) -> float | None:
        """Wall-clock of training."""


class RunConfig(Protocol):
    """The sections every application's configuration has."""

    @property
    def seed(self) -> int:
        """Seed of everything random."""

    @property
    def cluster(self) -> ClusterConfig:
        """Who computes."""

    @property
    def dpsgd(self) -> DPSGDConfig:
        """Algorithm 1 and 2."""

    @property
    def optimiser(self) -> RateConfig:
        """Line 6."""

    @property
    def stop(self) -> LimitConfig:
        """When to end."""

    @property
    def output(self) -> OutputConfig:
        """What is written, and where."""
