"""Whole runs in real processes: train, resume, evaluate; signals, kills and failures. Tiny settings throughout.

A start takes seconds, so tests that only look share a run.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hsa2c.agents.application import APPLICATION
from hsa2c.cluster.mpiexec import mpi_starter
from hsa2c.config.loading import read_yaml
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.node.layout import DenseLayout
from hsa2c.node.optimiser import Rule
from hsa2c.node.serial import SerialPool
from hsa2c.observe.runlog import read_rows
from hsa2c.run import checkpoint as checkpoints
from tests.processes import (
    PATIENCE_S,
    REPOSITORY,
    SHORT_GAMES,
    STEPS_PER_UPDATE,
    TINY,
    resuming,
    started,
    training,
    wait_until,
)

pytestmark = pytest.mark.timeout(300)


def evaluate(directory, *options):
    """The JSON object that evaluate.py prints."""
    command = [sys.executable, "evaluate.py", str(directory), "--json", *options]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert run.returncode == 0, run.stderr
    assert all("games have ended" in line for line in run.stderr.splitlines())  # where it takes long
    return json.loads(run.stdout.splitlines()[-1])


# Two nodes and a master over MPI: train, resume, evaluate


@dataclass
class Smoke:
    directory: Path
    first: dict
    second: dict
    stderr: str


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The smoke configuration to its end, then resumed to twice as many agent steps."""
    folder = tmp_path_factory.mktemp("smoke")
    outputs = []
    options = ("--run-dir", folder, "--name", "two", *TINY, *SHORT_GAMES, "--json")
    with started(folder / "two", "train.py", "--config", "smoke", *options) as run:
        assert run.end() == 0, run.stderr()
        run.assert_gone()
        outputs.append(run.launcher.stdout_path.read_text())
    with resuming(folder / "two", "--agent-steps", 1200, "--json") as run:
        assert run.end() == 0, run.stderr()
        run.assert_gone()
        outputs.append(run.launcher.stdout_path.read_text())
        stderr = run.stderr()
    first, second = (json.loads(output.splitlines()[-1]) for output in outputs)
    assert all(output.count("\n") == 1 for output in outputs)
    return Smoke(folder / "two", first, second, stderr)


@pytest.mark.slow
def test_smoke_ends_at_its_limit_and_says_so(smoke):
    for result, limit in ((smoke.first, 600), (smoke.second, 1200)):
        assert (result["exit_code"], result["run"]) == (0, str(smoke.directory))
        assert result["reason"].endswith(f" agent steps (limit {limit:,})")
        # Whatever is on its way when the limit is reached still counts. Nodes go on while they wait for the master's
        # answer, and how long a busy machine lets them wait has no bound: 784 were seen for 600.
        assert limit <= result["agent_steps"] < limit + 60 * STEPS_PER_UPDATE
        assert Path(result["checkpoint"]).is_file() or result is smoke.first
        assert result["games"] > 0
    assert smoke.second["reason"] in smoke.stderr


@pytest.mark.slow
def test_resumed_run_goes_on_in_the_same_files(smoke):
    rows = read_rows(smoke.directory / "metrics.jsonl")
    assert [row["session"] for row in rows] == sorted(row["session"] for row in rows)
    assert {row["session"] for row in rows} == {1, 2}
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps)
    full = [row for row in rows if "elapsed_s" in row]
    (seam,) = (k for k in range(1, len(full)) if full[k]["session"] > full[k - 1]["session"])
    for key in ("agent_steps", "updates", "games", "exchanges", "global_steps", "elapsed_s"):
        before, after, last = full[seam - 1][key], full[seam][key], full[-1][key]
        assert before <= after <= last, key
        assert before < last, key
    # M = 2, and more in the last step of each of the two sessions: two from each node, and one that was left over.
    assert full[-1]["global_steps"] <= full[-1]["exchanges"] <= 2 * full[-1]["global_steps"] + 2 * 3
    assert any(row["speed/node_00"] for row in full), "both nodes worked"
    assert any(row["speed/node_01"] for row in full), "both nodes worked"
    assert all(0 <= row["master/busy"] <= 1 for row in full if row["master/busy"] is not None)
    assert all(row["delta/norm_mean"] > 0 for row in full if row["delta/norm_mean"] is not None)
    assert all(0 < row["delta/agreement"] <= 1 for row in full if row["delta/agreement"])
    assert len(list(smoke.directory.glob("about*.yaml"))) == 2


@pytest.mark.slow
def test_every_update_and_delta_of_both_sessions_is_in_the_account_of_nodes(smoke):
    lines = [line for line in read_rows(smoke.directory / "nodes.jsonl") if "nodes" in line]
    nodes = [node for line in lines for node in line["nodes"]]
    counters = checkpoints.load_newest(smoke.directory / "checkpoints")[0].counters
    assert {node["node"] for node in nodes} == {0, 1}
    assert sum(node["updates"] for node in nodes) == counters["updates_applied"]
    assert sum(sum(node["overlap"].values()) for node in nodes) == counters["updates_applied"]
    assert sum(sum(node["tau"].values()) for node in nodes) == counters["exchanges"]
    assert all(node["wall_s"] >= node["computing_s"] * 0.9 > 0 for node in nodes)


