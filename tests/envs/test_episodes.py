"""Several copies of any environment: autoreset, ends, faults, and what makes them."""

import signal
import sys
import time

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from hsa2c.envs.episodes import Envs
from hsa2c.envs.making import make_one, maker, try_reset
from hsa2c.errors import ConfigError, ProblemError
from tests.agents.gym.scripted import Scripted

N = 2
ACTIONS = np.zeros(N, np.int64)


def numbers(observations):
    return [tuple(map(int, one)) for one in observations]


@pytest.mark.parametrize("truncates", [False, True])
def test_an_episode_ends_on_its_last_observation_and_then_begins_anew(truncates):
    envs = Envs(lambda: Scripted(2, truncates), N, seed=7)
    assert numbers(envs.reset()[0]) == [(7, 0, 0), (8, 0, 0)]
    steps = [envs.step(ACTIONS) for _ in range(4)]
    assert [numbers(step.observations)[1] for step in steps] == [(8, 0, 1), (8, 0, 2), (8, 1, 0), (8, 1, 1)]
    assert [step.rewards.tolist() for step in steps] == [[1, 1], [2, 2], [0, 0], [1, 1]]
    assert [step.valid.all() for step in steps] == [True, True, False, True]
    assert [step.terminated.all() for step in steps] == [False, not truncates, False, False]
    assert [step.truncated.all() for step in steps] == [False, truncates, False, False]
    assert [step.episodes for step in steps] == [(), ((3.0, 2),) * 2, (), ()]
    assert envs.faults == 0


def test_terminated_counts_where_both_are_said():
    class Both(Scripted):
        def step(self, action):
            return (*super().step(action)[:2], True, True, {})

    envs = Envs(Both, N, seed=1)
    envs.reset()
    step = envs.step(ACTIONS)
    assert step.terminated.all()
    assert not step.truncated.any()


class Faulty(Scripted):
    """Fails in its own way in the second step of its first episode, wherever it is not made anew."""

    made = 0

    def __init__(self, fails):
        super().__init__(3)
        self.fails, self.number = fails, Faulty.made
        Faulty.made += 1

    def step(self, action):
        if self.number == 0 and self.step_number == 1:
            return self.fails(self)
        return super().step(action)


def hang(env):
    time.sleep(60)


def wrong(**given):
    def step(env):
        observation, reward, *more = Scripted.step(env, 0)
        return given.get("observation", observation), given.get("reward", reward), *more

    return step


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        (lambda env: 1 / 0, "ZeroDivisionError: division by zero"),
        (hang, "TimeoutError: no answer within 0.3 s"),
        (wrong(reward=float("nan")), "ValueError: reward nan is not finite"),
        (wrong(observation=np.float32([1, np.nan, 2])), "ValueError: observation is not finite"),
        (wrong(observation=np.float32([1, 2])), "ValueError: observation has shape (2,), must have (3,)"),
        (wrong(observation=None), "ValueError: observation has shape (), must have (3,)"),
        (lambda env: (env.seen()[0], 0.0), "ValueError: step gives 2 values, must give 5: observation, reward, "),
        (lambda env: None, "ValueError: step gives a NoneType, must give 5: observation"),
        (wrong(reward=np.ones(1)), "ValueError: reward array([1.]), terminated False"),
        (lambda env: sys.exit("no licence"), "SystemExit: no licence"),
    ],
    ids=["raises", "hangs", "reward", "nan", "shape", "none", "old step", "nothing", "no number", "exit"],
)
def test_a_fault_costs_its_episode_and_is_counted(fails, said):
    Faulty.made = 0
    envs = Envs(lambda: Faulty(fails), N, seed=7, step_limit_s=0.3, name="env mine:Faulty")
    envs.reset()
    envs.step(ACTIONS)
    step = envs.step(ACTIONS)
    assert step.valid.tolist() == [False, True]
    assert numbers(step.observations) == [(9, 0, 0), (8, 0, 2)], "made anew, with another seed"
    assert (step.rewards[0], step.episodes) == (0, ())
    assert envs.faults == 1
    assert envs.last_fault.startswith("env mine:Faulty, copy 0, after 1 steps: ")
    assert said in envs.last_fault
    later = [envs.step(ACTIONS) for _ in range(3)]
    assert [episode for step in later for episode in step.episodes] == [(6.0, 3)] * 2, "no score of a lost episode"
    assert envs.faults == 1
    envs.close()


