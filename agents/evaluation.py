"""How well a policy plays: whole games, each counted once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

#: uint8 observations [num_envs, 4, 84, 84] to int64 actions [num_envs].
Act = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.int64]]


class PlayedGame(Protocol):
    """One whole game, as environments report it."""

    @property
    def score(self) -> float:
        """Sum of the unclipped rewards."""

    @property
    def agent_steps(self) -> int:
        """Actions in it."""

    @property
    def env(self) -> int:
        """Which environment played it."""

    @property
    def capped(self) -> bool:
        """Whether the frame cap ended it."""


class EvaluationStep(Protocol):
    """What evaluation reads of a step."""

    @property
    def obs(self) -> npt.NDArray[np.uint8]:
        """[num_envs, 4, 84, 84]."""

    @property
    def games(self) -> Sequence[PlayedGame]:
        """Games that ended in this step."""


class Environments(Protocol):
    """What evaluation needs of environments. Every game in them must end, by a cap if not by itself."""

    @property
    def num_envs(self) -> int:
        """Games played at a time."""

    def reset(self, seed: int | None = None) -> npt.NDArray[np.uint8]:
        """New games: environment i with ``seed + i``."""

    def step(self, actions: npt.NDArray[np.int64]) -> EvaluationStep:
        """One action in each."""


#: Told of each game as it ends: its index in 0 .. games - 1, and the game.
OnGame = Callable[[int, PlayedGame], None]


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of whole games and what they come to."""

    games: int
    mean: float
    median: float
    std: float
    """Of one game's score: the sample's, divided by games - 1; 0 for a single game."""
    min: float
    max: float
    scores: tuple[float, ...]
    """In the order of the games' seeds."""
    agent_steps: int
    """Actions in all games together."""
    capped: int
    """Games that the frame cap ended."""


def evaluate(act: Act, envs: Environments, games: int, *, seed: int, on_game: OnGame | None = None) -> Scores:
    """Play `games` whole games.

    Games are played in blocks of `num_envs`, one for each environment, game k with ``seed + k``. Which games count is
    settled before they are played: taking the first that end instead would favour short ones. So for a policy that
    looks at nothing but the observation, the result does not depend on `num_envs`.

    Args:
        act: The policy.
        envs: They are reset at each block. A large `num_envs` is quick; an environment that has finished its
            game plays on, uncounted, until its block has.
        games: How many, at least 1.
        seed: Of the first game.
        on_game: Told of each game as it ends.
    """
    assert games >= 1, games
    played: dict[int, PlayedGame] = {}
    for first in range(0, games, envs.num_envs):
        waiting = set(range(first, min(first + envs.num_envs, games)))
        obs = envs.reset(seed=seed + first)
        while waiting:
            step = envs.step(act(obs))
            obs = step.obs
            for game in step.games:
                index = first + game.env
                if index in waiting:
                    waiting.remove(index)
                    played[index] = game
                    if on_game is not None:
                        on_game(index, game)
    in_order = [played[index] for index in range(games)]
    return summarise(
        [game.score for game in in_order],
        agent_steps=sum(game.agent_steps for game in in_order),
        capped=sum(game.capped for game in in_order),
    )


def summarise(scores: Sequence[float], *, agent_steps: int = 0, capped: int = 0) -> Scores:
    """Statistics of scores, at least one of them.

    Args:
        scores: Of whole games.
        agent_steps: Actions in all of them together.
        capped: How many the frame cap ended.
    """
    assert len(scores) > 0, "no game was played"
    values = np.asarray(scores, np.float64)
    return Scores(
        games=len(scores),
        mean=float(values.mean()),
        median=float(np.median(values)),
        std=float(values.std(ddof=1)) if len(scores) > 1 else 0.0,
        min=float(values.min()),
        max=float(values.max()),
        scores=tuple(values.tolist()),
        agent_steps=agent_steps,
        capped=capped,
    )