@pytest.mark.slow
def test_journal_tells_the_story(smoke):
    events = read_rows(smoke.directory / "journal.jsonl")
    for session in (1, 2):
        kinds = [event["kind"] for event in events if event["session"] == session]
        assert kinds.count("node_ready") == 2
        assert kinds.count("training") == kinds.count("stop") == 1
        assert kinds[-2:] == ["checkpoint", "stop"]
        assert not {"error", "warning"} & set(kinds)
    assert [event["session"] for event in events if event["kind"] == "resume"] == [2]
    assert (smoke.directory / "log.txt").read_text() == "", "no library grumbles"


@pytest.mark.slow
def test_last_checkpoint_is_the_whole_state(smoke):
    checkpoint, path, skipped = checkpoints.load_newest(smoke.directory / "checkpoints")
    assert (str(path), skipped) == (smoke.second["checkpoint"], [])
    dim = checkpoint.v.size
    assert [state.size for state in checkpoint.optimiser_states] == [2 * dim + 1] * 2
    assert all(state[-1] > 10 for state in checkpoint.optimiser_states), "each node has updated"
    updates = sum(state[-1] for state in checkpoint.optimiser_states)
    assert checkpoint.counters["updates"] == updates, "none counted twice or lost, over two sessions"
    assert checkpoint.t == checkpoint.counters["global_steps"] == smoke.second["global_steps"]
    assert (checkpoint.v != APPLICATION.initial(APPLICATION.build_config(dict(checkpoint.config)))).any()


@pytest.mark.slow
def test_tensorboard_shows_both_sessions_as_one_curve(smoke):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(smoke.directory), size_guidance={"scalars": 0}).Reload()
    steps = [point.step for point in board.Scalars("agent_steps")]
    assert steps == sorted(steps)
    rows = [row["step"] for row in read_rows(smoke.directory / "metrics.jsonl") if "elapsed_s" in row]
    assert steps == rows
    assert {"speed/agent_steps_per_s", "loss/value", "score/mean_100"} <= set(board.Tags()["scalars"])
    histograms = {"staleness/tau", "staleness/overlap", "delta/norm", "delta/cosine"}
    assert histograms <= set(board.Tags()["histograms"])


@pytest.mark.slow
def test_trained_run_can_be_evaluated(smoke):
    result = evaluate(smoke.directory, "--games", "2")
    assert (result["game"], result["games"], len(result["scores"])) == ("Pong", 2, 2)
    assert result["mean"] == pytest.approx(np.mean(result["scores"]))
    assert result["checkpoint"] == smoke.second["checkpoint"]
    assert result["trained_agent_steps"] == smoke.second["agent_steps"]


@pytest.mark.slow
def test_resume_has_nothing_left_to_do(smoke):
    with resuming(smoke.directory) as run:
        assert run.end() == 2
        assert "nothing left to do" in run.stderr()


@pytest.mark.slow
def test_run_started_by_mpiexec_has_its_nodes_from_there(tmp_path):
    """As on a cluster: the user starts the ranks, each is ``train.py``."""
    private = tmp_path / "private"
    private.mkdir()
    starter, variables = mpi_starter(3, private)
    options = ("--config", "smoke", "--run-dir", tmp_path, "--name", "world", *TINY, "--json")
    with started(tmp_path / "world", "train.py", *options, starter=starter, **variables) as run:
        assert run.end() == 0, run.stderr()
        run.assert_gone()
        result = json.loads(run.launcher.stdout_path.read_text())
        assert result["reason"].endswith("agent steps (limit 600)")
        assert "2 of 2 nodes ready" in run.stderr()
        assert run.checkpoint().t == result["global_steps"]


# One node, one actor-learner: the result is known to the bit


ROUND = 2 * STEPS_PER_UPDATE  # agent steps between two exchanges, B = 2
ROUNDS = 6


class Nobody:
    """A listener that never stops anybody."""

    def stopping(self):
        return False

    def tell(self, report):
        pass

    def keep(self, state):
        pass


def reference(config, seams):
    """v and the optimiser's state after so many rounds; the environments begin anew at each seam, as in a resume."""
    optimiser = config.optimiser
    rule = Rule(
        name=optimiser.name,
        learning_rate=optimiser.learning_rate,
        beta1=optimiser.beta1,
        beta2=optimiser.beta2,
        decay=optimiser.decay,
        epsilon=optimiser.epsilon,
    )
    v, state, t = APPLICATION.initial(config), None, 0
    step = GlobalStep(config.dpsgd.global_rate, config.dpsgd.momentum, v.size)
    for rounds in seams:
        problem = APPLICATION.problems(config, 0, t)(0)
        pool = SerialPool(problem, DenseLayout(v.size, rule), state=state)
        for _ in range(rounds):
            w_sum = np.zeros_like(v)
            w_sum += pool.run(v, config.dpsgd.local_updates, rate_scale=1.0, listener=Nobody()) - v
            step(v, w_sum, 1)
            t += 1
        state = pool.state().copy()
        problem.close()
    return v, state