def test_a_reset_that_fails_is_tried_in_a_new_one():
    class Fails(Scripted):
        made = 0

        def __init__(self):
            super().__init__()
            Fails.made += 1

        def reset(self, **how):
            if Fails.made < 5:
                raise OSError("no board")
            return super().reset(**how)

    envs = Envs(Fails, N, seed=1)
    assert len(envs.reset()[0]) == N
    assert (envs.faults, Fails.made) == (3, 5)
    assert "after 0 steps: OSError: no board" in envs.last_fault


def test_too_many_faults_end_it_and_name_the_environment():
    class Fails(Scripted):
        def step(self, action):
            raise OSError("no board")

    envs = Envs(Fails, 1, seed=1, name="env mine:Fails")
    envs.reset()
    with pytest.raises(ProblemError, match=r"20 of the last 20 .*; env mine:Fails, copy 0.*OSError: no board"):
        for _ in range(20):
            envs.step(ACTIONS[:1])
    assert envs.faults == 20


@pytest.mark.parametrize(("whole", "ends"), [(1, True), (2, False)])
def test_it_ends_where_half_of_the_last_episodes_fail(whole, ends):
    """Each environment fails in the episode after so many whole ones."""

    class Fails(Scripted):
        def __init__(self):
            super().__init__(2)
            self.episodes = 0

        def reset(self, **how):
            self.episodes += 1
            return super().reset(**how)

        def step(self, action):
            if self.episodes > whole:
                raise OSError("no board")
            return super().step(action)

    envs = Envs(Fails, N, seed=1)
    envs.reset()

    def play():
        for _ in range(300):
            envs.step(ACTIONS)

    if not ends:
        play()
        assert envs.faults > 40
        return
    with pytest.raises(ProblemError, match="20 of the last 40 episodes failed"):
        play()


def test_before_training_one_is_made_and_reset_within_the_limit():
    class Slow(Scripted):
        def reset(self, **how):
            hang(self)

    class Older(Scripted):
        def reset(self, **how):
            return super().reset(**how)[0]

    def never():
        hang(None)

    make_one(Scripted, "env = 'mine'", 0.2)
    try_reset(Scripted, "env = 'mine'", 0.2, seed=1)
    with pytest.raises(ConfigError, match=r"^env = 'mine': cannot be made: TimeoutError: no answer within 0.2 s \(env"):
        make_one(never, "env = 'mine'", 0.2)
    with pytest.raises(ConfigError, match=r"^env = 'mine': reset fails: TimeoutError: no answer within 0.2 s \(env"):
        try_reset(Slow, "env = 'mine'", 0.2, seed=1)
    with pytest.raises(ConfigError, match="reset fails: ValueError: reset gives a ndarray, must give 2: observation"):
        try_reset(Older, "env = 'mine'", None, seed=1)
    with pytest.raises(TimeoutError):
        Envs(never, N, seed=1, step_limit_s=0.2)


def test_an_environment_that_cannot_be_made_anew_ends_it():
    class Once(Scripted):
        made = 0

        def __init__(self):
            super().__init__()
            Once.made += 1
            if Once.made > 1:
                raise OSError("one board only")

        def step(self, action):
            raise OSError("board lost")

    envs = Envs(Once, 1, seed=1, name="env mine:Once")
    envs.reset()
    with pytest.raises(ProblemError, match=r"env mine:Once, copy 0: cannot be made anew: OSError: one board only"):
        envs.step(ACTIONS[:1])


