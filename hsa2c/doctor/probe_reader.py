"""Starts the doctor's processes, and listens to them for as long as they give signs of life."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

from hsa2c.cluster.loopback import confine
from hsa2c.doctor.facts import letters
from hsa2c.doctor.probe_output import signed, told
from hsa2c.node.lifetime import die_with_parent

_TICK_S = 0.2
LEAVE_S = 3.0  # to end by themselves once all has been heard, and again after TERM
_CHATTER = re.compile(r"plm:ssh: Warning: setpgid")  # of PRRTE, that means nothing
_MOST_LINES = 1000  # of what nobody asked for


@dataclass
class Heard:
    """What came."""

    told: list[dict[str, Any]] = field(default_factory=list)
    stages: dict[int, str] = field(default_factory=dict)
    """How far each rank has come, of those that have started."""
    others: list[str] = field(default_factory=list)
    """What else was printed."""
    in_time: bool = True
    open_ports: list[int] = field(default_factory=list)
    """Of mpiexec, that others than this machine's processes can reach though they should not."""

    @property
    def complaint(self) -> str:
        """What else was printed, in one line."""
        return complaint(self.others)


def complaint(lines: Sequence[str]) -> str:
    """What somebody's output says of his failure, in one line: an error's last, or the first of mpiexec's."""
    said = [line.strip() for line in lines if line.strip(" -*=\n") and not _CHATTER.search(line)]
    if not said:
        return "nothing was said"
    return letters(said[-1] if any("Traceback" in line for line in said) else " ".join(said[:3]))


def failure(command: Sequence[str], environment: Mapping[str, str], limit_s: float) -> str | None:
    """Run a command that has little to do; what it said if it fails, or takes longer than `limit_s`, else None."""
    with tempfile.TemporaryFile() as output:
        job = _start(command, environment, output, output)
        late = ""
        try:
            if job.wait(limit_s) == 0:
                return None
        except subprocess.TimeoutExpired:
            late = f"not within {limit_s:.0f} s, "
        finally:
            _end(job, LEAVE_S, patient=False)
        output.seek(0)
        return late + complaint(output.read().decode(errors="replace").splitlines())


def listen(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    silence_s: float,
    enough: Callable[[Heard], bool],
    first_s: float | None = None,
    confining: bool = False,
    leave_s: float = LEAVE_S,
) -> Heard:
    """Run processes, and hear what they tell.

    Args:
        command: What starts them.
        environment: Theirs.
        silence_s: They are ended when nothing was heard of them for so long.
        enough: Whether all was heard: then they have little time to end.
        first_s: The same as `silence_s`, until the first sign of life. None: that.
        confining: Let nothing outside this machine connect to `command`, which is mpiexec.
        leave_s: What they have to end by themselves once all was heard, and again after TERM.
    """
    heard = Heard()
    job = _start(command, environment, subprocess.PIPE, subprocess.PIPE)
    patient = False  # with nobody where Ctrl-C ends the listening
    try:
        if confining:
            heard.open_ports = confine(job.pid)
        heard.in_time = patient = _hear(job, heard, silence_s, first_s or silence_s, enough)
    finally:
        _end(job, leave_s, patient=patient)
    return heard


def _start(
    command: Sequence[str], environment: Mapping[str, str], stdout: int | IO[bytes], stderr: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - one thread here
    )


def _hear(
    job: subprocess.Popen[bytes], heard: Heard, silence_s: float, first_s: float, enough: Callable[[Heard], bool]
) -> bool:
    """Until all was heard or nobody is left to speak; False if they were silent for too long."""
    assert job.stdout is not None and job.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(job.stdout, selectors.EVENT_READ, _Lines(job.stdout))
        selector.register(job.stderr, selectors.EVENT_READ, _Lines(job.stderr))
        heard_at = time.monotonic()
        while selector.get_map() and not enough(heard):
            for key, _ in selector.select(_TICK_S):
                lines = key.data.more()
                if lines is None:
                    selector.unregister(key.fileobj)
                    continue
                for line in lines:
                    if _take_in(heard, line, key.fileobj is job.stderr):
                        heard_at = time.monotonic()
            if time.monotonic() - heard_at > (silence_s if heard.stages or heard.told else first_s):
                return False
    return True


class _Lines:
    """Whole lines from a pipe."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._rest = b""

    def more(self) -> list[str] | None:
        """Those that have come; None at the end."""
        data = os.read(self._pipe.fileno(), 1 << 16)
        if not data:
            return None
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in whole]


def _take_in(heard: Heard, line: str, is_error: bool) -> bool:
    """Whether it is a sign of life."""
    if is_error and (sign := signed(line)) is not None:
        heard.stages[sign[0]] = sign[1]
        return True
    if not is_error and (values := told(line)) is not None:
        heard.told.append(values)
        return True
    if len(heard.others) < _MOST_LINES:
        heard.others.append(line)
    return False


def _end(job: subprocess.Popen[bytes], leave_s: float, *, patient: bool) -> None:
    """Let it end, then make it."""
    for act in (None, job.terminate) if patient else (job.terminate,):
        if act is not None:
            act()
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.wait(leave_s)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    for pipe in filter(None, (job.stdout, job.stderr)):
        pipe.close()
