"""Agents in any environment by real processes: train, resume, evaluate, load; an environment's faults."""

import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from torch import nn

import hsa2c
from hsa2c import names
from hsa2c.agents.gym.application import APPLICATION
from hsa2c.commands import train
from hsa2c.commands.choice import lead
from tests.commands.conftest import files_of
from tests.processes import PATIENCE_S, REPOSITORY, environment

pytestmark = pytest.mark.timeout(300)

MINE = '''
import contextlib, os, signal, time
import gymnasium, numpy as np, torch
from gymnasium.spaces import Box, Discrete, Dict, Text
from torch import nn


class Reach(gymnasium.Env):
    """Walk to the right: each step there is rewarded."""

    observation_space, action_space = Box(-10, 10, (2,)), Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.age = float(self.np_random.normal()), 0
        return self.seen(), {}

    def step(self, action):
        self.x, self.age = self.x + (0.1 if action else -0.1), self.age + 1
        return self.seen(), float(action), False, self.age == 20, {}

    def seen(self):
        return np.float32([self.x, self.age / 20])


class Bad(Reach):
    """Fails as it is told: in each way once, of those that have a file; or always."""

    def __init__(self, how, once=None, at=5):
        self.how, self.once, self.at = how, once, at

    def step(self, action):
        how = self.left() if self.age == self.at else None
        if how == "raise":
            raise OSError("no board")
        if how == "hang":
            time.sleep(3600)
        if how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "nan":
            return np.float32([np.nan, 0]), 0.0, False, False, {}
        return super().step(action)

    def left(self):
        for how in self.how.split():
            if self.once is None:
                return how
            with contextlib.suppress(FileNotFoundError):
                os.remove(f"{self.once}-{how}")
                return how


class Dies(Reach):
    def __init__(self):
        os._exit(3)


class Masked(Reach):
    def reset(self, **how):
        return super().reset(**how)[0], {"action_mask": np.int8([0, 0])}


class Several(Reach):
    single_observation_space = None


class Words(Reach):
    observation_space = Text(3)


class Network(nn.Module):
    def __init__(self, observations, actions, out=None):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(observations.shape[0], 16), nn.Tanh())
        self.policy, self.value = nn.Linear(16, out or int(actions.n)), nn.Linear(16, 1)

    def forward(self, x):
        x = self.body(x)
        return self.policy(x), self.value(x)


class Normed(Network):
    def __init__(self, observations, actions):
        super().__init__(observations, actions)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x):
        return super().forward(self.norm(x))


class Slow(Reach):
    def reset(self, **how):
        time.sleep(3600)


def wide(observations, actions):
    return Network(observations, actions, out=7)


def loss(batch, output):
    kept = batch.valid
    return -(batch.advantages * output.log_p)[kept].mean() + 0.5 * (batch.returns - output.values)[kept].square().mean()


def no_loss(batch, output):
    return batch.returns.mean()


class Licensed(Reach):
    def __init__(self):
        raise SystemExit("no licence")


def nothing():
    return None


number = 3
'''
SMALL = (
    *("--set", "env.num_envs=4", "--set", "agent.t_max=32"),
    *("--set", "output={log_every_s: 0.3, checkpoint_every_s: 1.0}", "--json"),
)


