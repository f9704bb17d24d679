"""`--evaluate-every` by real processes: one node and two, own code, Ctrl-C, a kill, a broken environment, a resume."""

import json
import os
import signal
import time

import gymnasium
import numpy as np
import psutil
import pytest
from gymnasium.spaces import Box, Discrete

import hsa2c
from hsa2c.run import checkpoint as checkpoints
from tests.processes import REPOSITORY, SHORT_GAMES, started, training, wait_until

pytestmark = pytest.mark.timeout(300)

FAST = {"env.num_envs": 4, "agent.t_max": 32, "output.log_every_s": 0.3, "output.checkpoint_every_s": 1.0}
MINE = '''
import os, time
from pathlib import Path
import gymnasium, numpy as np
from gymnasium.spaces import Box, Discrete


class Reach(gymnasium.Env):
    """Walk to the right. Evaluated, it does what the files in a folder say: hangs or raises."""

    observation_space, action_space = Box(-10, 10, (2,)), Discrete(2)
    evaluated = False

    def __init__(self, folder):
        self.folder = Path(folder)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None and 10_000 <= seed < 10_010:
            Reach.evaluated = True
            (self.folder / "pid").write_text(str(os.getpid()))
        while Reach.evaluated and (self.folder / "hang").exists():
            time.sleep(0.05)
        if Reach.evaluated and (self.folder / "raise").exists():
            raise OSError("no board")
        self.x, self.age = float(self.np_random.normal()), 0
        return self.seen(), {}

    def step(self, action):
        self.x, self.age = self.x + (0.1 if action else -0.1), self.age + 1
        return self.seen(), float(action), False, self.age == 20, {}

    def seen(self):
        return np.float32([self.x, self.age / 20])
'''


@pytest.fixture
def mine(tmp_path):
    """Starts runs of a file outside the checkout."""
    (tmp_path / "mine.py").write_text(MINE)
    settings = [word for name, value in FAST.items() for word in ("--set", f"{name}={value}")]

    def mine(*options, env=(), name="run"):
        about = ("--env", f"{tmp_path / 'mine.py'}:Reach", "--set", f"env.options={{folder: '{tmp_path}'}}")
        where = ("--run-dir", tmp_path, "--name", name, "--p", 1, "--B", 2, "--evaluate-every", 0.5)
        return started(tmp_path / name, "train.py", *about, *where, *settings, *options)

    return mine


def evaluations(run):
    return run.events("evaluation")


def failures(run):
    return [event["message"] for event in run.events("warning") if "evaluation" in event["message"]]


def check_best(directory):
    """The best checkpoint is the best evaluated, and says so; the last v was evaluated, too."""
    run = hsa2c.Run(directory)
    row = run.rows()[-1]
    best = checkpoints.load(checkpoints.best(directory / "checkpoints"))
    assert best.counters["evaluated"]["score_mean"] == row["evaluate/best_score_mean"]
    assert row["evaluate/step"] == row["agent_steps"]
    assert not checkpoints.candidate(directory / "checkpoints").exists()
    return row


def test_own_code_as_an_object_is_evaluated_in_a_process_of_its_own(tmp_path):
    pids = tmp_path / "pids"

    class Reach(gymnasium.Env):
        observation_space, action_space = Box(-1, 1, (1,)), Discrete(2)

        def reset(self, *, seed=None, options=None):
            self.age = 0
            if seed is not None and 10_000 <= seed < 10_010:
                pids.open("a").write(f"{os.getpid()} {os.nice(0)}\n")
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.age += 1
            return np.zeros(1, np.float32), float(action), False, self.age == 10, {}

    options = {"run_dir": tmp_path, "name": "run", "p": 1, "B": 2, "agent_steps": 2000, "progress": False}
    run = hsa2c.train(env=Reach, evaluate_every=0.2, settings=FAST, force=True, **options)
    row = check_best(run.dir)
    assert 0 <= row["evaluate/score_min"] <= row["evaluate/score_mean"] <= row["evaluate/score_max"] <= 10
    assert (row["evaluate/episodes"], row["evaluate/length_mean_steps"]) == (10, 10)
    assert row["faults/evaluations_failed"] == 0
    processes = [tuple(map(int, line.split())) for line in pids.read_text().splitlines()]
    assert os.getpid() not in dict(processes)
    assert processes[-1][1] == os.nice(0), "the last one is not beside training"
    assert psutil.Process().children() == []


@pytest.mark.slow
def test_a_run_is_evaluated_and_remembers_the_best_when_it_is_resumed(mine):
    with mine("--nodes", 2, "--agent-steps", 2000, "--json") as run:
        assert run.end() == 0, run.stderr()
        run.assert_gone()
    before = check_best(run.directory)
    said = json.loads(run.launcher.stdout_path.read_text())
    assert said["evaluated_score"] == before["evaluate/score_mean"]
    assert said["best_evaluated_score"] == before["evaluate/best_score_mean"]
    assert "| evaluated " in run.stderr()
    again = hsa2c.resume(run.directory, agent_steps=said["agent_steps"] + 1000, progress=False, force=True)
    after = check_best(again.dir)
    assert after["evaluate/best_score_mean"] >= before["evaluate/best_score_mean"]
    assert again.plot(tags=["evaluate/score_mean"]).exists()
    assert "Evaluation" in again.report().read_text()


