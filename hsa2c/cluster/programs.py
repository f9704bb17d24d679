"""Programs that are asked something, and say it in a few lines."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from hsa2c.errors import ConfigError, HSA2CError


def ask(
    command: Sequence[str], limit_s: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its exit code is; gives back what it has said.

    Args:
        command: The program, by its path or by its name in the PATH, and its arguments.
        limit_s: How long it may take, in seconds.
        environment: None: this process's.

    Raises:
        ConfigError: It is no program that can be started here.
        HSA2CError: It takes too long.
    """
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except OSError as error:
        raise ConfigError(f"{command[0]}: cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise HSA2CError(f"{' '.join(command[:2])}: no answer in {limit_s:.0f} s") from None
