"""The virtual cluster, as its user starts it: short runs in processes of their own."""

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest

import hsa2c
from hsa2c.observe.runlog import read_rows
from hsa2c.run import checkpoint as checkpoints
from tests.processes import REPOSITORY

pytestmark = pytest.mark.timeout(300)

COMMAND = [sys.executable, "-m", "bench.virtual"]
CARTPOLE = ["--env", "CartPole-v1", "--nodes", "2", "--p", "2", "--B", "4", "--update-ms", "5"]
ATARI = ["--game", "Pong", "--nodes", "2", "--p", "2", "--B", "4", "--update-ms", "40"]
TINY = ["--set", "agent={num_envs: 2, t_max: 64, precision: float32}"]


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*options, name="run"):
        arguments = [*COMMAND, *options, "--run-dir", str(tmp_path), "--json"]
        arguments += [] if "--resume" in options else ["--name", name]
        started.append(
            subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def play(start):
    def play(*options, **more):
        process = start(*options, **more)
        out, errors = process.communicate()
        return process.returncode, json.loads(out) if out else None, errors

    return play


def newest(directory):
    return checkpoints.load_newest(directory / "checkpoints")[0]


def events(directory, kind):
    path = directory / "journal.jsonl"
    return [row for row in read_rows(path) if row["kind"] == kind] if path.exists() else []


@pytest.mark.slow
def test_a_run_is_measured_in_the_clusters_time_and_goes_on(play, tmp_path):
    code, found, errors = play(*CARTPOLE, "--cluster-minutes", "0.005")
    assert code == 0, errors
    assert found["cluster_s"] == pytest.approx(0.3, abs=0.05)
    assert 0.8 < found["updates"] / (4 * 0.3 / 0.005) < 1.1
    assert found["agent_steps"] > 0
    assert found["exchanges"] >= 2 * found["global_steps"] - 1
    assert 0 < found["tau_mean"] < 5
    assert found["reached"] is None  # no score was asked for
    assert (found["nodes"], found["p"], found["seed"]) == (2, 2, 1)
    directory = tmp_path / "run"
    first = newest(directory)
    assert len(first.optimiser_states) == 2
    assert all(state.any() for state in first.optimiser_states)

    with pytest.raises(hsa2c.ConfigError, match="simulated"):
        hsa2c.resume(directory, minutes=1, progress=False)
    assert newest(directory).t == first.t

    code, found, errors = play("--resume", str(directory), "--cluster-minutes", "0.01", "--link", "1Gbit,1ms")
    assert code == 0, errors
    assert found["cluster_s"] == pytest.approx(0.6, abs=0.05)
    assert found["model"]["update_ms"] == 5  # kept
    assert found["model"]["link"] == "1Gbit,1ms"
    assert newest(directory).t > first.t
    rows = read_rows(directory / "metrics.jsonl")
    assert rows[-1]["agent_steps"] == found["agent_steps"]


@pytest.mark.slow
def test_results_do_not_depend_on_the_processes_that_compute(play, tmp_path):
    for processes in ("1", "2"):
        code, _, errors = play(*ATARI, *TINY, "--agent-steps", "1000", "--processes", processes, name=processes)
        assert code == 0, errors
    one, two = (newest(tmp_path / processes) for processes in ("1", "2"))
    assert one.v.tobytes() == two.v.tobytes()
    assert [state.tobytes() for state in one.optimiser_states] == [state.tobytes() for state in two.optimiser_states]
    assert one.counters["elapsed_s"] == two.counters["elapsed_s"]


@pytest.mark.slow
def test_slow_nodes_are_slow(play, tmp_path):
    code, _, errors = play(*CARTPOLE, "--stragglers", "0.5,4", "--cluster-minutes", "0.02")
    assert code == 0, errors
    lines = [line["nodes"] for line in read_rows(tmp_path / "run" / "nodes.jsonl")]
    slow, fast = (sum(each["updates"] for line in lines for each in line if each["node"] == node) for node in (0, 1))
    assert fast / slow == pytest.approx(4, rel=0.2)


@pytest.mark.slow
def test_a_node_that_dies_is_missed_after_its_silence(play, tmp_path):
    options = ["--node-hours", "0.001", "--set", "cluster.absence_s=2"]  # node 1 dies after 1.1 s, node 0 after 3.9 s
    code, _, errors = play(*CARTPOLE, *options, "--cluster-minutes", "0.06")
    assert code == 0, errors
    (lost,) = events(tmp_path / "run", "node_lost")
    assert lost["node"] == 1


def wait_until_it_trains(process, directory):
    end, metrics = time.monotonic() + 100, directory / "metrics.jsonl"
    while not (metrics.exists() and any(row["global_steps"] for row in read_rows(metrics))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_ctrl_c_ends_it_in_good_order_and_soon(start, tmp_path):
    process = start(*CARTPOLE, "--set", "output.log_every_s=0.1")
    wait_until_it_trains(process, tmp_path / "run")
    children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGINT)
    began_at = time.monotonic()
    out, _ = process.communicate()
    assert time.monotonic() - began_at < 20
    assert process.returncode == 130
    assert json.loads(out)["reason"] == "asked to stop"
    assert newest(tmp_path / "run").t > 0
    assert not any(child.is_running() for child in children)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_by_name_and_what_there_was_is_kept(start, tmp_path):
    process = start(*CARTPOLE, "--set", "output.log_every_s=0.1")
    wait_until_it_trains(process, tmp_path / "run")
    child = psutil.Process(process.pid).children()[0]
    child.kill()
    process.communicate()
    assert process.returncode == 1
    (error,) = events(tmp_path / "run", "error")
    assert f"pid {child.pid}" in error["message"]
    assert newest(tmp_path / "run").t > 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--link", "fast"], "--link fast"),
        (["--stragglers", "2,1"], "--stragglers 2"),
        (["--gathering", "1"], "--gathering 1"),
        (["--processes", "0"], "--processes 0"),
        (["--minutes", "0"], "--minutes 0"),
        (["--nodes", "2", "--set", "cluster.spares=1"], "cluster.spares = 1"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(options, named, capsys, tmp_path):
    from bench.virtual.__main__ import main

    assert main([*options, "--run-dir", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert named in errors
    assert not any(tmp_path.iterdir())