@pytest.mark.slow
def test_a_killed_evaluation_is_counted_and_the_next_one_goes_well(mine, tmp_path):
    (tmp_path / "hang").touch()
    with mine("--minutes", 5) as run:
        wait_until((tmp_path / "pid").exists, "an evaluation")
        (tmp_path / "hang").unlink()
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGSTOP)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        wait_until(lambda: evaluations(run), "another evaluation")
        assert run.launcher.poll() is None
        (said,) = failures(run)
        assert said.endswith("SIGKILL")
        run.launcher.send_signal(signal.SIGINT)
        assert run.end() == 130
        assert run.rows()[-1]["faults/evaluations_failed"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_ctrl_c_ends_an_evaluation_too(mine, tmp_path, nodes):
    (tmp_path / "hang").touch()
    with mine("--nodes", nodes, "--minutes", 5) as run:
        wait_until((tmp_path / "pid").exists, "an evaluation")
        asked_at = time.monotonic()
        run.launcher.send_signal(signal.SIGINT)
        assert run.end() == 130
        assert time.monotonic() - asked_at < 20, "it does not wait for the evaluation"
        run.assert_gone()
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    assert run.checkpoint()
    assert not run.events("evaluating")


@pytest.mark.slow
def test_ctrl_c_ends_the_last_evaluation(mine, tmp_path):
    (tmp_path / "hang").touch()
    with mine("--agent-steps", 300, "--set", "evaluation.every_s=3600") as run:
        wait_until(lambda: run.events("evaluating"), "the last evaluation")
        run.launcher.send_signal(signal.SIGINT)
        assert run.end() == 130
        run.assert_gone()
        assert run.events("stop")[-1]["message"].endswith("agent steps (limit 300)")


@pytest.mark.slow
def test_a_broken_environment_ends_evaluation_and_not_training(mine, tmp_path):
    (tmp_path / "raise").touch()
    with mine("--minutes", 5) as run:
        wait_until(lambda: len(failures(run)) == 4, "failures")
        assert "episodes failed" in failures(run)[0]
        assert "no board" in failures(run)[0]
        assert failures(run)[-1].startswith("3 evaluations in a row failed")
        rows = len(run.rows())
        wait_until(lambda: len(run.rows()) > rows + 1, "training that goes on")
        run.launcher.send_signal(signal.SIGINT)
        assert run.end() == 130
        assert checkpoints.best(run.directory / "checkpoints") is None


@pytest.mark.slow
def test_a_kill_of_everything_leaves_a_run_that_is_resumed(mine, tmp_path):
    with mine("--minutes", 5) as run:
        wait_until(lambda: evaluations(run) and run.events("checkpoint"), "an evaluation")
        run.kill()
        wait_until(lambda: not run.processes(), "the end of every process")
    (best,) = [event["evaluate/best_score_mean"] for event in evaluations(run)][-1:]
    steps = run.checkpoint().counters["agent_steps"]
    hsa2c.resume(run.directory, minutes=5, agent_steps=steps + 500, progress=False, force=True)
    assert check_best(run.directory)["evaluate/best_score_mean"] >= best


@pytest.mark.slow
def test_games_are_evaluated_too(tmp_path):
    options = ("--game", "Pong", *SHORT_GAMES, "--set", "evaluation.episodes=2", "--evaluate-every", 1)
    with training(tmp_path, *options, "--agent-steps", 100) as run:
        assert run.end() == 0, run.stderr()
        run.assert_gone()
    row = check_best(run.directory)
    assert (row["evaluate/episodes"], row["games"] >= 0) == (2, True)
    assert row["evaluate/score_mean"] <= 0


@pytest.mark.parametrize(
    ("value", "said"), [("0", "evaluation.every_s"), ("soon", "--evaluate-every"), ("nan", "evaluation.every_s")]
)
def test_bad_input_is_one_line(tmp_path, value, said):
    with started(tmp_path / "run", "train.py", "--evaluate-every", value, "--run-dir", tmp_path) as run:
        assert run.end() == 2
        (line,) = run.stderr().splitlines()
        assert said in line
    assert not (tmp_path / "run").exists()


def test_topics_are_not_evaluated_beside_training(tmp_path):
    with started(tmp_path / "run", "-m", "examples.lda", "--evaluate-every", "5", "--run-dir", tmp_path) as run:
        assert run.end() == 2
        assert "--evaluate-every" in run.stderr()
        assert str(REPOSITORY) not in run.stderr()