SPACE = Dict(
    {"a": Tuple((Box(-1, 1, (2,)), Discrete(3, start=1))), "b": MultiDiscrete([2, 2]), "c": MultiBinary(2)},
)
GOOD = {"a": (np.zeros(2, np.float32), 1), "b": np.array([0, 1]), "c": np.int8([0, 1])}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"a": (np.float32([0, 5]), 3)}, ""),  # many keep no bounds
        ({"a": (np.float32([0, np.inf]), 1)}, "observation.a.0 is not finite"),
        ({"a": (np.zeros(2, np.float32), 0)}, "observation.a.1 is 0, must be in Discrete(3, start=1)"),
        ({"b": np.array([0, 2])}, "observation.b is [0 2], must be in MultiDiscrete([2 2])"),
        ({"c": np.int8([0, 3])}, "observation.c is [0 3], must be in MultiBinary(2)"),
    ],
    ids=str,
)
def test_observations_are_of_their_space(change, said):
    class Nested(Scripted):
        first = True

        def __init__(self):
            super().__init__()
            self.observation_space = SPACE

        def seen(self):
            seen = {**GOOD, **change} if Nested.first else GOOD
            Nested.first = False
            return seen, {}

    envs = Envs(Nested, 1, seed=1)
    envs.reset()
    assert (envs.faults, said in envs.last_fault) == (int(bool(said)), True)


def test_close_lets_go_of_one_that_fails():
    closed = []

    class Closes(Scripted):
        def close(self):
            closed.append(self)
            raise OSError

    Envs(Closes, N, seed=1).close()
    assert len(closed) == N


def test_makers():
    assert maker("CartPole-v1")().spec.id == "CartPole-v1"
    assert maker("CartPole-v1", render_mode="rgb_array")().render_mode == "rgb_array"
    assert maker(Scripted, length=5)().length == 5
    assert maker("ALE/Pong-v5")().spec.id == "ALE/Pong-v5"


def test_a_package_that_registers_its_own(tmp_path, monkeypatch):
    (tmp_path / "boards.py").write_text(
        "import gymnasium\ngymnasium.register('Board-v0', entry_point='boards:Board')\n"
        "from gymnasium.envs.classic_control import CartPoleEnv as Board\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert maker("boards:Board-v0")().spec.id == "Board-v0"
    gymnasium.registry.pop("Board-v0")
    sys.modules.pop("boards")


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("cartpole-v1", "did you mean CartPole-v1"),
        ("CartPole-v7", "did you mean CartPole-v1"),
        ("Lunarlander-v3", "LunarLander-v3"),
        ("Pong", "--game Pong"),
        ("ALE/SpaceInvaders-v9", "--game SpaceInvaders"),
        ("no_such_package:Board-v0", "no_such_package"),
        ("", "no such environment"),
        ("a/b/c:d e", "a/b/c"),
    ],
)
def test_unknown_ids_are_refused_in_one_line(env, said):
    with pytest.raises(ConfigError) as caught:
        maker(env)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


class Slow(Scripted):
    """Sleeps in the steps that are named by copy and number."""

    def __init__(self, pauses):
        super().__init__(9)
        self.pauses = pauses

    def step(self, action):
        time.sleep(self.pauses.get((self.copy, self.step_number), 0.0))
        return super().step(action)


def test_the_limit_is_each_environments_own():
    """Two that take most of it are fine together; one that takes too long is named, and so is the next."""
    pauses = {(7, 0): 0.2, (8, 0): 0.2, (9, 0): 0.2, (8, 2): 60.0, (9, 2): 60.0}
    envs = Envs(lambda: Slow(pauses), 3, seed=7, step_limit_s=0.4, name="env mine:Slow")
    envs.reset()
    steps = [envs.step(np.zeros(3, np.int64)) for _ in range(3)]
    assert [step.valid.tolist() for step in steps] == [[True] * 3, [True] * 3, [True, False, False]]
    assert envs.faults == 2
    assert envs.last_fault.endswith("copy 2, after 2 steps: TimeoutError: no answer within 0.4 s (env.step_limit_s)")
    envs.close()


def test_the_alarm_is_left_as_it_was():
    before = signal.getsignal(signal.SIGALRM)
    envs, others = (Envs(Scripted, 1, seed=1, step_limit_s=30.0) for _ in range(2))
    for one in (envs, others, envs, others):
        one.reset()
    assert signal.getsignal(signal.SIGALRM) is not before
    envs.close()
    others.close()
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
