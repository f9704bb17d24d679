"""How a score is measured. A score without its protocol says little, so `describe` is printed beside every one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from hsa2c.config.sections import STRICT
from hsa2c.envs.settings import EnvConfig, MaxFrames, NoopMax, Probability


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluationProtocol:
    """Whole games, all lives, unclipped score. The defaults are those of Mnih et al. 2015 but for the sampling."""

    games: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Games to play, each with a seed of its own."""

    greedy: bool = False
    """Take the likeliest action instead of sampling one."""

    sticky_actions: Probability = 0.0
    """As `EnvConfig.sticky_actions`. 0: the paper; 0.25: ALE v5."""

    noop_max: NoopMax = 30
    """As `EnvConfig.noop_max`."""

    fire_reset: bool = True
    """As `EnvConfig.fire_reset`."""

    max_frames: MaxFrames = 108_000
    """As `EnvConfig.max_frames`. A game cut off counts with the score it has."""

    full_action_set: bool = False
    """As `EnvConfig.full_action_set`; must be what the agent was trained with."""

    seed: Annotated[int, Field(ge=0, le=2_000_000_000)] = 1000
    """Game k is played with seed + k."""

    def describe(self, capped: int = 0) -> str:
        """The protocol in one line.

        Args:
            capped: How many of the games the frame cap has ended: they were not whole.
        """
        whole = "" if capped else "whole "
        parts = [
            f"{self.games} {whole}game{'s' if self.games != 1 else ''}",
            f"{capped} of them cut off by the cap" if capped else "",
            "raw score",
            f"up to {self.noop_max} no-ops" if self.noop_max else "no no-ops",
            "FIRE at the start" if self.fire_reset else "",
            f"sticky actions {self.sticky_actions:g}",
            f"{'greedy' if self.greedy else 'sampled'} actions",
            "all 18 actions" if self.full_action_set else "",
            f"{self.max_frames:,}-frame cap",
            f"seed {self.seed}",
        ]
        return ", ".join(part for part in parts if part)

    def env_config(self) -> EnvConfig:
        """The environments to play in."""
        return EnvConfig(
            sticky_actions=self.sticky_actions,
            life_loss_episodes=False,
            full_action_set=self.full_action_set,
            noop_max=self.noop_max,
            fire_reset=self.fire_reset,
            clip_rewards=False,
            max_frames=self.max_frames,
        )
