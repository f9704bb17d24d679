"""An agent plays whole games, by a stated protocol: for the command that evaluates, and from Python."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsa2c.agents.settings import network_identity
from hsa2c.cluster.machine import cores
from hsa2c.config.loading import build
from hsa2c.envs.actions import num_actions
from hsa2c.envs.names import Game, resolve_game
from hsa2c.envs.protocol import EvaluationProtocol
from hsa2c.envs.published import PUBLISHED, human_normalised
from hsa2c.errors import CheckpointError
from hsa2c.streams import console

if TYPE_CHECKING:
    from hsa2c.agents.evaluation import Act, Scores
    from hsa2c.agents.policy import Policy
    from hsa2c.agents.settings import Pixels

_MOST_ENVS = 32  # games played side by side; more gain nothing
_TELL_EVERY_S = 10.0  # without a terminal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """What a checkpoint says of an agent."""

    game: str
    network: str | None
    """Its identity (`hsa2c.agents.settings.network_identity`)."""
    pixels: Pixels
    env: Mapping[str, Any]
    """What it was trained in, as plain values (`hsa2c.envs.settings.EnvConfig`)."""
    v: NDArray[np.float32]


def play(
    trained: Trained,
    *,
    games: int,
    greedy: bool,
    sticky: float,
    seed: int,
    video: Path | None = None,
    beside_training: bool = False,
) -> dict[str, Any]:
    """Scores of whole games, with the protocol that they were measured by.

    Args:
        trained: The agent.
        games: How many.
        greedy: Take the likeliest action instead of sampling one.
        sticky: Chance of a repeated action.
        seed: Game k is played with seed + k.
        video: Record a game to this file.
        beside_training: The emulators have one thread, and nothing is shown.

    Raises:
        ConfigError: A value is out of range, or the network does not fit the game.
    """
    inherited = {key: trained.env[key] for key in ("noop_max", "fire_reset", "max_frames", "full_action_set")}
    own = {"games": games, "greedy": greedy, "sticky_actions": sticky, "seed": seed}
    protocol = build(EvaluationProtocol, own | inherited)
    game = resolve_game(trained.game)
    if video is not None:
        from hsa2c.envs.film import check_recordable

        check_recordable(video)
    scores = _scores_beside(protocol, game, trained) if beside_training else _scores(protocol, game, trained)
    result = _told(protocol, game, scores)
    return result if video is None else result | {"video": _record(video, protocol, game, trained)}


def _told(protocol: EvaluationProtocol, game: Game, scores: Scores) -> dict[str, Any]:
    published = PUBLISHED.get(game.name)
    return {
        "game": game.name,
        **{key: value for key, value in dataclasses.asdict(scores).items() if key != "scores"},
        "human_normalised": human_normalised(game.name, scores.mean),
        "random": published and published.random,
        "human": published and published.human,
        "protocol": protocol.describe(scores.capped),
        "scores": list(scores.scores),
    }


def policy(trained: Trained, *, greedy: bool, seed: int) -> Policy:
    """The agent, to be asked for actions.

    Raises:
        CheckpointError: Its network does not fit the game.
    """
    import torch

    from hsa2c.agents.policy import Policy

    game = resolve_game(trained.game)
    actions = num_actions(game, full_action_set=trained.env["full_action_set"])
    needed = network_identity(actions, trained.pixels)
    if trained.network != needed:
        raise CheckpointError(f"the checkpoint has the network {trained.network!r}, the game needs {needed!r}")
    # One thread: several gain little on so small a network, and on a busy machine they wait for each other.
    torch.set_num_threads(1)
    return Policy(trained.v, actions, pixels=trained.pixels, greedy=greedy, seed=seed)


def _scores(protocol: EvaluationProtocol, game: Game, trained: Trained) -> Scores:
    from hsa2c.agents.evaluation import evaluate
    from hsa2c.envs.atari import AtariEnvs

    num_envs = min(protocol.games, _MOST_ENVS)
    with (
        _Progress(game.name, protocol.games) as progress,
        AtariEnvs(game, protocol.env_config(), num_envs, seed=protocol.seed, num_threads=cores()) as envs,
    ):
        act = progress.monitoring(policy(trained, greedy=protocol.greedy, seed=protocol.seed))
        return evaluate(act, envs, protocol.games, seed=protocol.seed, on_game=progress.game_ended)


def _scores_beside(protocol: EvaluationProtocol, game: Game, trained: Trained) -> Scores:
    from hsa2c.agents.evaluation import evaluate
    from hsa2c.envs.atari import AtariEnvs

    num_envs = min(protocol.games, _MOST_ENVS)
    with AtariEnvs(game, protocol.env_config(), num_envs, seed=protocol.seed, num_threads=1) as envs:
        act = policy(trained, greedy=protocol.greedy, seed=protocol.seed)
        return evaluate(act, envs, protocol.games, seed=protocol.seed)


class _Progress:
    """How far the games are, on stderr: live on a terminal, elsewhere a line now and then; one game may take long."""

    def __init__(self, game: str, games: int) -> None:
        from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._game, self._games = game, games
        self._ended = self._agent_steps = 0
        self._began_at = self._told_at = time.monotonic()
        self._terminal = sys.stderr.isatty()
        columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
        self._live = Progress(*columns, console=console(stderr=True), transient=True, disable=not self._terminal)
        self._task = self._live.add_task(f"{game}, games", total=games)

    def __enter__(self) -> _Progress:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def monitoring(self, act: Act) -> Act:
        """The same policy; each of its actions is counted."""

        def act_and_tell(obs: Any) -> Any:
            self._agent_steps += len(obs)
            if not self._terminal and time.monotonic() - self._told_at >= _TELL_EVERY_S:
                self._tell()
            return act(obs)

        return act_and_tell

    def game_ended(self, *_: object) -> None:
        """One more."""
        self._ended += 1
        self._live.advance(self._task)

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        took = f"{self._agent_steps:,} agent steps in {self._told_at - self._began_at:.0f} s"
        print(f"{self._game}: {self._ended} of {self._games} games have ended, {took}", file=sys.stderr, flush=True)


def _record(path: Path, protocol: EvaluationProtocol, game: Game, trained: Trained) -> dict[str, Any]:
    """Record a game; with sampled actions it is one more game, played by the same protocol and first seed."""
    from hsa2c.envs.video import record

    actor = policy(trained, greedy=protocol.greedy, seed=protocol.seed)
    played = record(game, protocol.env_config(), actor, path, seed=protocol.seed)
    return {"file": str(path), "score": played.score}
