"""`minimise`: any torch module and a stochastic loss, trained by DPSGD."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hsa2c import names
from hsa2c.api.callbacks import Callback
from hsa2c.api.training import Run, fields_of, start
from hsa2c.cluster.world import ALONE
from hsa2c.errors import ConfigError
from hsa2c.minimising.application import APPLICATION, INITIAL
from hsa2c.run import begin

_MODULE = "hsa2c.minimising.application"


def minimise(
    model: Any,
    loss: Callable[[Any], Any],
    *,
    evaluate: Callable[[Any], Any] | None = None,
    best: str | None = None,
    nodes: int | None = None,
    p: int | None = None,
    updates: int | None = None,
    minutes: float | None = None,
    run_dir: str | Path | None = None,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    force: bool = False,
    **options: Any,
) -> Run:
    """Minimise a stochastic loss of a torch module by DPSGD, on all cores and nodes; returns when the run has ended.

    The module then has the values of the best checkpoint, or the last ones where there is no best.

    Args:
        model: A torch.nn.Module, whose values are v_0, or a function without arguments that makes one.
        loss: Of the module: draws its data itself, and gives a scalar tensor. Each process calls it once an update,
            with its own random numbers of torch, numpy and Python.
        evaluate: Of the module, in evaluation mode and without gradients: a number, or numbers by name. The master
            calls it every few seconds.
        best: Which of these numbers makes a checkpoint the best one: the higher the better; after a minus, the lower.
        nodes: Nodes beside the master; MPI from 2 on (1).
        p: Processes on each node (the node's share of the cores).
        updates: When to stop: updates over all nodes and processes.
        minutes: When to stop: wall-clock of training.
        run_dir: Folder that holds runs ("runs").
        name: Of this run in it (where the loss is from, date and time).
        settings: Any setting by its dotted name: ``{"dpsgd.momentum": 0.5}``.
        callbacks: What is called meanwhile, in this process.
        progress: Whether progress is shown.
        force: Start more than this host seems to have room for.
        options: Each other option of the command line: ``B``, ``lr``, ``seed``, ``exchange``, ...

    Raises:
        ConfigError: Something is wrong with model, functions or settings; nothing was written.
        HSA2CError: The run failed; what was saved stays.
        KeyboardInterrupt: Ctrl-C: the run has ended in good order, and can be resumed.
    """
    names.refuse_import("hsa2c.minimise")
    module = _module_of(model)
    if best is not None and not isinstance(best, str):
        raise ConfigError(f"best = {best!r}: must be the name of a number that evaluate gives")
    for what, function in (("loss", loss), ("evaluate", evaluate)):
        if function is not None and not callable(function):
            raise ConfigError(f"{what}: is a {type(function).__name__}, must be a function of the model")
    from hsa2c.minimising.flat import load, to_vector
    from hsa2c.minimising.problem import try_out

    v_0 = to_vector(module)
    try_out(module, loss, evaluate, best)
    code = {"problem.model": names.give(model, "model"), "problem.loss": names.give(loss, "loss")}
    if evaluate is not None:
        code["problem.evaluate"] = names.give(evaluate, "evaluate")
    options |= {"nodes": nodes, "p": p, "updates": updates, "minutes": minutes, "run_dir": run_dir, "name": name}
    fields = {**fields_of(APPLICATION, settings, options), **code}
    if best is not None:
        fields["problem.best"] = best
    prepared = begin.prepare(APPLICATION, fields, None, ALONE)

    def write_initial(directory: Path) -> None:
        from safetensors.numpy import save_file

        save_file({"v": v_0}, directory / INITIAL)

    run = start(_MODULE, APPLICATION, prepared, callbacks, progress=progress, force=force, prepare=write_initial)
    if module is model:
        load(module, _last_v(run))
    return run


def _module_of(model: Any) -> Any:
    from torch import nn

    try:
        made = model if isinstance(model, nn.Module) or not callable(model) else model()
    except TypeError as error:
        raise ConfigError(f"model: cannot be made without arguments: {error}") from None
    if not isinstance(made, nn.Module):
        raise ConfigError(f"model: is a {type(made).__name__}, must be a torch.nn.Module, or a function that makes one")
    return made


def _last_v(run: Run) -> Any:
    from hsa2c.run import checkpoint as checkpoints

    return checkpoints.read(run.dir, prefer="best")[0].v
