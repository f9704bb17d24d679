"""The fixtures of commands, for those of the Atari application."""

from tests.commands.conftest import make_run, refused  # noqa: F401
