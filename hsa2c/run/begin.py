"""How a run begins, goes on, and restarts: from a command line to a `Run` that is ready to be opened.

What its user asked for and what came of it are two values, and both are saved. To go on is to put together what was
asked for before and what is asked for now, and to resolve that anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hsa2c.application import Application, tracker_of
from hsa2c.cluster import allocation
from hsa2c.cluster.allocation import ALLOCATION
from hsa2c.cluster.world import ALONE, World
from hsa2c.config.loading import at, find_config, merge, read_yaml, to_dict, tree
from hsa2c.errors import ConfigError, FinishedError
from hsa2c.observe.runlog import JOURNAL
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run import earlier
from hsa2c.run.directory import ASKED, CONFIG, Run, exists, fresh_name, is_there, last_session
from hsa2c.run.resolve import asked_in_0_1, listed_hosts, resolve

#: Settings that a resumed run keeps: others of them would make it another run.
_FIXED = ("seed", "output.run_dir", "output.name", "optimiser.name")
_WHERE = ("run_dir", "name")


def prepare(
    app: Application, given: Mapping[str, Any], config_file: str | None, world: World, *, again: bool = False
) -> Run:
    """A new run; nothing is written yet.

    Args:
        app: The application.
        given: Fields set on the command line, by dotted name.
        config_file: YAML file or name of a shipped one.
        world: The MPI world of this process, if it was started in one.
        again: Go on with the run of this name if it has a checkpoint, and begin anew in its directory if it has none.

    Raises:
        ConfigError: Something in the configuration is wrong, or the run's directory exists.
        FinishedError: With `again`: the run has reached its limit.
    """
    allocation.refuse_lone_tasks()
    now = tree(given)
    asked = merge({} if config_file is None else read_yaml(find_config(config_file, app.command.configs)), now)
    config = resolve(app, asked, world)
    directory = Path(config.output.run_dir) / (config.output.name or fresh_name(app, config))
    remarks: list[str] = []
    if again and (is_there(directory / CONFIG) or checkpoints.steps(directory / checkpoints.FOLDER)):
        if (run := _go_on(app, directory, now, config, world)) is not None:
            return run
        remarks.append("no checkpoint was written before: begins anew, and its curves at 0")
    config = dataclasses.replace(config, output=dataclasses.replace(config.output, name=directory.name))
    # The other ranks of a world may come when rank 0 has made it already.
    if world.rank == 0 and not again and is_there(directory):
        raise ConfigError(exists(directory))
    session = last_session(directory) + 1 if again and is_there(directory / JOURNAL) else 1
    return Run(asked=asked, config=config, directory=directory, session=session, again=again, remarks=remarks)


def _go_on(app: Application, directory: Path, now: Mapping[str, Any], config: Any, world: World) -> Run | None:
    """The run in a directory, resumed; None where no session of it came to a checkpoint, so that it may begin anew.

    Raises:
        ConfigError: It is of something else, or has lost its checkpoints.
        FinishedError: It has reached its limit.
    """
    if not is_there(directory / CONFIG):
        raise ConfigError(f"{directory}: holds checkpoints, but no {CONFIG}: put it back; --name starts another")
    # Its name, and the folder of runs, have found the directory, which may be a copy, or have another name now.
    now = {**now, "output": {key: value for key, value in now.get("output", {}).items() if key not in _WHERE}}
    saved = app.build_config(read_yaml(directory / CONFIG))
    earlier.check_same(app, directory, saved, app.build_config(merge(to_dict(saved), now)))
    if checkpoints.steps(directory / checkpoints.FOLDER):
        return _resumed(app, directory, now, world, again=True)
    earlier.check_not_lost(directory)
    earlier.check_same(app, directory, saved, config)
    return None


def resume(app: Application, directory: Path, given: Mapping[str, Any], config_file: str | None, world: World) -> Run:
    """A run that goes on from its newest good checkpoint; nothing is written yet.

    Args:
        app: The application.
        directory: The run's.
        given: As for `prepare`.
        config_file: Must be None.
        world: As for `prepare`.

    Raises:
        ConfigError: There is no run, no good checkpoint, nothing left to do, or a setting that cannot change.
    """
    allocation.refuse_lone_tasks()
    if config_file is not None:
        raise ConfigError(f"--config {config_file}: a resumed run keeps its own configuration")
    if not is_there(directory / CONFIG):
        raise ConfigError(f"--resume {directory}: not a run directory (it has no {CONFIG})")
    return _resumed(app, directory, tree(given), world, again=False)


def _resumed(app: Application, directory: Path, now: Mapping[str, Any], world: World, *, again: bool) -> Run:
    """See `resume`; a tree of what is asked for now, and with `again` it may have reached its limit.

    Raises:
        ConfigError: As for `resume`.
        FinishedError: With `again`: nothing is left to do.
    """
    saved = to_dict(app.build_config(read_yaml(directory / CONFIG)))
    asked, config = _resolved_again(app, _asked_before(app, directory, saved), saved, now, world)
    checkpoint, path, skipped = checkpoints.load_newest(directory / "checkpoints")
    checkpoints.check_identity(checkpoint, app.identity(config), source=path)
    if reached := _reached(app, config, checkpoint.counters):
        if again:
            raise FinishedError(directory, reached)
        raise ConfigError(f"--resume {directory}: nothing left to do: {reached}; raise the limit")
    session = last_session(directory) + 1
    return Run(asked=asked, config=config, directory=directory, checkpoint=path, session=session, remarks=skipped)


def _asked_before(app: Application, directory: Path, saved: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for in a run, of which `saved` came."""
    if not is_there(directory / ASKED):
        return asked_in_0_1(app, saved)
    asked = read_yaml(directory / ASKED)
    app.build_config(asked)  # somebody may have edited it
    return asked


