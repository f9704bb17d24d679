"""A policy as a file that needs no hsa2c: ONNX or TorchScript, from raw observations to the likeliest action.

Inputs are the parts of the observation, [n, ...] each, as the environment gives them, and what a recurrent policy
remembers, which is zeros at the start of an episode. Outputs are "action", as the environment takes it, "parameters",
the logits or means [n, P], and what it remembers now. A file is written once it acts as the checkpoint does.
"""

from __future__ import annotations

import importlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hsa2c.errors import ConfigError

_NEAR = 1e-4  # of an action's numbers, relative and absolute

Arrays = list[NDArray[Any]]
Runner = Callable[[Arrays], Sequence[NDArray[Any]]]
"""Runs a file that was written: inputs to outputs."""


class Exportable(NamedTuple):
    """A policy, and what its file is checked by."""

    module: nn.Module
    """Tensors, ``*inputs, *memory``, to action, parameters and memory."""
    inputs: Sequence[str]
    """Names of the inputs."""
    memory: Sequence[str]
    """Names of what is carried from one step to the next; empty: nothing."""
    begin: Arrays
    """What is carried at the start, [n, ...] each."""
    steps: Sequence[Arrays]
    """Inputs of steps that follow each other, [n, ...] each."""
    actions: Sequence[NDArray[Any]]
    """What the checkpoint does in each."""


def export(policy: Exportable, path: Path) -> None:
    """Write a policy in the format of the file's ending: .onnx, or .pt for TorchScript.

    Raises:
        ConfigError: There is no such format, a package is missing, torch cannot export the network, the file acts
            otherwise than the checkpoint, or it cannot be written.
    """
    check_format(path)
    write = _onnx if path.suffix == ".onnx" else _torchscript
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of its own parts
        file = Path(folder) / path.name
        try:
            with torch.no_grad():
                same = _acts_as(policy, write(policy, file))
        except Exception as error:  # of torch's, of many kinds, about a network of one's own
            why = _cause(error)
            raise ConfigError(f"{path}: torch cannot export this network: {why}") from None
        if not same:
            raise ConfigError(f"{path}: is not written: its actions are not those of the checkpoint")
        try:
            path.write_bytes(file.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def check_format(path: Path) -> None:
    """Find out whether `export` knows a file's format.

    Raises:
        ConfigError: It does not, or a package is missing.
    """
    if path.suffix not in (".onnx", ".pt"):
        raise ConfigError(f"{path}: must end in .onnx or .pt (TorchScript)")
    for needed in ("onnx", "onnxscript") if path.suffix == ".onnx" else ():
        try:
            importlib.import_module(needed)
        except ModuleNotFoundError:
            raise ConfigError(f"{path}: ONNX needs {needed}: pip install 'hsa2c[export]'") from None


def _cause(error: BaseException) -> str:
    """Its first cause, in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _acts_as(policy: Exportable, run: Runner) -> bool:
    memory = policy.begin
    for inputs, expected in zip(policy.steps, policy.actions, strict=True):
        action, _, *memory = run([*inputs, *memory])
        if not np.allclose(action, expected, rtol=_NEAR, atol=_NEAR):
            return False
    return True


def _examples(policy: Exportable) -> tuple[Tensor, ...]:
    """Of two environments, to trace it by."""
    return tuple(torch.from_numpy(x[:2]) for x in [*policy.steps[0], *policy.begin])


def _torchscript(policy: Exportable, file: Path) -> Runner:
    traced = torch.jit.trace(policy.module, _examples(policy), check_trace=False)  # type: ignore[no-untyped-call]
    traced.save(str(file))
    loaded = torch.jit.load(str(file))  # type: ignore[no-untyped-call]
    return lambda given: [x.numpy() for x in loaded(*map(torch.from_numpy, given))]


def _onnx(policy: Exportable, file: Path) -> Runner:
    """Run by ONNX's reference evaluator, which the package brings."""
    from onnx.reference import ReferenceEvaluator

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of what it does not need
    names = [*policy.inputs, *policy.memory]
    torch.onnx.export(
        policy.module,
        _examples(policy),
        file,
        input_names=names,
        output_names=["action", "parameters", *(f"next_{name}" for name in policy.memory)],
        dynamic_shapes=(tuple({0: torch.export.Dim("n")} for _ in names),),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    run: Any = ReferenceEvaluator(str(file)).run
    return lambda given: list(run(None, dict(zip(names, given, strict=True))))
