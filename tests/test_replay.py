"""Real runs, recorded and repeated: over MPI, and killed in one process."""

import subprocess
import sys

import pytest

from hsa2c.commands import replay
from hsa2c.recording.format import Kind, Recording
from tests.processes import PATIENCE_S, REPOSITORY, SHORT_GAMES, TESTS, environment, started, training

pytestmark = pytest.mark.timeout(300)


def computed_anew(directory):
    """Exit code and lines of a repetition, in a process of its own."""
    command = [sys.executable, "train.py", "--replay", str(directory), "--recompute"]
    run = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment()
    )
    assert run.stderr == ""
    return run.returncode, run.stdout.splitlines()


@pytest.mark.slow
def test_two_nodes_over_mpi_are_repeated_and_computed_anew(tmp_path):
    """Games and all: each node's deltas from the v that it saw, bit for bit, with rounding on the wire both ways."""
    options = ("--nodes", 2, "--exchange", "paper", "--delta-dtype", "bfloat16", "--momentum", 0.5, "--record")
    with training(tmp_path, *options, *SHORT_GAMES, "--agent-steps", 300) as run:
        assert run.end() == 0, run.stderr()
        last = run.checkpoint()
    code, lines = computed_anew(run.directory)
    assert code == 0, lines
    exchanges = last.counters["exchanges"]
    assert lines[0].startswith(
        "recording-1.bin: the same, bit for bit, after each step:"
        f" {last.t} global steps, {exchanges} deltas of 2 nodes,"
    )
    assert lines[1].startswith("recording-1.bin: v is also that of ")
    assert lines[1].endswith(f"step-{last.t:09d}.safetensors")
    assert lines[2:] == [f"recording-1.bin: {exchanges} deltas computed anew, from the v that its node saw: the same"]


def test_a_killed_run_is_repeated_as_far_as_it_came(tmp_path, capsys):
    command = (TESTS / "faulty_application.py", tmp_path, "quiet", "output.record=true")
    with started(tmp_path / "quiet", *command) as run:
        run.wait_for_checkpoint()
        run.kill()
    recording = Recording(run.directory / "recording-1.bin")
    steps = [frame.t for frame in recording.frames() if frame.kind is Kind.STEP]
    recording.close()
    assert replay.main([str(run.directory)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"t = {steps[-1]}," in lines[0]
    assert run.checkpoint().t <= steps[-1]
    assert lines[1] == f"recording-1.bin: v is also that of step-{run.checkpoint().t:09d}.safetensors"
    assert lines[2].endswith("the recording has no end: the master was killed; all that is there was repeated")
