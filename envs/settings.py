"""Settings of an Atari environment: what changes the game an agent learns."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from hsa2c.config.sections import STRICT

Probability = Annotated[float, Field(ge=0, le=1)]
NoopMax = Annotated[int, Field(ge=0, le=1000)]
MaxFrames = Annotated[int, Field(ge=1, le=1_000_000_000)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EnvConfig:
    """One game as the agent sees it: 84x84 grey, 4 frames stacked, each action held for 4 frames."""

    sticky_actions: Probability = 0.0
    """Chance, each frame, that the emulator repeats the action of the frame before. 0: the paper; 0.25: ALE v5
    (Machado et al. 2018, section 5.2)."""

    life_loss_episodes: bool = True
    """A lost life ends the episode for learning (Mnih et al. 2015). The game goes on, and the score is still
    that of the whole game."""

    full_action_set: bool = False
    """All 18 joystick actions instead of the game's own few."""

    noop_max: NoopMax = 30
    """Most frames without action before the agent's first, drawn uniformly from 0..noop_max (Mnih et al. 2015)."""

    fire_reset: bool = True
    """Press FIRE for one frame as a game starts, where the game has that action. It counts as one of the no-ops. Not
    after a lost life: the agent has to learn that."""

    clip_rewards: bool = True
    """Learn from the sign of the reward (Mnih et al. 2015). Scores are never clipped."""

    max_frames: MaxFrames = 108_000
    """Frames of play after which a game is cut off: 30 minutes at 60 frames/s."""
