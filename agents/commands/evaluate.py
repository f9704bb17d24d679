"""``python evaluate.py``: a checkpoint plays whole games; its scores, with the protocol they were measured by."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path
from typing import Any

from hsa2c.agents.commands.chosen import add_choice, read
from hsa2c.agents.playing import Trained, play
from hsa2c.commands.files import replacing
from hsa2c.commands.options import OneLineParser, guarded
from hsa2c.errors import CheckpointError
from hsa2c.run.checkpoint import Checkpoint

PROG = "evaluate.py"

_DESCRIPTION = """Let a trained agent play whole games, and print its scores with the protocol they were measured by.

Of a run, the best checkpoint plays if there is one, else the newest."""


def parser(prog: str = PROG) -> OneLineParser:
    """The command line."""
    p = OneLineParser(prog, _DESCRIPTION)
    p.set_defaults(prog=prog)
    add_choice(p)
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
    checkpoint, path = read(options, unit="games")
    result = _play(options, path, checkpoint)
    if options.json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


def _play(options: argparse.Namespace, path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    if checkpoint.identity.get("application") != "hsa2c":
        raise CheckpointError(f"{path}: is of {checkpoint.identity.get('application')!r}, not of an Atari agent")
    trained = Trained(
        game=checkpoint.identity["game"],
        network=checkpoint.identity.get("network"),
        pixels=checkpoint.config["agent"].get("pixels", "raw"),  # as it was before there was a choice
        env=checkpoint.config["env"],
        v=checkpoint.v,
    )
    begin = time.perf_counter()
    with contextlib.ExitStack() as stack:
        if options.video:
            stack.enter_context(replacing(options.prog, options.video))
        result = play(
            trained,
            games=options.games,
            greedy=options.greedy,
            sticky=options.sticky,
            seed=options.seed,
            video=options.video,
        )
    about = {
        "checkpoint": str(path),
        "trained_agent_steps": checkpoint.counters.get("agent_steps"),
        "seconds": round(time.perf_counter() - begin, 1),
    }
    last = {key: result.pop(key) for key in ("scores", "video") if key in result}
    return result | about | last


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
