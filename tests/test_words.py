"""The framework has no word of games: what an application is called, it says itself (`hsa2c.words`)."""

import re
from pathlib import Path

import pytest

FRAMEWORK = Path(__file__).resolve().parents[1] / "hsa2c"
GAMES = r"ale|atari|emulator|episode|game|gymnasium|joystick|pong|rom|score|agent[ _-]?step"
WORD = re.compile(rf"(?<![a-z])(?:{GAMES})s?(?![a-z])", re.IGNORECASE)

#: File to the line that may have one. Both are keys of --json, which scripts of 0.1 read.
EXCEPTIONS = {
    "commands/plan.py": 'found = {"agent_steps_per_s": o.samples_per_s} | asdict(o)',
    "doctor/prediction.py": '"agent_steps_per_s": speed,',
}


def words_of_games():
    """File and line of each."""
    for path in sorted(FRAMEWORK.rglob("*.py")):
        name = path.relative_to(FRAMEWORK).as_posix()
        for line in path.read_text(encoding="utf-8").splitlines():
            if WORD.search(line):
                yield name, line.strip()


def test_only_keys_that_scripts_read_speak_of_games():
    found = list(words_of_games())
    assert [(name, line) for name, line in found if not line.startswith(EXCEPTIONS.get(name, "\0"))] == []
    assert {name for name, _ in found} == EXCEPTIONS.keys(), "an exception that nothing needs"


@pytest.mark.parametrize(
    "line", ["game_error", "its ROMs load", "agent steps/s", "score/mean_100", "of Atari", "ale-py"]
)
def test_such_a_word_is_found(line):
    assert WORD.search(line)


@pytest.mark.parametrize("line", ["from", "scale", "an ssh agent", "underscored", "the ports' chrome"])
def test_others_are_not(line):
    assert not WORD.search(line)
