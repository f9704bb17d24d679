"""Runs that are started from Python: as a command line starts them, with keywords for its options."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hsa2c import application, names, signals
from hsa2c.api import loading
from hsa2c.api.callbacks import Callback, Feed
from hsa2c.api.runs import RunFiles, path_of
from hsa2c.application import Application
from hsa2c.cluster.world import ALONE, find_world
from hsa2c.commands import APPLICATION
from hsa2c.commands.run_options import given, options_of
from hsa2c.errors import EXIT_DONE, ConfigError, HSA2CError
from hsa2c.run import begin
from hsa2c.run import directory as rundir
from hsa2c.run.ending import why
from hsa2c.run.launcher import Launch, check, launch

_NOT_FIELDS = ("config", "resume", "replay", "recompute", "set", "json", "slurm", "go_on")


_PLAIN = (str, Path, bool, int, float, list, tuple, dict, type(None))


class Run(RunFiles):
    """A run that was begun, from Python or by a command line; all that is known of it is in its directory."""

    def resume(
        self,
        *,
        settings: Mapping[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        **options: Any,
    ) -> Run:
        """See `hsa2c.resume`; gives back this run."""
        resume(self, settings=settings, callbacks=callbacks, progress=progress, **options)
        return self

    def evaluate(self, **options: Any) -> dict[str, Any]:
        """See `hsa2c.evaluate`."""
        return loading.evaluate(self.dir, **options)

    def load(self, **options: Any) -> Any:
        """See `hsa2c.load`."""
        return loading.load(self.dir, **options)

    def push(self, folder: str | Path, *, to_hub: str | None = None, private: bool = False, **options: Any) -> Path:
        """See `hsa2c.api.loading.push`."""
        return loading.push(self.dir, folder, to_hub=to_hub, private=private, **options)

    def export(self, path: str | Path) -> Path:
        """See `hsa2c.api.loading.export`."""
        return loading.export(self.dir, path)


def train(
    *,
    app: Any = APPLICATION,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    force: bool = False,
    **options: Any,
) -> Run:
    """Train, as ``train.py`` does; returns when the run has ended.

    Args:
        app: An `Application`, its class, or the name of its module; agents where nothing is said.
        config: YAML file, or the name of a shipped one.
        settings: Any setting by its dotted name, as with ``--set``: ``{"dpsgd.momentum": 0.5}``.
        callbacks: What is called meanwhile, in this process.
        progress: Whether progress is shown.
        force: Start more than this host seems to have room for.
        options: Each option of the command line, such as ``nodes=2``, ``p=2``, ``B=8``, ``minutes=10``,
            ``name="first"``, and the application's own.

    Raises:
        ConfigError: Something is wrong with the settings; nothing was written.
        HSA2CError: The run failed; what was saved stays.
        KeyboardInterrupt: Ctrl-C: the run has ended in good order, and can be resumed.
    """
    names.refuse_import("hsa2c.train")
    if app == APPLICATION:
        others = application.load(APPLICATION).command.others
        app = next((module for flag, module in others.items() if flag.removeprefix("--") in options), APPLICATION)
    name, found = application.named(app)
    fields = fields_of(found, settings, options)
    run = begin.prepare(found, fields, None if config is None else str(config), ALONE)
    return start(name, found, run, callbacks, progress=progress, force=force)


def resume(
    run: Any,
    *,
    settings: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    force: bool = False,
    **options: Any,
) -> Run:
    """Go on with a run from its newest checkpoint, as ``--resume`` does.

    Args:
        run: Its directory, or a `Run`.
        settings: As for `train`: what is to be otherwise, such as a limit.
        callbacks: As for `train`.
        progress: As for `train`.
        force: As for `train`.
        options: As for `train`.

    Raises:
        ConfigError: There is no such run, nothing is left to do, or a setting cannot change.
        HSA2CError: As for `train`.
        KeyboardInterrupt: As for `train`.
    """
    names.refuse_import("hsa2c.resume")
    directory = Run(path_of(run)).dir
    name, found = application.named(rundir.application_of(directory) or APPLICATION)
    again = begin.resume(found, directory, fields_of(found, settings, options), None, ALONE)
    return start(name, found, again, callbacks, progress=progress, force=force)


def start(
    name: str,
    app: Application,
    run: rundir.Run,
    callbacks: Sequence[Callback],
    *,
    progress: bool,
    force: bool,
    prepare: Any = None,
) -> Run:
    """Launch a run, and wait for its end.

    Args:
        name: Of the application.
        app: The same.
        run: What is to run; nothing is written yet.
        callbacks: See `train`.
        progress: See `train`.
        force: See `train`.
        prepare: Called with the run's directory, once there is one.
    """
    world = find_world()
    if world.started_by_mpi:
        raise ConfigError(f"this process is one of {world.size} ranks of mpiexec or srun: must be alone, with nodes=")
    config = run.config
    forked = config.cluster.nodes == 1 and config.cluster.hosts is None and _own_code(name, app, config)
    if not forked:
        _refuse_unnamed(name, app, config)
    run.application = name
    run.remarks = (*run.remarks, *app.remarks(config))
    check(app, config, world, force=force)
    what = Launch(
        app=name,
        asked=run.asked,
        config=config,
        directory=run.directory,
        title=app.title(config),
        resume_from=run.checkpoint,
        session=run.session,
        forked=forked,
        quiet=not progress,
    )
    with run.open():
        try:
            if prepare is not None:
                prepare(run.directory)
            begun = Run(run.directory)
            feed = Feed(begun, run.session, callbacks)
        except BaseException:
            if run.fresh:
                rundir.withdraw(run.directory)
            raise
        what = dataclasses.replace(what, lock=run.lock, fresh=run.fresh)
        _launch(what, feed)
    return begun


def _launch(what: Launch, feed: Feed) -> None:
    handlers = signals.handlers()
    try:
        code = launch(what, feed)
    finally:
        signals.restore(handlers)
    feed.end()
    if feed.error is not None:
        raise feed.error
    if code == EXIT_DONE:
        return
    if code > 128:
        if (signum := code - 128) == signal.SIGINT:
            raise KeyboardInterrupt  # itself: by a subclass Python would end with exit code 1
        os.kill(os.getpid(), signum)  # as it would have ended this process
        raise signals.Interrupted(signum)
    raise HSA2CError(f"{what.directory}: the run failed: {why(what.directory, what.session)}")


def _own_code(name: str, app: Application, config: Any) -> bool:
    """Whether a run has code that was handed over as an object."""
    return ":" in name or any(names.is_given(code) for code in app.code(config))


def _refuse_unnamed(name: str, app: Application, config: Any) -> None:
    for code in ((name,) if ":" in name else ()) + tuple(app.code(config)):
        if not names.reaches_others(code):
            if not names.is_given(code):
                names.find(code)  # which says what has become of it
            raise ConfigError(
                f"{code.rpartition(':')[2]}: other processes cannot find it, for it is a lambda, within a function, or"
                " of an interactive session: must be at the top of a file, or nodes = 1"
            )


def fields_of(app: Application, settings: Mapping[str, Any] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by dotted name, checked for form only.

    Raises:
        ConfigError: There is no such option.
    """
    given_settings: Any = {} if settings is None else settings
    if not isinstance(given_settings, Mapping) or not all(isinstance(name, str) for name in given_settings):
        raise ConfigError(f"settings = {settings!r}: must be a dict from dotted names, such as 'dpsgd.momentum'")
    known = {option.name: option for option in options_of(app.command) if option.name not in _NOT_FIELDS}
    typed = argparse.Namespace(**dict.fromkeys(option.name for option in options_of(app.command)))
    typed.set = []
    for name, value in options.items():
        if name not in known or ((option := known[name]).field is None and option.sets is None):
            raise ConfigError(f"{name} = {value!r}: no such option; known are {', '.join(sorted(known))}")
        value = names.give(value, name) if callable(value) else value  # noqa: PLW2901
        if not isinstance(value, _PLAIN):
            raise ConfigError(f"{name}: a {type(value).__name__}, must be a name or number, or a function or class")
        setattr(typed, name, str(value) if isinstance(value, Path) else value)
    return {**given(app.command, typed), **given_settings}
