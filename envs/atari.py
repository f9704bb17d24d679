"""Many copies of one Atari game, stepped together by ALE's native vector environment or by `hsa2c.envs.emulators`.

Pre-processing is native code and that of Mnih et al. 2015: each action is held for 4 frames, the last two are
max-pooled, made grey and reduced to 84x84, and the 4 newest such images are one observation (black before the game's
first). It equals gymnasium's `AtariPreprocessing` and `FrameStackObservation` to the pixel; a test holds it to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from hsa2c.envs import roms
from hsa2c.envs.actions import num_actions
from hsa2c.envs.emulators import FRAMES_PER_AGENT_STEP, SCREEN, STACK, Emulators
from hsa2c.envs.names import Game
from hsa2c.envs.settings import EnvConfig
from hsa2c.errors import ConfigError

if TYPE_CHECKING:
    from ale_py.vector_env import AtariVectorEnv

#: Seeds go to the emulator as signed 32-bit numbers; a negative one would mean "none".
MAX_SEED = 2**31 - 1


class GameResult(NamedTuple):
    """One whole game, all its lives."""

    score: float
    """Sum of the unclipped rewards."""

    agent_steps: int
    """Actions of the agent in it."""

    frames: int
    """Emulator frames of play, the no-op start left out."""

    env: int = 0
    """Which of the environments played it."""

    capped: bool = False
    """Cut off at `EnvConfig.max_frames`."""


class Step(NamedTuple):
    """What one action in each environment led to. The arrays are the caller's to keep."""

    obs: npt.NDArray[np.uint8]
    """[num_envs, 4, 84, 84], newest image last. At the end of an episode: its last observation."""

    reward: npt.NDArray[np.float32]
    """[num_envs]: -1, 0 or 1 where rewards are clipped; 0 where not valid."""

    terminated: npt.NDArray[np.bool_]
    """[num_envs]: the episode ended by the game's rules; nothing follows, so no bootstrap value."""

    truncated: npt.NDArray[np.bool_]
    """[num_envs]: cut off at the frame cap; bootstrap from `obs`. Never together with terminated."""

    valid: npt.NDArray[np.bool_]
    """[num_envs]: False where a new game was started instead of taking the action: nothing to learn from."""

    games: tuple[GameResult, ...]
    """Whole games that ended in this step."""


