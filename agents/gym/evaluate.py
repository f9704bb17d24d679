"""``python evaluate.py`` for an agent in any environment: a checkpoint plays whole episodes."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path

from hsa2c.agents.commands.chosen import add_choice, read
from hsa2c.agents.gym.application import APPLICATION
from hsa2c.commands.files import replacing
from hsa2c.commands.options import OneLineParser, add_trust, guarded
from hsa2c.run.hub import settings_of_same

PROG = "evaluate.py"


def parser(prog: str = PROG) -> OneLineParser:
    """The command line."""
    p = OneLineParser(prog, "Let a trained agent play whole episodes, and print its scores.")
    p.set_defaults(prog=prog)
    add_choice(p)
    p.add_argument("--games", "--episodes", type=int, default=30, metavar="N", help="whole episodes to play (30)")
    p.add_argument("--greedy", action="store_true", help="take the likeliest action instead of sampling")
    p.add_argument("--seed", type=int, default=1000, help="episode k begins with seed + k (1000)")
    p.add_argument("--video", type=Path, metavar="FILE", help="record an episode: out.mp4 or out.gif")
    add_trust(p)
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
    checkpoint, path = read(options, unit="episodes")
    config = settings_of_same(APPLICATION, checkpoint, path, trusted=options.trust_code)
    with contextlib.ExitStack() as stack:
        if options.video:
            stack.enter_context(replacing(options.prog, options.video))
        how = {"games": options.games, "greedy": options.greedy, "seed": options.seed, "video": options.video}
        result = APPLICATION.evaluate(config, checkpoint.v, **how)
    result["checkpoint"] = str(path)
    result["trained_agent_steps"] = checkpoint.counters.get("agent_steps")
    if options.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            if key != "scores":
                print(f"{key.replace('_', ' '):20} {value:,.1f}" if isinstance(value, float) else f"{key:20} {value}")
    return 0
