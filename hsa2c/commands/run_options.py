"""The options of a run: those that every application has, and an application's own between them."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from hsa2c.commands import batch
from hsa2c.commands.options import OneLineParser, number_or_auto
from hsa2c.config.loading import assignments, parse_assignment
from hsa2c.words import CommandWords, Group, Option

_DESCRIPTION = """{}

A value comes from the command line, else from the YAML file of --config, else from the defaults.
--set reaches every field of a configuration file; the others are short for the most used ones."""

#: What every application has, unless it says otherwise.
COMMON = (
    Option(flag="--config", group="what", metavar="FILE", help="YAML file"),
    Option(flag="--resume", group="what", metavar="RUN", type=Path, help="go on with this run directory"),
    Option(
        flag="--replay", group="what", metavar="RUN", type=Path, help="repeat a recorded run serially, and compare v"
    ),
    Option(
        flag="--recompute",
        group="what",
        action="store_true",
        help="with --replay: compute each delta anew, too",
    ),
    Option(flag="--seed", group="what", field="seed", type=int, help="seed of everything random (1)"),
    Option(
        flag="--set",
        group="what",
        action="append",
        metavar="FIELD=VALUE",
        help="any field, such as output.keep_checkpoints=5",
    ),
    Option(
        flag="--nodes",
        group="who",
        field="cluster.nodes",
        type=int,
        metavar="N",
        help="nodes beside the master; MPI from 2 on (1)",
    ),
    Option(
        flag="--hosts",
        group="who",
        field="cluster.hosts",
        metavar="FILE",
        help="hosts to run on, one a line, perhaps slots=N, p=K (those of the Slurm or PBS allocation; this one)",
    ),
    Option(
        flag="--p",
        group="who",
        field="cluster.processes",
        type=int,
        help="actor-learner processes on each node (the node's share of the cores)",
    ),
    Option(
        flag="--spares",
        group="who",
        field="cluster.spares",
        type=int,
        metavar="S",
        help="nodes that wait until another is lost; MPI only (0)",
    ),
    Option(
        flag="--masters",
        group="who",
        field="cluster.masters",
        type=int,
        metavar="K",
        help="ranks that hold a slice of v each; MPI only (1)",
    ),
    Option(
        flag="--restarts",
        group="who",
        field="cluster.restarts",
        type=int,
        metavar="R",
        help="go on by itself after a failure, so many times (0)",
    ),
    Option(flag="--force", group="who", action="store_true", help="start more than this host seems to have room for"),
    Option(
        flag="--B",
        group="how",
        field="dpsgd.local_updates",
        type=number_or_auto,
        metavar="N|auto",
        help="updates of each process between two exchanges with the master; auto: by what an exchange costs (8)",
    ),
    Option(
        flag="--exchange",
        group="how",
        field="dpsgd.exchange",
        choices=("auto", "overlap", "paper", "synchronous"),
        help="stop for it, as the paper does, and wait for all nodes, or do not stop (auto)",
    ),
    Option(
        flag="--M",
        group="how",
        field="dpsgd.deltas_per_step",
        type=int,
        help="deltas in a global step (the number of nodes)",
    ),
    Option(
        flag="--delta-dtype",
        group="how",
        field="dpsgd.delta_dtype",
        metavar="TYPE",
        help="how deltas go to the master: float32, bfloat16 or int8 (float32)",
    ),
    Option(
        flag="--rho",
        group="how",
        field="dpsgd.global_rate",
        type=float,
        help="global learning rate (such that rho * M / (1 - momentum) = 1)",
    ),
    Option(flag="--momentum", group="how", field="dpsgd.momentum", type=float, help="of the global step (0)"),
    Option(flag="--lr", group="how", field="optimiser.learning_rate", type=float, help="local learning rate, eta"),
    Option(
        flag="--minutes",
        group="stop",
        field="stop.minutes",
        type=float,
        metavar="X",
        help="wall-clock of training, start-up excluded",
    ),
    Option(
        flag="--run-dir", group="output", field="output.run_dir", metavar="DIR", help="folder that holds runs (runs)"
    ),
    Option(
        flag="--name", group="output", field="output.name", help="name of this run in it (what it is, date and time)"
    ),
    Option(
        flag="--go-on",
        group="output",
        action="store_true",
        help="go on with the run of this --name if it has a checkpoint",
    ),
    Option(
        flag="--record",
        group="output",
        field="output.record",
        action="store_true",
        help="record each delta, for --replay; 4 bytes for each number of v",
    ),
    Option(flag="--json", group="output", action="store_true", help="print one JSON object about the run at the end"),
)


def parser(words: CommandWords, *, slurm: bool = True) -> OneLineParser:
    """The command line of an application; with `slurm` also as a batch job."""
    p = OneLineParser(words.program, _DESCRIPTION.format(words.description))
    titles = {
        "what": words.what,
        "who": "who computes",
        "how": "how",
        "stop": f"when to stop, whichever comes first ({words.endless})",
        "output": "output",
    }
    groups = {name: p.add_argument_group(title) for name, title in titles.items()}
    for option in options_of(words):
        _add(groups[option.group], option)
    if slurm:
        batch.add_options(p)
    return p


def given(words: CommandWords, options: argparse.Namespace) -> dict[str, Any]:
    """Fields that were set on the command line: ``{"cluster.nodes": 2, ...}``, checked for form only."""
    typed = [(option, value) for option in options_of(words) if (value := getattr(options, option.name)) is not None]
    fields: dict[str, Any] = {}
    for option, on in typed:
        fields |= option.sets if option.sets and on else {}
    fields |= assignments(options.set, words.example)
    return fields | {option.field: value for option, value in typed if option.field is not None}


def typed(words: CommandWords, fields: Mapping[str, Any]) -> list[str]:
    """A command line that sets these fields: by their own options, where they have some, else by ``--set``."""
    own = {option.field: option.flag for option in options_of(words) if option.field and option.action is None}
    arguments: list[str] = []
    for field, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value)
        if field in own and value is not None:
            arguments += [own[field], text]
            continue
        if isinstance(value, str) and parse_assignment(f"{field}={value}")[1] != value:
            text = json.dumps(value)  # else it would be read as a number, for example
        arguments += ["--set", f"{field}={text}"]
    return arguments


def options_of(words: CommandWords) -> list[Option]:
    """All in the order in which ``--help`` shows them."""
    found = [
        dataclasses.replace(option, help=words.helps.get(option.flag, option.help))
        for option in COMMON
        if option.flag not in words.without
    ]
    begin = 0
    for option in words.options:
        if option.after is None:
            place, begin = begin, begin + 1
        else:
            flags = [other.flag for other in found]
            place = 1 + flags.index(option.after) if option.after in flags else len(found)  # a command may be without
        found.insert(place, option)
    return sorted(found, key=lambda option: get_args(Group).index(option.group))


def _add(group: argparse._ArgumentGroup, option: Option) -> None:
    """Where nothing is typed it is None, or False for what is no field, or an empty list."""
    how: dict[str, Any] = {"help": option.help}
    if option.sets is not None or option.action == "store_true":
        group.add_argument(option.flag, action="store_true", default=None if option.field else False, **how)
        return
    how |= {"metavar": option.metavar} if option.metavar else {}
    if option.action == "append":
        group.add_argument(option.flag, action="append", default=[], **how)
        return
    how |= {"choices": option.choices} if option.choices else {}
    how |= {"type": option.type} if option.type else {}
    group.add_argument(option.flag, **how)