@pytest.fixture(scope="module")
def twice_as_long(tmp_path_factory):
    """Two checkpoints of one run: after its first session, and after its resume to twice the agent steps."""
    folder = tmp_path_factory.mktemp("exact")
    limit = ROUNDS * ROUND
    with training(folder, "--seed", 7, "--agent-steps", limit) as run:
        assert run.end() == 0, run.stderr()
        first = run.checkpoint()
    with resuming(run.directory, "--agent-steps", 2 * limit) as run:
        assert run.end() == 0, run.stderr()
        return APPLICATION.build_config(read_yaml(run.directory / "config.yaml")), first, run.checkpoint()


def assert_equal_bits(checkpoint, expected):
    v, state = expected
    assert checkpoint.v.tobytes() == v.tobytes()
    assert checkpoint.optimiser_states[0].tobytes() == state.tobytes()


@pytest.mark.slow
def test_same_seed_gives_the_same_bits(twice_as_long):
    config, first, _ = twice_as_long
    assert first.counters["agent_steps"] == ROUNDS * ROUND
    assert_equal_bits(first, reference(config, [ROUNDS]))


@pytest.mark.slow
def test_another_seed_gives_others(twice_as_long):
    config, first, _ = twice_as_long
    other = APPLICATION.build_config(dict(first.config) | {"seed": 8})
    v, _ = reference(other, [ROUNDS])
    assert (v != first.v).any()
    assert config.seed == 7


@pytest.mark.slow
def test_resume_gives_the_same_bits_as_a_run_without_a_stop(twice_as_long):
    config, first, second = twice_as_long
    assert (first.t, second.t) == (ROUNDS, 2 * ROUNDS)
    assert second.counters["agent_steps"] == 2 * ROUNDS * ROUND
    assert_equal_bits(second, reference(config, [ROUNDS, ROUNDS]))


# Signals


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_writes_a_checkpoint_and_ends(tmp_path, signum, code):
    with training(tmp_path) as run:
        run.wait_for_checkpoint()
        run.launcher.send_signal(signum)
        assert run.end() == code
        run.assert_gone()
        (stop,) = run.events("stop")
        assert run.checkpoint().t == stop["global_steps"]
        assert Path(stop["checkpoint"]).is_file()
        assert run.rows()[-1]["exchanges"] == stop["exchanges"]
        assert f"{signal.Signals(signum).name}: writing a checkpoint and stopping" in run.stderr()


def test_signal_before_training_begins_ends_at_once(tmp_path):
    with training(tmp_path) as run:
        wait_until(run.job, "the launch")
        run.launcher.send_signal(signal.SIGTERM)
        assert run.end() == 143
        run.assert_gone()
        assert not run.events("training")


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_second_ctrl_c_ends_a_job_that_does_not_stop(tmp_path, nodes):
    with training(tmp_path, "--nodes", nodes) as run:
        run.wait_for_checkpoint()
        run.job().suspend()
        run.launcher.send_signal(signal.SIGINT)
        wait_until(lambda: "once more to stop at once" in run.stderr(), "the answer to the first Ctrl-C")
        with pytest.raises(subprocess.TimeoutExpired):
            run.launcher.wait(1.0)
        run.launcher.send_signal(signal.SIGINT)
        assert run.end() == 130
        run.assert_gone()
        assert run.checkpoint().t > 0


# Kills, one node


@pytest.mark.slow
def test_kill_of_the_launcher_ends_the_run(tmp_path):
    with training(tmp_path) as run:
        run.wait_for_checkpoint()
        t = run.checkpoint().t
        run.launcher.kill()
        run.assert_gone()
        assert run.checkpoint().t >= t


@pytest.mark.slow
def test_kill_of_the_job_is_told(tmp_path):
    with training(tmp_path) as run:
        run.wait_for_checkpoint()
        run.job().kill()
        assert run.end() == 1
        run.assert_gone()
        assert "the job failed (killed by SIGKILL)" in run.stderr()
        assert (run.directory / "log.txt").read_text() == "", "else it is pointed to"
        assert "log.txt" not in run.stderr()
        assert run.checkpoint().t > 0


# Kills, two nodes over MPI


def victims(run):
    """Process ids of the launcher and of mpiexec."""
    return {"launcher": run.launcher.pid, "mpiexec": run.job().pid}


@pytest.mark.slow
@pytest.mark.parametrize(("who", "code"), [("launcher", -9), ("mpiexec", 1)])
def test_kill_in_a_world_of_mpi_leaves_nothing(tmp_path, who, code):
    with training(tmp_path, "--nodes", 2) as run:
        run.wait_for_checkpoint()
        assert len(run.processes()) >= 7, "launcher, mpiexec, master, and two nodes with an actor-learner each"
        os.kill(victims(run)[who], signal.SIGKILL)
        assert run.end() == code
        run.assert_gone()
        assert run.checkpoint().t > 0
        if who != "launcher":
            assert "the job failed" in run.stderr()
