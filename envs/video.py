"""One whole game as a video, in the colours and shapes of the screen rather than the agent's 84x84 grey.

The game is played twice at once with the same seed and actions: by the environments the agent always sees, and by
one more emulator that gives the colours. Emulators are deterministic, so the video shows exactly the game that an
evaluation with that seed plays, no-op start and sticky actions included.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from hsa2c.envs.atari import AtariEnvs, GameResult, open_native, screen_size
from hsa2c.envs.emulators import FRAMES_PER_AGENT_STEP
from hsa2c.envs.film import Image, check_recordable, film
from hsa2c.envs.names import Game
from hsa2c.envs.settings import EnvConfig
from hsa2c.errors import HSA2CError

#: The console's 60 frames/s, one image for each agent step: real time.
IMAGES_PER_S = 60 / FRAMES_PER_AGENT_STEP

#: Side of the square that a screen pixel becomes. Even, because MP4 keeps one colour for each 2x2 pixels.
SCALE = 2

Act = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.int64]]


def record(game: Game, config: EnvConfig, act: Act, path: Path, *, seed: int) -> GameResult:
    """Play one whole game and write it to `path`, which appears only when it is complete.

    Args:
        game: Which one.
        config: How it is played; its frame cap bounds the video too.
        act: uint8 observations [1, 4, 84, 84] to int64 actions [1].
        path: Ends in .mp4 or .gif; an existing file is replaced.
        seed: Of the game.

    Returns:
        What was played.

    Raises:
        ConfigError: The suffix is another, the extra ``video`` is not installed, or `path` cannot be written.
        HSA2CError: The video writer failed.
    """
    check_recordable(path)
    with AtariEnvs(game, config, 1, seed=seed) as envs, _ColourScreen(game, config) as screen:
        obs = envs.reset()
        first = screen.reset(seed)
        with film(path, first, images_per_s=IMAGES_PER_S, enlarge=SCALE) as write:
            while True:
                actions = act(obs)
                step = envs.step(actions)
                image, over = screen.step(actions)
                if over != bool(step.games):
                    raise HSA2CError(f"{path}: the two emulators of the video no longer play the same game")
                write(image)
                if over:
                    return step.games[0]
                obs = step.obs


class _ColourScreen:
    """The emulator that gives the colours: images [height, 160, 3], max-pooled over the last two frames.

    Without the pooling, what a game draws in every other frame only would be missing from each image or from none.
    """

    def __init__(self, game: Game, config: EnvConfig) -> None:
        height, width = screen_size(game)
        self._native = open_native(
            game, config, 1, img_height=height, img_width=width, grayscale=False, stack_num=1, maxpool=True
        )

    def reset(self, seed: int) -> Image:
        """The first image of a new game."""
        obs, _ = self._native.reset(seed=seed)
        return obs[0, 0]  # type: ignore[no-any-return]

    def step(self, actions: npt.NDArray[np.int64]) -> tuple[Image, bool]:
        """The next image, and whether the game is over."""
        obs, _, terminated, truncated, _ = self._native.step(actions)
        return obs[0, 0], bool(terminated[0] or truncated[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        del self._native
