"""Reads mutated inputs in a process of its own, whose memory and time are limited, and names the input that breaks it.

Right is either: the input is read, or it is refused by a `ConfigError` of one line. Any other exception, a signal, too
much memory and too much time are faults.
"""

import argparse
import contextlib
import dataclasses
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsa2c.errors import ConfigError
from tests.fuzz.mutation import mutated

REPOSITORY = Path(__file__).resolve().parents[2]
MODULES = (
    "tests.fuzz.corpora",
    "tests.fuzz.state",
    "tests.fuzz.studies",
)  # each with a dict of readers by name, READERS
MEMORY_BYTES = 2 << 30  # beyond what the process has when it has read the seeds
INPUT_S = 20.0
MOST_FAULTS = 20
MOST_MESSAGE = 2000  # characters: a line that repeats a long input helps nobody


@dataclass(frozen=True)
class Reader:
    """What reads a kind of file.

    `read` is given the file alone in a folder, which is emptied afterwards. Its seeds are good, or nearly.
    """

    suffix: str
    seeds: Sequence[bytes]
    read: Callable[[Path], object]
    refusals: tuple[type[Exception], ...] = (ConfigError,)


@dataclass(frozen=True)
class Fault:
    """An input that was neither read nor refused, and what happened."""

    number: int
    what: str
    content: bytes


@dataclass
class Outcome:
    """What became of the inputs."""

    read: int = 0
    refused: int = 0
    faults: list[Fault] = dataclasses.field(default_factory=list)


def reader_modules():
    """The name of every reader, and the module that has it."""
    return {name: module for module in MODULES for name in importlib.import_module(module).READERS}


def find_reader(module, name):
    """A reader by its module and its name there."""
    return importlib.import_module(module).READERS[name]


def content_of(reader, seed, number):
    """Input `number` of a seed: the same in every process."""
    return mutated(reader.seeds, random.Random(f"{seed} {number}"))


def fuzz(module, name, *, inputs, seed, first=0, memory_bytes=MEMORY_BYTES, input_s=INPUT_S):
    """Have `inputs` inputs read in a process, in another after each that dies.

    Returns:
        An `Outcome`; it ends early with `MOST_FAULTS` faults.
    """
    reader, outcome, last = find_reader(module, name), Outcome(), first + inputs
    with tempfile.TemporaryDirectory(prefix="hsa2c-fuzz-") as folder:
        while first < last and len(outcome.faults) < MOST_FAULTS:
            limits = [str(memory_bytes), str(input_s)]
            command = [sys.executable, "-m", "tests.fuzz.harness", module, name, str(seed), str(first), str(last)]
            done = subprocess.run(
                [*command, folder, *limits], cwd=REPOSITORY, capture_output=True, text=True, errors="replace",
                check=False, timeout=inputs * input_s + 100,
            )  # fmt: skip
            found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            first = _take(found, reader, seed, outcome, first)
            if done.returncode != 0:
                what = f"{_ending(done.returncode)}: {done.stderr.strip()[-1000:]}"
                outcome.faults.append(Fault(first, what, content_of(reader, seed, first)))
                first += 1
    return outcome


def _take(found, reader, seed, outcome, first):
    """Take in what a process has printed; gives back the first input that it has not been through."""
    for row in found:
        first = row["number"] + 1
        outcome.read += row["result"] == "read"
        outcome.refused += row["result"] == "refused"
        if row["result"] == "fault":
            outcome.faults.append(Fault(row["number"], row["what"], content_of(reader, seed, row["number"])))
    return first


def _ending(code):
    if code == -signal.SIGALRM:
        return "SIGALRM: took longer than an input may"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def main(arguments=None):
    """A process that reads: prints a line of JSON for each input. Stops at what it is killed by."""
    p = argparse.ArgumentParser()
    for name, kind in (
        ("module", str),
        ("reader", str),
        ("seed", int),
        ("first", int),
        ("last", int),
        ("folder", Path),
    ):
        p.add_argument(name, type=kind)
    p.add_argument("memory_bytes", type=int)
    p.add_argument("input_s", type=float)
    options = p.parse_args(arguments)
    reader = find_reader(options.module, options.reader)
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not for the parent
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for content in reader.seeds:  # imports and compiles
        _outcome(reader, content, options.folder)
    _limit_memory(options.memory_bytes)
    for number in range(options.first, options.last):
        signal.setitimer(signal.ITIMER_REAL, options.input_s)  # ends the process, also in native code
        result = _outcome(reader, content_of(reader, options.seed, number), options.folder)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps({"number": number, **result}), file=report)


def _limit_memory(more_bytes):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _outcome(reader, content, folder):
    """What becomes of one input."""
    path = folder / f"input{reader.suffix}"
    _empty(folder)
    path.write_bytes(content)
    try:
        reader.read(path)
    except reader.refusals as error:
        lines, length = len(str(error).splitlines()), len(str(error))
        if lines == 1 and length <= MOST_MESSAGE:
            return {"result": "refused"}
        return {"result": "fault", "what": f"a message of {lines} lines, {length} characters: {str(error)[:200]!r}"}
    except BaseException:  # whatever it is, a reader should not let it through
        return {"result": "fault", "what": traceback.format_exc(limit=-3, chain=False)}
    return {"result": "read"}


def _empty(folder):
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


if __name__ == "__main__":
    main()
