"""Games in the caller's thread, in ALE's own emulators, played one after the other.

They do what ALE's native vector environment does, to the bit; a test holds them to it. But they are there sooner. The
native one loads the ROM twice for each game, to make an emulator and to give it a seed, and all before the first game
begins; its threads do not survive a fork. Here the ROM is loaded once for each game: for the first games before the
fork (`hsa2c.envs.roms.preload`), and for the others while those are played.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from ale_py import Action, ALEInterface

from hsa2c.envs import roms
from hsa2c.envs.names import Game
from hsa2c.envs.settings import EnvConfig

FRAMES_PER_AGENT_STEP = 4
SCREEN = 84
STACK = 4

_COLOURS = 4  # as many as OpenCV reduces at a time

Images = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


class Emulators:
    """What `hsa2c.envs.atari.AtariEnvs` uses of `ale_py.vector_env.AtariVectorEnv`, without threads.

    Args:
        game: Which one.
        config: How it is played.
        num_envs: Games.
    """

    def __init__(self, game: Game, config: EnvConfig, num_envs: int) -> None:
        self._game, self._config, self._num_envs = game, config, num_envs
        emulator = roms.preload(game, 1)[0]
        height, width = emulator.getScreenDims()
        self._rules = _Rules(
            actions=emulator.getLegalActionSet() if config.full_action_set else emulator.getMinimalActionSet(),
            config=config,
            third=np.empty((height, width), np.uint8),
            fourth=np.empty((height, width), np.uint8),
        )
        self.num_actions = len(self._rules.actions)

    def reset(self, *, seed: int) -> tuple[Images, dict[str, Numbers]]:
        """Start the games, in emulators that nobody has played in; see `AtariVectorEnv.reset`."""
        self._games = [_Played(self._rules, self._take(seed + i), seed + i) for i in range(self._num_envs)]
        self._images = np.zeros((self._num_envs, STACK, SCREEN, SCREEN), np.uint8)
        _show(self._games, self._images)
        self._lives = np.array([game.lives for game in self._games], np.int32)
        self._frame = np.array([game.frame for game in self._games], np.int32)
        return self._images, {"lives": self._lives, "episode_frame_number": self._frame}

    def _take(self, seed: int) -> ALEInterface:
        sticky = self._config.sticky_actions
        return roms.load(self._game, sticky_actions=sticky, seed=seed) if sticky else roms.take(self._game)

    def send(self, actions: npt.NDArray[np.int64]) -> None:
        """See `AtariVectorEnv.send`."""
        self._sent: list[int] = actions.tolist()

    def recv(self) -> tuple[Images, Numbers, Flags, Flags, dict[str, Numbers]]:
        """Play the actions sent last; see `AtariVectorEnv.recv`."""
        number = len(self._games)
        images = np.empty((number, STACK, SCREEN, SCREEN), np.uint8)
        images[:, :-1] = self._images[:, 1:]
        rewards = np.zeros(number, np.int32)
        over, capped = np.zeros(number, np.bool_), np.zeros(number, np.bool_)
        for i, (game, action) in enumerate(zip(self._games, self._sent, strict=True)):
            if game.ended:
                images[i, :-1] = 0
                game.begin()
                self._frame[i] = game.frame
            elif reward := game.act(action):
                rewards[i] = reward
            if game.ended:
                over[i], capped[i] = game.over, not game.over
                self._frame[i] = game.frame
        self._images, self._lives = images, np.array([game.lives for game in self._games], np.int32)
        _show(self._games, images)
        return images, rewards, over, capped, {"lives": self._lives, "episode_frame_number": self._frame}


def _show(games: list[_Played], images: Images) -> None:
    """Set the newest images to what the games show.

    All at once: between two games each would take half as long again. And 4 as one picture of 4 colours: OpenCV reduces
    it with the same arithmetic in four fifths of the time.
    """
    screens, newest = [game.screen for game in games], list(images[:, -1])
    for first in range(0, len(games), _COLOURS):
        some = slice(first, first + _COLOURS)
        reduced = cv2.resize(cv2.merge(screens[some]), (SCREEN, SCREEN), interpolation=cv2.INTER_AREA)
        cv2.split(reduced, newest[some])


class _Rules(NamedTuple):
    """What all games of a process share."""

    actions: list[Action]
    config: EnvConfig
    third: Images
    """Room for the screen after the third frame of an agent step, [height, width]."""
    fourth: Images


class _Played:
    """One game in its emulator, as ALE's `PreprocessedEnv` plays it (src/ale/vector/preprocessed_env.cpp).

    Attributes:
        screen: What is seen, [height, width].
        ended: It is over, or was cut off; the next action begins a new one.
        over: It has come to its own end.
        lives: Left.
    """

    __slots__ = ("_elapsed", "_emulator", "_fires", "_random", "_rules", "ended", "lives", "over", "screen")

    def __init__(self, rules: _Rules, emulator: ALEInterface, seed: int) -> None:
        self._rules, self._emulator = rules, emulator
        self._fires = rules.config.fire_reset and Action.FIRE in rules.actions
        self._random = _cpp_generator(seed)
        self.screen = np.empty_like(rules.third)
        self.begin()

    @property
    def frame(self) -> int:
        """Emulator frames since the game began, as ALE counts them."""
        return int(self._emulator.getEpisodeFrameNumber())

    def begin(self) -> None:
        """Start a new game."""
        emulator, config = self._emulator, self._rules.config
        emulator.reset_game()
        if self._fires:
            emulator.act(Action.FIRE)
        for _ in range(int(self._random.integers(0, config.noop_max + 1, dtype=np.uint32)) - self._fires):
            emulator.act(Action.NOOP)
            if emulator.game_over():
                emulator.reset_game()
        emulator.getScreenGrayscale(self.screen)
        self._elapsed = 0
        self.ended = self.over = False
        self.lives = emulator.lives()

    def act(self, action: int) -> int:
        """Take an action for 4 frames, or until the game ends; gives back the reward."""
        emulator, rules, press = self._emulator, self._rules, self._rules.actions[action]
        left = rules.config.max_frames - self._elapsed
        reward, over = 0, False
        for _ in range(min(left, 3)):
            reward += emulator.act(press)
            if over := emulator.game_over():
                break
        if left > 3 and not over:
            emulator.getScreenGrayscale(rules.third)
            reward += emulator.act(press)
            over = emulator.game_over()
            if over or left == FRAMES_PER_AGENT_STEP:  # a screen after the end is not looked at
                np.maximum(self.screen, rules.third, out=self.screen)
            else:
                emulator.getScreenGrayscale(rules.fourth)
                np.maximum(rules.third, rules.fourth, out=self.screen)
        self._elapsed += FRAMES_PER_AGENT_STEP
        self.over = over
        self.ended = over or left <= FRAMES_PER_AGENT_STEP
        self.lives = emulator.lives()
        return int(reward)


def _cpp_generator(seed: int) -> np.random.Generator:
    """C++'s std::mt19937, whose bounded 32-bit integers are drawn as libstdc++'s std::uniform_int_distribution does."""
    bits = np.random.MT19937()
    bits.state = np.random.RandomState(seed).get_state(legacy=False)  # type: ignore[assignment]
    return np.random.Generator(bits)