@pytest.fixture
def mine(tmp_path):
    """A file outside the checkout, with environments, a network and a loss; the command runs beside it."""
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def call(folder, program, *arguments, code=0):
    """What a command printed, and its lines for people."""
    command = [sys.executable, str(REPOSITORY / program), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def trained(folder, *arguments, code=0, name="run"):
    out, err = call(
        folder, "train.py", *arguments, "--run-dir", folder, "--name", name, "--p", 1, "--B", 2, *SMALL, code=code
    )
    return json.loads(out.splitlines()[-1]), err


def last_row(folder, name="run"):
    return [row for row in hsa2c.Run(folder / name).rows() if "episodes" in row][-1]


# From the command line


def test_cart_pole_trains(tmp_path):
    result, _ = trained(tmp_path, "--env", "CartPole-v1", "--agent-steps", 500)
    assert result["reason"].endswith("agent steps (limit 500)")
    assert result["episodes"] > 5
    row = last_row(tmp_path)
    assert row["score/mean_100"] > 10
    assert row["faults/environments"] == 0


@pytest.mark.slow
def test_cart_pole_is_resumed_evaluated_and_loaded(tmp_path):
    result, _ = trained(tmp_path, "--env", "CartPole-v1", "--agent-steps", 3000)
    limit = result["agent_steps"] + 2000
    out, _ = call(tmp_path, "train.py", "--resume", tmp_path / "run", "--agent-steps", limit, "--json")
    again = json.loads(out.splitlines()[-1])
    assert again["episodes"] > result["episodes"]
    out, _ = call(tmp_path, "evaluate.py", tmp_path / "run", "--games", 3, "--greedy", "--json")
    told = json.loads(out)
    assert (len(told["scores"]), told["episodes"], told["environment"]) == (3, 3, "CartPole-v1")
    assert told["trained_agent_steps"] >= limit
    policy = hsa2c.load(tmp_path / "run", greedy=True)
    assert policy(np.zeros(4, np.float32)) in gymnasium.spaces.Discrete(2)
    assert policy.batch(np.zeros((5, 4), np.float32), [None] * 5).shape == (5,)


@pytest.mark.slow
def test_cart_pole_is_learnt_within_a_minute(tmp_path):
    out, _ = call(
        tmp_path, "train.py", "--env", "CartPole-v1", "--minutes", 1, "--score", 400, "--run-dir", tmp_path, "--json"
    )
    result = json.loads(out.splitlines()[-1])
    assert result["best_mean_score"] >= 400, result


@pytest.mark.slow
def test_pictures_of_a_run(tmp_path):
    pytest.importorskip("imageio", reason="videos need hsa2c[video]")
    pytest.importorskip("pygame", reason="CartPole draws with gymnasium[classic-control]")
    trained(tmp_path, "--env", "CartPole-v1", "--agent-steps", 1000)
    out, _ = call(tmp_path, "evaluate.py", "run", "--games", 1, "--video", "cart.gif", "--json")
    assert (tmp_path / json.loads(out)["video"]["file"]).stat().st_size > 0
    run = hsa2c.Run(tmp_path / "run")
    assert Path(run.plot()).stat().st_size > 0
    assert "CartPole-v1" in Path(run.report()).read_text(encoding="utf-8")


OWN = ("--env", "mine:Reach", "--network", "mine:Network", "--loss", "mine:loss")


@pytest.mark.slow
def test_own_environment_network_and_loss_learn(mine):
    result, _ = trained(mine, *OWN, "--agent-steps", 20_000)
    assert result["mean_score"] > 12, "an agent that has learnt nothing gets 10 of 20"


@pytest.mark.slow
def test_own_environment_network_and_loss_on_two_nodes(mine):
    result, err = trained(mine, *OWN, "--nodes", 2, "--agent-steps", 2500)
    assert result["episodes"] >= 100, err
    limit = result["agent_steps"] + 2000
    out, _ = call(mine, "train.py", "--resume", "run", "--agent-steps", limit, "--json")
    assert json.loads(out.splitlines()[-1])["agent_steps"] >= limit
    out, _ = call(mine, "evaluate.py", "run", "--games", 2, "--json")
    assert json.loads(out)["environment"] == "mine:Reach"


@pytest.mark.slow
def test_the_same_from_python(mine):
    (mine / "script.py").write_text(
        "import hsa2c\nfrom mine import Network, Reach, loss\n"
        'if __name__ == "__main__":\n'
        "    run = hsa2c.train(env=Reach, network=Network, loss=loss, nodes=2, p=1, agent_steps=3000,\n"
        "        progress=False)\n"
        "    rows = [row for row in run.rows() if 'episodes' in row]\n"
        "    print(rows[-1]['episodes'], run.load()(Reach().reset()[0]))\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=mine, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    episodes, action = map(int, done.stdout.split())
    assert episodes > 50
    assert action in (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("env", "bounds"), [("Pendulum-v1", "clip"), ("MountainCarContinuous-v0", "squash")])
def test_continuous_actions(tmp_path, env, bounds):
    result, _ = trained(tmp_path, "--env", env, "--agent-steps", 2000, "--set", f"agent.bounds={bounds}")
    assert result["agent_steps"] >= 2000
    losses = [row["loss/value"] for row in hsa2c.Run(tmp_path / "run").rows() if "loss/value" in row]
    assert losses, "the last row may have none: nothing was learnt after the one before"
    assert np.isfinite(losses).all()
    action = hsa2c.load(tmp_path / "run")(gymnasium.make(env).reset(seed=1)[0])
    assert action in gymnasium.make(env).action_space


@pytest.mark.slow
@pytest.mark.parametrize(("env", "module"), [("LunarLander-v3", "Box2D"), ("Hopper-v5", "mujoco")])
def test_environments_of_extras(tmp_path, env, module):
    pytest.importorskip(module, reason=f"{env} needs an extra of gymnasium")
    result, _ = trained(tmp_path, "--env", env, "--agent-steps", 1000)
    assert result["agent_steps"] >= 1000


@pytest.mark.slow
def test_memory_solves_what_needs_it(tmp_path):
    """A cue to be remembered, with parts and masks; without memory it is a coin's throw. In documents: 32 steps."""
    settings = {"agent.t_max": 32, "agent.batch": 256, "agent.hidden": 32, "env.num_envs": 16}
    settings["env.options"] = "{delay: 12}"
    typed = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    how = ("--env", "tests.agents.gym.memory:Remember", *typed, "--set", "optimiser.learning_rate=5e-3")
    call(REPOSITORY, "train.py", *how, "--agent-steps", 6000, "--run-dir", tmp_path, "--name", "none", "--p", 1)
    assert last_row(tmp_path, "none")["score/mean_100"] < 0.7
    how = (*how, "--set", "agent.recurrent=lstm", "--minutes", 1.5, "--score", 0.95)
    out, _ = call(REPOSITORY, "train.py", *how, "--run-dir", tmp_path, "--name", "lstm", "--json")
    assert json.loads(out.splitlines()[-1])["best_mean_score"] >= 0.95
    told = hsa2c.evaluate(tmp_path / "lstm", games=50, greedy=True)
    assert told["mean"] > 0.9


# Environments that fail


@pytest.mark.slow
def test_a_fault_costs_an_episode_and_training_goes_on(mine):
    ways = ("raise", "hang", "nan")
    for how in ways:
        (mine / f"once-{how}").touch()
    options = json.dumps({"how": " ".join(ways), "once": str(mine / "once")})
    limit = ("--set", "env.step_limit_s=0.5")
    _, err = trained(mine, "--env", "mine:Bad", "--set", f"env.options={options}", "--agent-steps", 3000, *limit)
    assert last_row(mine)["faults/environments"] == len(ways)
    assert "an environment was made anew: env mine:Bad, copy " in err
    assert not list(mine.glob("once-*"))


@pytest.mark.slow
def test_one_that_ends_its_process_is_replaced_with_it(mine):
    (mine / "once-die").touch()
    options = json.dumps({"how": "die", "once": str(mine / "once")})
    result, err = trained(mine, "--env", "mine:Bad", "--set", f"env.options={options}", "--agent-steps", 3000)
    assert result["agent_steps"] >= 3000
    row = last_row(mine)
    assert sum(number for name, number in row.items() if name.startswith("faults/")) == 1, (row, err)


@pytest.mark.slow
def test_too_many_faults_end_the_run_and_say_why(mine):
    options = json.dumps({"how": "raise", "at": 0})
    _, err = trained(mine, "--env", "mine:Bad", "--set", f"env.options={options}", "--minutes", 1, code=1)
    assert "20 of the last 20 episodes failed; env mine:Bad, copy " in err
    assert "OSError: no board" in err
    assert "Traceback" not in err


def test_the_weights_of_a_network_are_counted_once():
    made = []

    def network(observations, actions):
        made.append(actions)
        return nn.Linear(4, 3)

    config = APPLICATION.build_config({"agent": {"network": names.give(network, "network")}})
    assert APPLICATION.dim(config) == APPLICATION.dim(config) == 15 + 2 * 5 + 1
    assert len(made) == 1


# Bad input: exit code 2, one line, nothing written


@pytest.fixture
def refused(mine, monkeypatch, capsys):
    """The line of a command that must be refused."""
    monkeypatch.chdir(mine)
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # of another test
    monkeypatch.setattr(train, "launch", lambda *_: pytest.fail("a job was started"))

    def refused(*arguments):
        before = files_of(mine)
        try:
            code = train.main([*arguments, "--run-dir", str(mine / "runs")], app=lead(arguments))
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert {path for path in files_of(mine) if "__pycache__" not in path.parts} == set(before)
        return err

    return refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--env cartpole-v1", "did you mean CartPole-v1"),
        ("--env=Pong", "there is --game Pong, or --env ALE/Pong-v5"),
        ("--env xyzzy", "is registered; one of your own is module:function"),
        ("--env mine:Masked", "reset: action_mask [0 0] allows no action of Discrete(2)"),
        ("--env mine:Several", "gave a Several, several environments, must be one"),
        ("--env mine.py", "one of your own is module:function, or /folder/script.py:function"),
        ("--env mine:Reach --loss mine:no_loss", "agent.loss: must give a scalar tensor"),
        ("--env mine:Licensed", "cannot be made: SystemExit: no licence"),
        ("--env Hopper-v2", "cannot be made: ImportError"),
        ("--env no_such_boards:Board-v0", "no module no_such_boards is installed"),
        ("--env mine:Words", "Text is not supported; Box, Discrete"),
        ("--env mine:nothing", "gave a NoneType without observation_space, must be a gymnasium.Env"),
        ("--env mine:number", "is a int, must be a function or class"),
        ("--env mine:absent", "there is no absent in mine"),
        ("--env mine:Bad", "cannot be made: TypeError"),
        ("--env mine:Reach --network mine:wide", "the policy is [2, 7], must be [2, 2]"),
        ("--env mine:Reach --network mine:nothing", "agent.network: cannot be made: TypeError"),
        ("--env mine:Reach --network mine:Network --set agent.recurrent=gru", "agent.recurrent"),
        ("--env mine:Reach --network mine:Normed", "its buffer norm.running_mean changes with use"),
        ("--env mine:Slow --set env.step_limit_s=0.2", "reset fails: TimeoutError: no answer within 0.2 s"),
        ("--env CartPole-v1 --loss reinforce", "must be a2c, ppo, vtrace, or module:function"),
        ("--env CartPole-v1 --loss mine:absent", "there is no absent in mine"),
        ("--env CartPole-v1 --game Pong", "--game"),
        ("--game CartPole-v1", "no such game; did you mean --env CartPole-v1?"),
        ("--game lunarlander", "no such game; did you mean --env LunarLander-v3?"),
        ("--env CartPole-v1 --set agent.foo=1", "agent.foo: no such setting"),
        ("--env CartPole-v1 --set env.options={foo:1}", "unexpected keyword argument"),
        ("--env CartPole-v1 --set agent.recurrent=rnn", "agent.recurrent"),
        ("--game Pong --network mine:Network", "--network"),
        ("--game Pong --loss mine:loss", "must be a2c, ppo or vtrace; one of your own needs --env ALE/Pong-v5"),
    ],
)
def test_bad_input(refused, arguments, said):
    assert said in refused(*arguments.split(" "))


def test_an_environment_that_ends_its_process_does_not_end_the_command(mine):
    _, err = call(mine, "train.py", "--env", "mine:Dies", "--run-dir", "runs", code=2)
    assert err == "train.py: env = 'mine:Dies': made or reset, it ends its process with exit code 3\n"
    assert not (mine / "runs").exists()


def test_a_missing_extra_is_named(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    assert refused("--env", "LunarLander-v3").endswith("needs gymnasium[box2d]: pip install 'hsa2c[gym]'\n")


def test_a_missing_emulator_is_named(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    assert "pip install ale-py" in refused("--env", "ALE/Pong-v5")
