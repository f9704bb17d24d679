"""``python evaluate.py``: a checkpoint plays whole games; its scores, with the protocol they were measured by."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsa2c.commands.files import replacing
from hsa2c.commands.options import OneLineParser, guarded, tell_skipped
from hsa2c.config.loading import build
from hsa2c.errors import CheckpointError, ConfigError
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.checkpoint import Checkpoint
from hsa2c.streams import console

if TYPE_CHECKING:
    from hsa2c.agents.evaluation import Act

PROG = "evaluate.py"
_MOST_ENVS = 32  # games played side by side; more gain nothing
_TELL_EVERY_S = 10.0  # without a terminal

_DESCRIPTION = """Let a trained agent play whole games, and print its scores with the protocol they were measured by.

Of a run, the best checkpoint plays if there is one, else the newest."""


def parser(prog: str = PROG) -> OneLineParser:
    """The command line."""
    p = OneLineParser(prog, _DESCRIPTION)
    p.set_defaults(prog=prog)
    p.add_argument("target", metavar="RUN_OR_CHECKPOINT", type=Path, help="run directory or .safetensors file")
    which = p.add_mutually_exclusive_group()
    which.add_argument("--best", action="store_true", help="the best checkpoint of the run; an error if it has none")
    which.add_argument("--newest", action="store_true", help="the newest checkpoint of the run")
    p.add_argument("--games", type=int, default=30, metavar="N", help="whole games to play (30)")
    p.add_argument("--greedy", action="store_true", help="take the likeliest action instead of sampling")
    p.add_argument(
        "--sticky", type=float, default=0.0, metavar="P", help="chance of a repeated action; ALE v5: 0.25 (0)"
    )
    p.add_argument("--seed", type=int, default=1000, help="game k is played with seed + k (1000)")
    p.add_argument("--video", type=Path, metavar="FILE", help="record the first game: out.mp4 or out.gif")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    return p


def main(arguments: list[str] | None = None, *, prog: str = PROG) -> int:
    """Run the command; gives back the exit code: 0 done, 2 bad input, 130 Ctrl-C.

    Args:
        arguments: What was typed; None: this process's.
        prog: The command's name.
    """
    options = parser(prog).parse_args(arguments)
    return guarded(prog, lambda: _evaluate(options))


def _evaluate(options: argparse.Namespace) -> int:
    checkpoint, path = _which(options)
    result = _play(options, path, checkpoint)
    if options.json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


def _which(options: argparse.Namespace) -> tuple[Checkpoint, Path]:
    checkpoint, path, skipped = checkpoints.read(options.target, prefer="newest" if options.newest else "best")
    tell_skipped(options.prog, skipped)
    if options.best and options.target.is_dir() and path.name != "best.safetensors":
        raise CheckpointError(f"{options.target}: has no best checkpoint yet (it takes 100 games)")
    return checkpoint, path


def _play(options: argparse.Namespace, path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    from hsa2c.envs.names import resolve_game
    from hsa2c.envs.protocol import EvaluationProtocol
    from hsa2c.envs.published import PUBLISHED, human_normalised

    if checkpoint.identity.get("application") != "hsa2c":
        raise CheckpointError(f"{path}: is of {checkpoint.identity.get('application')!r}, not of an Atari agent")
    env = checkpoint.config["env"]
    protocol = build(
        EvaluationProtocol,
        {
            "games": options.games,
            "greedy": options.greedy,
            "sticky_actions": options.sticky,
            "seed": options.seed,
            **{key: env[key] for key in ("noop_max", "fire_reset", "max_frames", "full_action_set")},
        },
    )
    game = resolve_game(checkpoint.identity["game"])
    if options.video:
        from hsa2c.envs.video import check_recordable

        check_recordable(options.video)
    begin = time.perf_counter()
    scores = _scores(protocol, game, checkpoint)
    result = {
        "game": game.name,
        **{key: value for key, value in dataclasses.asdict(scores).items() if key != "scores"},
        "human_normalised": human_normalised(game.name, scores.mean),
        "random": PUBLISHED[game.name].random if game.name in PUBLISHED else None,
        "human": PUBLISHED[game.name].human if game.name in PUBLISHED else None,
        "protocol": protocol.describe(scores.capped),
        "checkpoint": str(path),
        "trained_agent_steps": checkpoint.counters.get("agent_steps"),
        "seconds": round(time.perf_counter() - begin, 1),
        "scores": list(scores.scores),
    }
    if options.video:
        result["video"] = _record(options, protocol, game, checkpoint)
    return result


def _scores(protocol: Any, game: Any, checkpoint: Checkpoint) -> Any:
    from hsa2c.agents.evaluation import evaluate
    from hsa2c.cluster.machine import cores
    from hsa2c.envs.atari import AtariEnvs

    num_envs = min(protocol.games, _MOST_ENVS)
    with (
        _Progress(game.name, protocol.games) as progress,
        AtariEnvs(game, protocol.env_config(), num_envs, seed=protocol.seed, num_threads=cores()) as envs,
    ):
        act = progress.monitoring(_policy(protocol, checkpoint, envs.num_actions))
        return evaluate(act, envs, protocol.games, seed=protocol.seed, on_game=progress.game_ended)


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


def _policy(protocol: Any, checkpoint: Checkpoint, num_actions: int) -> Any:
    import torch

    from hsa2c.agents.policy import Policy
    from hsa2c.agents.settings import network_identity

    pixels = checkpoint.config["agent"].get("pixels", "raw")  # as it was before there was a choice
    needed = network_identity(num_actions, pixels)
    if checkpoint.identity.get("network") != needed:
        raise ConfigError(
            f"the checkpoint has the network {checkpoint.identity.get('network')!r}, the game needs {needed!r}"
        )
    # One thread: several gain little on so small a network, and on a busy machine they wait for each other.
    torch.set_num_threads(1)
    return Policy(checkpoint.v, num_actions, pixels=pixels, greedy=protocol.greedy, seed=protocol.seed)


def _record(options: argparse.Namespace, protocol: Any, game: Any, checkpoint: Checkpoint) -> dict[str, Any]:
    """Record a game; with sampled actions it is one more game, played by the same protocol and first seed."""
    from hsa2c.envs.actions import num_actions
    from hsa2c.envs.video import record

    path = options.video
    actions = num_actions(game, full_action_set=protocol.full_action_set)
    with replacing(options.prog, path):
        played = record(game, protocol.env_config(), _policy(protocol, checkpoint, actions), path, seed=protocol.seed)
    return {"file": str(path), "score": played.score}


def _print(result: dict[str, Any]) -> None:
    """A line for each value: whatever its length, and the terminal's, nothing is cut."""
    normalised, trained = result["human_normalised"], result["trained_agent_steps"]
    lines = {
        "game": result["game"],
        **{key: f"{result[key]:,.1f}" for key in ("mean", "median", "std", "min", "max")},
        "human-normalised": "-" if normalised is None else f"{normalised:,.1f} %",
        "random play": "-" if result["random"] is None else f"{result['random']:,.1f} (published)",
        "protocol": result["protocol"],
        "checkpoint": result["checkpoint"] + (f" ({trained:,} agent steps of training)" if trained else ""),
    }
    if result.get("video"):
        lines["video"] = f"{result['video']['file']} (score {result['video']['score']:,g})"
    width = max(map(len, lines))
    print("\n".join(f"{name:{width}}  {value}" for name, value in lines.items()))