class AtariEnvs:
    """`num_envs` copies of one game.

    A game that has ended stays on its last observation; the next action in that environment is ignored, the
    step is not `valid` and its `obs` is the first of a new game ("next-step" autoreset).

    Environment i is seeded with ``seed + i``: its no-op starts and sticky actions. Equal seeds and actions give equal
    games, whatever `num_envs` and `num_threads` are.

    The emulators run in threads that do not survive a fork: make the object in the process that uses it. With
    `in_thread` they run in the caller's thread, and a process has those that were loaded before it was forked.

    Attributes:
        num_envs: Games that are played.
        start_frame: Emulator frame at which each game began, that is no-ops played before, int32 [num_envs]; from the
            first `reset` on.
    """

    def __init__(
        self,
        game: Game,
        config: EnvConfig,
        num_envs: int,
        *,
        seed: int,
        num_threads: int = 1,
        in_thread: bool = False,
    ) -> None:
        """Load the game.

        Args:
            game: Which one.
            config: How it is played.
            num_envs: Copies.
            seed: Of the first copy.
            num_threads: Native threads beside the caller's, which sleeps meanwhile.
            in_thread: Play in the caller's thread, and in no other.

        Raises:
            ConfigError: The seed is out of range, or the ROM is missing or damaged.
        """
        self.num_envs = num_envs
        self._seed = _checked_seed(seed, num_envs)
        self.num_actions = num_actions(game, full_action_set=config.full_action_set)
        self._native: AtariVectorEnv | Emulators | None = (
            Emulators(game, config, num_envs) if in_thread else open_native(game, config, num_envs, num_threads)
        )
        self._clip_rewards = config.clip_rewards
        self._life_loss_episodes = config.life_loss_episodes
        self._in_flight = False

    def reset(self, seed: int | None = None) -> npt.NDArray[np.uint8]:
        """Start a new game everywhere; unfinished ones are dropped and counted nowhere.

        Args:
            seed: Of the first environment. None: the constructor's, so that the same games begin again.

        Returns:
            uint8 [num_envs, 4, 84, 84].

        Raises:
            ConfigError: The seed is out of range.
        """
        assert not self._in_flight, "reset between send and recv"
        obs, info = self._open.reset(seed=self._seed if seed is None else _checked_seed(seed, self.num_envs))
        self._lives = info["lives"]
        self.start_frame = info["episode_frame_number"].copy()
        self._score = np.zeros(self.num_envs, np.int64)
        # A game's agent steps are this clock's now less its then: nothing is added up for each environment.
        self._clock = 0
        self._start_clock = np.zeros(self.num_envs, np.int64)
        self._playing = np.ones(self.num_envs, np.bool_)
        self._all_playing = True
        return obs

    def step(self, actions: npt.NDArray[np.int64]) -> Step:
        """Take one action, of 4 frames, in every environment: `send` and `recv`."""
        self.send(actions)
        return self.recv()

    def send(self, actions: npt.NDArray[np.int64]) -> None:
        """Hand out the actions, int64 [num_envs], and return while the emulators run.

        Raises:
            ValueError: An action is none of 0 .. num_actions - 1.
        """
        assert not self._in_flight, "send before recv of the actions before"
        # Needed: an emulator thread that meets such an action stops, and recv would wait for ever.
        if actions.min() < 0 or actions.max() >= self.num_actions:
            raise ValueError(f"actions {actions.tolist()}: each must be 0 to {self.num_actions - 1}")
        self._open.send(actions)
        self._in_flight = True

    def recv(self) -> Step:
        """Wait for the actions sent last, and say what they led to."""
        assert self._in_flight, "recv before send"
        obs, raw_reward, game_over, capped, info = self._open.recv()
        self._in_flight = False
        self._clock += 1
        valid = self._playing
        if not self._all_playing:
            self._note_new_games(~valid, info["episode_frame_number"])
        self._score += raw_reward

        ended = game_over | capped
        terminated = game_over
        if self._life_loss_episodes:
            # The library's own episodic_life starts a new game at every lost life, so later lives would never be
            # seen; and its life_loss_info does not tell a lost life from the end of the game. Hence this.
            lives = info["lives"]
            terminated = game_over | ((lives < self._lives) & (lives > 0) & valid)
            capped &= ~terminated
            self._lives = lives
        self._playing = ~ended
        self._all_playing = not ended.any()
        games = () if self._all_playing else self._finish_games(ended, game_over, info["episode_frame_number"])
        reward = (np.sign(raw_reward) if self._clip_rewards else raw_reward).astype(np.float32)
        return Step(obs, reward, terminated, capped, valid, games)

    def close(self) -> None:
        """End the emulators and their threads. A second call does nothing."""
        self._native = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _open(self) -> AtariVectorEnv | Emulators:
        assert self._native is not None, "used after close"
        return self._native

    def _note_new_games(self, new: npt.NDArray[np.bool_], frame: npt.NDArray[np.int32]) -> None:
        """Remember where the games that started in this step begin."""
        self.start_frame[new] = frame[new]
        self._start_clock[new] = self._clock
        self._score[new] = 0

    def _finish_games(
        self, ended: npt.NDArray[np.bool_], game_over: npt.NDArray[np.bool_], frame: npt.NDArray[np.int32]
    ) -> tuple[GameResult, ...]:
        """The games that ended in this step."""
        return tuple(
            GameResult(
                score=float(self._score[env]),
                agent_steps=self._clock - int(self._start_clock[env]),
                frames=int(frame[env] - self.start_frame[env]),
                env=int(env),
                capped=not game_over[env],
            )
            for env in np.flatnonzero(ended)
        )


def open_native(game: Game, config: EnvConfig, num_envs: int, num_threads: int = 1, **pixels: Any) -> AtariVectorEnv:
    """ALE's vector environment with this configuration and unclipped rewards.

    Args:
        game: Which one.
        config: How it is played; what is only about learning is left to the caller.
        num_envs: Copies.
        num_threads: Native threads.
        pixels: What differs from 84x84 grey, 4 stacked.

    Raises:
        ConfigError: The ROM is missing or damaged.
    """
    from ale_py.vector_env import AtariVectorEnv

    assert num_envs >= 1, num_envs
    with roms.reading(game):
        return AtariVectorEnv(
            game.rom,
            num_envs,
            num_threads=num_threads,
            max_num_frames_per_episode=config.max_frames,
            repeat_action_probability=config.sticky_actions,
            full_action_space=config.full_action_set,
            # The library draws from 0 .. noop_max - 1.
            noop_max=config.noop_max + 1,
            use_fire_reset=config.fire_reset,
            reward_clipping=False,
            **{"img_height": SCREEN, "img_width": SCREEN, "stack_num": STACK} | pixels,
            frameskip=FRAMES_PER_AGENT_STEP,
        )


def screen_size(game: Game) -> tuple[int, int]:
    """Height and width of the game's own screen: 210x160 for most, more rows for those made for European television.

    Raises:
        ConfigError: The ROM is missing or damaged.
    """
    height, width = roms.preload(game, 1)[0].getScreenDims()
    return height, width


def _checked_seed(seed: int, num_envs: int) -> int:
    """`seed`, if every environment can have its own."""
    if not 0 <= seed <= MAX_SEED - num_envs:
        raise ConfigError(f"seed = {seed}: must be 0 to {MAX_SEED - num_envs} with {num_envs} environments")
    return seed
