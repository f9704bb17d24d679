"""The programs that the documents show, run as a user runs them."""

import ast
import os
import re
import subprocess
import sys

import pytest

from tests.processes import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
PROGRAMS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "__init__")
MOST_LINES = {"quadratic": 36, "least_squares": 22}  # the bare core; a whole application


def lines_of_code(path):
    """All but empty ones and the docstring."""
    text = path.read_text(encoding="utf-8")
    docstring = ast.parse(text).body[0].end_lineno
    return [line for line in text.splitlines()[docstring:] if line.strip()]


def run(name, folder):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_short_and_shown_as_they_are(name):
    assert len(lines_of_code(EXAMPLES / f"{name}.py")) <= MOST_LINES.get(name, 15)
    pages = "".join(page.read_text(encoding="utf-8") for page in (REPOSITORY / "docs").rglob("*.md"))
    assert re.search(rf"literalinclude\}} ../../examples/{name}\.py$", pages, re.MULTILINE)


@pytest.mark.slow
def test_bare_core(tmp_path):
    numbers = [float(word) for word in run("quadratic", tmp_path).strip("[] \n").split()]
    assert numbers == pytest.approx([3.0] * 10, abs=0.3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_callback(tmp_path):
    *_, last = run("callback", tmp_path).splitlines()
    updates, loss = last.split()
    assert int(updates) > 0
    assert float(loss) < 1e-4


@pytest.mark.slow
def test_resume(tmp_path):
    assert run("resume", tmp_path).split(" ", 1)[1].startswith("updates (limit 6,000)")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["first"]


@pytest.mark.slow
def test_own_metric(tmp_path):
    error, per_exchange = map(float, run("own_metric", tmp_path).split())
    assert error < 0.1
    assert per_exchange > 1


@pytest.mark.slow
def test_digits_on_two_nodes(tmp_path):
    assert ast.literal_eval(run("digits", tmp_path))["accuracy"] >= 0.97


@pytest.mark.slow
def test_own_application_on_two_nodes(tmp_path):
    assert ast.literal_eval(run("least_squares", tmp_path))["residual"] < 1e-3


@pytest.mark.slow
def test_own_environment(tmp_path):
    score, action = run("own_env", tmp_path).split()
    assert float(score) > -6  # a policy that knows nothing: -13
    assert action == "2"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["reach"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own_network", "own_loss"])
def test_own_network_and_loss(name, tmp_path):
    assert float(run(name, tmp_path)) > 150  # a policy that knows nothing: 22