def on_fewer_hosts(app: Application, asked: Mapping[str, Any], config: Any, nodes: int) -> Any:
    """The configuration of a run that restarts with fewer nodes, for some of its hosts are lost.

    Args:
        app: The application.
        asked: What was asked for at its start, as a tree of plain values.
        config: What came of it.
        nodes: That are left.
    """
    left = {"cluster": {"nodes": nodes, "hosts": config.cluster.hosts}}
    return _resolved_again(app, asked, to_dict(config), left, ALONE)[1]


def _resolved_again(
    app: Application, before: Mapping[str, Any], saved: Mapping[str, Any], now: Mapping[str, Any], world: World
) -> tuple[dict[str, Any], Any]:
    """What is asked for in a run that goes on, and what comes of it.

    Args:
        app: The application.
        before: What was asked for before.
        saved: What came of it, as a tree of plain values.
        now: What is asked for now.
        world: See `prepare`.

    Raises:
        ConfigError: A setting is wrong, or cannot change.
    """
    before = _still_asked(before, now, world)
    fixed = {name: at(saved, name) for name in (*_FIXED, *app.fixed)}
    kept = dict(fixed)
    if at(before, "cluster.hosts") is not None:
        kept["cluster.hosts"] = at(saved, "cluster.hosts")  # an absolute path
    if not world.started_by_mpi and at(now, "cluster.hosts") is None:
        kept["cluster.nodes"] = at(saved, "cluster.nodes")
    config = resolve(app, merge(merge(before, tree(kept)), now), world)
    resolved = to_dict(config)
    for name, old in fixed.items():
        if (new := at(resolved, name)) != old:
            raise ConfigError(f"{name} = {new!r}: cannot change in a resumed run, which has {old!r}")
    return merge(before, now), config


def _still_asked(before: Mapping[str, Any], now: Mapping[str, Any], world: World) -> dict[str, Any]:
    """What was asked for before, less what a world of MPI or other hosts say anew."""
    listed = at(now, "cluster.hosts")
    anew: set[str] = set()
    if world.started_by_mpi:
        anew |= {"nodes", "hosts"}
    elif isinstance(listed, str):
        anew |= {"nodes", "hosts"}
        if any(host.processes for host in listed_hosts(listed)):
            anew.add("processes")
    elif at(before, "cluster.hosts") == ALLOCATION:  # of which there may be another now, or none
        anew.add("hosts")
    cluster = {name: value for name, value in before.get("cluster", {}).items() if name not in anew}
    return {**before, "cluster": cluster} if "cluster" in before else dict(before)


def _reached(app: Application, config: Any, counters: Mapping[str, Any]) -> str | None:
    """The limit that a checkpoint's counters are at, in words; None if there is something left to do."""
    minutes = config.stop.minutes
    if minutes is not None and counters.get("elapsed_s", 0.0) >= 60 * minutes:
        return f"{minutes:g} min of training"
    return tracker_of(app, config, counters).reached()
