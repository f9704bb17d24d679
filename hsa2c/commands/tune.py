"""``hsa2c tune``: many trainings, each with other values of some settings, and the best of them."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hsa2c import application, interpreter
from hsa2c.application import Application
from hsa2c.cluster.machine import share_of_cores
from hsa2c.cluster.world import ALONE, find_world
from hsa2c.commands import APPLICATION, run_options
from hsa2c.commands.choice import as_typed, lead
from hsa2c.commands.options import OneLineParser, guarded
from hsa2c.config.loading import at, find_config, flatten, merge, read_yaml, tree
from hsa2c.errors import EXIT_DONE, ConfigError, HSA2CError
from hsa2c.run import begin
from hsa2c.run.directory import CONFIG, fresh_name, is_there
from hsa2c.run.launcher import check
from hsa2c.tuning.picture import draw
from hsa2c.tuning.ranges import Range, read_all
from hsa2c.tuning.runner import Runner, write_best
from hsa2c.tuning.study import BEST, PLAN, Plan, Study, check_installed, failure_of, read_plan, write_plan
from hsa2c.tuning.telling import best_text, summary, table
from hsa2c.words import CommandWords

PROG = "hsa2c tune"
_FOLDER = Path("tune")
_TRIALS = 50
_PICTURE = "study.png"

#: Options of a run that a study gives to its trials itself.
_WITHOUT = ("--resume", "--replay", "--recompute", "--run-dir", "--name", "--go-on", "--record")

_DESCRIPTION = """Train many times, each time with other values of some settings, and find the best values.

