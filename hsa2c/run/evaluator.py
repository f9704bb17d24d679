"""A process that evaluates a checkpoint while training goes on, beside the master's.

It is forked anew for each evaluation, by a small process that was forked before the master had threads or MPI. So it
has whatever code the master's process has, functions of an interactive session too. Whatever becomes of it, training
goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hsa2c.errors import EvaluationError, HSA2CError, NodeError
from hsa2c.node.fork_server import ForkServer
from hsa2c.observe.runlog import number
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.task import Task
from hsa2c.tracker import Evaluation, numbers

EVALUATED = "evaluated"
"""In the counters of a checkpoint that was evaluated: numbers by name."""

_NICE = 10  # a tenth of the weight of an actor-learner; 19 is a 70th: an hour on busy cores for a minute of work
_MOST_TEXT = 10_000  # characters of a traceback: a message must fit the socket's buffer
_MAX_MESSAGE = 128 * 1024


class Evaluator:
    """The process, seen from the master. Make this before anything starts a thread or calls MPI_Init: it forks.

    Args:
        plan: What is evaluated, and how.
    """

    def __init__(self, plan: Evaluation) -> None:
        self.plan = plan
        self._fork_server = ForkServer(self._live, "evaluator")
        self._begun = 0
        self._pid = 0
        self._connection: socket.socket | None = None

    @property
    def busy(self) -> bool:
        """Whether an evaluation goes on."""
        return self._connection is not None

    def begin(self, checkpoint: Path, *, beside_training: bool) -> None:
        """Start an evaluation; there must be none.

        Args:
            checkpoint: The file to evaluate. The result is added to its counters.
            beside_training: At low priority.

        Raises:
            EvaluationError: It cannot be started.
        """
        assert not self.busy
        try:
            self._pid, self._connection = self._fork_server.fork(self._begun)
        except NodeError as error:
            raise EvaluationError(str(error)) from None
        self._begun += 1
        self._connection.setblocking(False)
        with contextlib.suppress(OSError):  # it has died: `result` says so
            self._connection.send(json.dumps([str(checkpoint), beside_training]).encode())

    def result(self) -> dict[str, float | None] | None:
        """What an evaluation came to, once it has ended; None while it goes on.

        Raises:
            EvaluationError: It failed; a traceback may follow the first line.
        """
        assert self._connection is not None
        try:
            message = self._connection.recv(_MAX_MESSAGE)
        except BlockingIOError:
            return None
        except OSError:
            message = b""
        code = self._bury()
        if not message:
            how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
            raise EvaluationError(f"its process (pid {self._pid}) ended by itself: {how}")
        said: dict[str, Any] = json.loads(message)
        if "error" in said:
            raise EvaluationError(f"{said['error']}\n{said['traceback']}".strip())
        return dict(said["values"])

    def stop(self) -> None:
        """End an evaluation, if one goes on."""
        if self.busy:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._bury()

    def close(self) -> None:
        """End the processes; a second call does nothing."""
        self.stop()
        self._fork_server.part(0.0)

    def _bury(self) -> int | None:
        """Its exit code; None where nobody knows it."""
        assert self._connection is not None
        self._connection.close()
        self._connection = None
        with contextlib.suppress(NodeError):
            return self._fork_server.fate(self._pid)
        return None

    def _live(self, _: int, connection: socket.socket) -> None:
        """The process, from its first to its last instruction."""
        request = connection.recv(_MAX_MESSAGE)
        if not request:
            return
        path, beside_training = json.loads(request)
        if beside_training:
            os.nice(_NICE)
        try:
            said: dict[str, Any] = {"values": evaluate(Path(path), self.plan)}
        except BaseException as error:
            kind = "" if isinstance(error, HSA2CError) else f"{type(error).__name__}: "
            trace = "" if isinstance(error, HSA2CError) else traceback.format_exc()[-_MOST_TEXT:]
            said = {"error": f"{kind}{' '.join(str(error).split())[:_MOST_TEXT]}", "traceback": trace}
        connection.send(json.dumps(said).encode())


def evaluate(path: Path, plan: Evaluation) -> dict[str, float | None]:
    """Evaluate a checkpoint, and write the result into it; gives back the same, None for what is not finite.

    Raises:
        CheckpointError: It cannot be read.
        EvaluationError: The result says nothing of how good it is.
    """
    checkpoint = checkpoints.load(path)
    began_at = time.monotonic()
    values = {name: number(value) for name, value in numbers(plan.evaluate(checkpoint.v), "evaluate").items()}
    values["seconds"] = round(time.monotonic() - began_at, 3)
    if plan.quality(values) is None:
        raise EvaluationError(f"evaluate gave no finite {plan.best.removeprefix('-')}")
    counters = {**checkpoint.counters, EVALUATED: values}
    checkpoints.save_candidate(path.parent, dataclasses.replace(checkpoint, counters=counters))
    return values


@contextlib.contextmanager
def evaluator_of(task: Task) -> Iterator[Evaluator | None]:
    """What evaluates the run while it trains; None: nothing is to. Here all that it needs is loaded, for the fork."""
    plan = task.app.evaluation(task.config)
    if plan is None:
        yield None
        return
    import torch

    torch.set_num_threads(1)
    task.app.check(task.config)
    task.app.dim(task.config)
    evaluator = Evaluator(plan)
    try:
        yield evaluator
    finally:
        evaluator.close()
