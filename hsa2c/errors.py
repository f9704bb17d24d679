"""The errors a user can meet, one small tree.

Messages are one line that names the value, the rule and who: ``node 3: no reply from the master in 60 s``.
"""

from __future__ import annotations

from pathlib import Path

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_NOT_STARTED = 3  # of the job, to its launcher: stopped before every node was ready
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_TERMINATED = 143  # 128 + SIGTERM

_LONGEST = 1000  # characters of a message


class HSA2CError(Exception):
    """Whatever this project raises on purpose."""

    exit_code = EXIT_FAILED


class ConfigError(HSA2CError):
    """Bad input: an option, a YAML field, a run directory. One line; of a very long one the middle is left out,
    which repeats the input.
    """

    exit_code = EXIT_BAD_INPUT

    def __init__(self, message: str) -> None:
        half = _LONGEST // 2
        super().__init__(message if len(message) <= _LONGEST else f"{message[:half]} ... {message[-half:]}")


class FinishedError(HSA2CError):
    """There is nothing left to do: a run that was to go on, if it can, has reached its limit.

    Attributes:
        directory: The run's.
    """

    exit_code = EXIT_DONE

    def __init__(self, directory: Path, reached: str) -> None:
        super().__init__(f"{directory}: nothing left to do: {reached}; raise the limit to go on")
        self.directory = directory


class CheckpointError(ConfigError):
    """A checkpoint that is missing, damaged, or of another application or network."""


class NodeError(HSA2CError):
    """A node, or one of its actor-learners, failed; the message holds its traceback if there is one."""


class EvaluationError(HSA2CError):
    """An evaluation beside training failed; a traceback may follow the first line."""


class ProblemError(HSA2CError):
    """An application gave vectors that do not fit each other: its gradient, its v_0 or its optimiser's state."""


class StorageError(HSA2CError):
    """A file could not be written: the disk is full or read-only. What was there before is still there."""


class OutputError(HSA2CError):
    """A result could not be written to stdout: its reader has gone, it is closed, or the disk behind it is full."""


class TransportError(HSA2CError):
    """A peer did not answer within the limit, or sent what is not a message of this run."""