Optuna proposes the values. A trial whose curve stays below the median of the others is ended early. Ctrl-C ends the
study; --study DIR goes on with it. The other options are those of hsa2c train, for every trial."""


def parser(words: CommandWords) -> OneLineParser:
    """The command line; `words` are without what a study gives to its trials itself (`_of_trials`)."""
    p = run_options.parser(words, slurm=False)
    p.prog, p.description = PROG, _DESCRIPTION
    study = p.add_argument_group("the study")
    study.add_argument(
        "--range",
        action="append",
        default=[],
        metavar="FIELD=VALUES",
        help="a setting to try: optimiser.learning_rate=1e-4..1e-2:log is any number between, drawn by its logarithm;"
        " agent.t_max=16,32,64 is one of these",
    )
    study.add_argument("--trials", type=int, metavar="N", help=f"trials of the whole study ({_TRIALS})")
    study.add_argument("--parallel", type=int, default=1, metavar="N", help="trials side by side on this machine (1)")
    study.add_argument(
        "--objective",
        metavar="KEY",
        help="value of metrics.jsonl that is to be large; --objective=-KEY: small (the application's)",
    )
    study.add_argument(
        "--study",
        type=Path,
        metavar="DIR",
        help=f"folder of the study, new or to go on with ({_FOLDER}/ what it is of, date and time)",
    )
    return p


def main(arguments: list[str] | None = None, *, app: str = APPLICATION, prog: str | None = None) -> int:
    """Run the command; gives back the exit code.

    Args:
        arguments: What was typed; None: this process's.
        app: Module of the application.
        prog: What was typed, where it is not the application's own program.
    """
    words = _of_trials(as_typed(application.load(app).command, prog and "hsa2c train", app))
    options = parser(words).parse_args(arguments)
    return guarded(PROG, lambda: _tune(app, words, options))


def _of_trials(words: CommandWords) -> CommandWords:
    return dataclasses.replace(words, without=(*words.without, *_WITHOUT))


def _tune(name: str, words: CommandWords, options: argparse.Namespace) -> int:
    check_installed()
    _check(options)
    app = application.load(name)
    asked = tree(run_options.given(words, options))
    if options.config is not None:
        asked = merge(read_yaml(find_config(options.config, words.configs)), asked)
    old = options.study is not None and is_there(options.study / PLAN)
    plan = _continued(options.study, asked, options) if old else None
    ranges = read_all(options.range if plan is None else _typed(plan), app, asked if plan is None else plan.asked)
    config = _config(app, asked if plan is None else plan.asked, ranges, options)
    if plan is None:
        plan = Plan(
            objective=_objective(app, options.objective),
            trials=options.trials or _TRIALS,
            ranges={field: each.text for field, each in ranges.items()},
            asked=asked,
        )
    directory = options.study or _FOLDER / fresh_name(app, _in(config, _FOLDER))
    write_plan(directory, plan, name)
    with contextlib.closing(Study(directory, plan, ranges)) as study:
        return _work(study, name, words, config, options)


def _check(options: argparse.Namespace) -> None:
    """What can be said without knowing the study."""
    if find_world().started_by_mpi:
        raise ConfigError("this process is one rank of mpiexec or srun: must be alone, with --nodes for its trials")
    for flag, number in (("--trials", options.trials), ("--parallel", options.parallel)):
        if number is not None and number < 1:
            raise ConfigError(f"{flag} {number}: must be at least 1")
    if options.study is not None and (is_there(options.study / CONFIG) or options.study.is_file()):
        raise ConfigError(f"--study {options.study}: is a run, or a file: must be a folder of its own")


def _continued(directory: Path, asked: Mapping[str, Any], options: argparse.Namespace) -> Plan:
    """The plan of a study that is there; nothing else may be asked for now but more trials.

    Raises:
        ConfigError: It is.
    """
    plan = read_plan(directory)
    differing = [
        (field, value, at(plan.asked, field))
        for field, value in _fields(asked).items()
        if at(plan.asked, field) != value
    ]
    ranges = {field.strip(): values.strip() for field, _, values in (text.partition("=") for text in options.range)}
    if ranges and ranges != plan.ranges:
        differing.append(("--range", _said(ranges), _said(plan.ranges)))
    if options.objective not in (None, plan.objective):
        differing.append(("--objective", options.objective, plan.objective))
    for what, new, old in differing:
        has = "the default" if old is None else old
        raise ConfigError(f"{what} = {new}: {directory} has {has}; another --study begins a new one")
    return dataclasses.replace(plan, trials=options.trials or plan.trials)


def _said(ranges: Mapping[str, str]) -> str:
    return " ".join(f"{field}={values}" for field, values in ranges.items())


def _typed(plan: Plan) -> list[str]:
    return [f"{field}={values}" for field, values in plan.ranges.items()]


def _config(
    app: Application, asked: Mapping[str, Any], ranges: Mapping[str, Range], options: argparse.Namespace
) -> Any:
    """A trial's configuration, resolved; nothing is written.

    Raises:
        ConfigError: Values at the ends of ranges do not fit each other, no trial would end, or there is no room.
    """
    if not ranges:
        where = f"{options.study}: no study yet; a new one " if options.study is not None else ""
        raise ConfigError(f"{where}needs a setting to try: --range optimiser.learning_rate=1e-4..1e-2:log, for example")
    config: Any = None
    for end in (0, -1):
        some = tree({field: each.ends[end] for field, each in ranges.items()})
        config = begin.prepare(app, merge(asked, some), None, ALONE).config
    if config.stop.minutes is None and not app.limits(config):
        raise ConfigError(f"a trial would never end: needs {app.command.limits}")
    check(app, config, ALONE, force=options.force)
    return config


def _objective(app: Application, typed: str | None) -> str:
    if not (objective := typed or app.best):
        raise ConfigError(f"application {app.name}: does not say what is best: must be given, as --objective=-loss")
    return objective


def _in(config: Any, folder: Path) -> Any:
    return dataclasses.replace(config, output=dataclasses.replace(config.output, run_dir=str(folder)))


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """A tree as fields by dotted name."""
    return {field: value for key, below in values.items() for field, value in flatten(key, below).items()}


# The study at work.


def _work(study: Study, name: str, words: CommandWords, config: Any, options: argparse.Namespace) -> int:
    def command(file: Path, directory: Path) -> list[str]:
        where = ("--run-dir", str(directory.parent), "--name", directory.name)
        more = ["--force"] if options.force else []
        return interpreter.command("hsa2c", "train", "--app", name, "--config", str(file), *where, *more)

    cluster = config.cluster
    shared = options.parallel > 1 and cluster.hosts is None
    processes = share_of_cores(cluster.nodes * options.parallel) if shared else None
    _say(f"{study.directory}: {study.plan.trials} trials, {study.plan.objective} of each")
    try:
        Runner(study, command, parallel=options.parallel, processes=processes, say=_say).run()
    except KeyboardInterrupt:
        best = next(iter(study.ranked()), None)
        if best is not None:
            _say(f"best so far: {best_text(study, best)}")
        _say(f"go on with: {PROG} --study {shlex.quote(str(study.directory))}")
        raise
    return _finish(study, name, words, options)


def _finish(study: Study, name: str, words: CommandWords, options: argparse.Namespace) -> int:
    """Say what is best."""
    ranked = study.ranked()
    if not ranked:
        whys = [why for trial in study.trials() if (why := failure_of(trial)) is not None]
        raise HSA2CError(f"{study.directory}: no trial has succeeded{': ' + whys[-1] if whys else ''}")
    if elsewhere := sum(not trial.state.is_finished() for trial in study.trials()):
        _say(f"{elsewhere} of its trials still under way in other processes")
    app, picture = application.load(name), study.directory / _PICTURE
    key = study.plan.key
    draw(study, picture, app.pictures.labels.get(key, key))
    write_best(study, ranked[0])
    fields = _fields(study.settings(ranked[0].params))
    arguments = run_options.typed(words, fields)
    if lead(arguments) != name:
        arguments = ["--app", name, *arguments]
    best = f"hsa2c train {shlex.join(arguments)}"
    if options.json:
        print(json.dumps(summary(study, str(picture), best)))
        return EXIT_DONE
    print("\n".join(table(study)))
    print(f"settings: {study.directory / BEST}\npicture: {picture}\ntrain with them: {best}")
    return EXIT_DONE


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
