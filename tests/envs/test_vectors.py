"""Both sources of several environments tell the same known story; faults of vector implementations."""

import signal
import time

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from hsa2c.envs.episodes import Envs
from hsa2c.envs.making import maker
from hsa2c.envs.vectors import VectorEnvs, make_all_of
from hsa2c.errors import ProblemError
from tests.agents.gym.scripted import MASK, Scripted

N, SEED = 8, 40
ACTIONS = np.zeros(N, np.int64)


class ScriptedVector(gymnasium.vector.VectorEnv):
    """`Scripted` as one array of copies.

    Args:
        fails: A function of it that is called in the step with this number of all, 1 for the first.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs, length=3, truncates=False, mask=None, fails=None, at=2, **_):
        self.num_envs, self.length, self.truncates, self.mask = num_envs, length, truncates, mask
        self.fails, self.at, self.calls = fails, at, 0
        one = Scripted(length, truncates, mask)
        self.single_observation_space, self.single_action_space = one.observation_space, one.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.state = np.zeros((num_envs, 3), np.float32)

    def reset(self, *, seed=None, options=None):
        self.state = np.stack([seed + np.arange(self.num_envs), *np.zeros((2, self.num_envs))], 1).astype(np.float32)
        return self.seen()

    def step(self, actions):
        self.calls += 1
        if self.fails is not None and self.calls == self.at:
            return self.fails(self)
        over = self.state[:, 2] == self.length
        self.state[:, 1] += over
        self.state[:, 2] = np.where(over, 0, self.state[:, 2] + 1)
        ends = self.state[:, 2] == self.length
        observations, info = self.seen()
        no = np.zeros(self.num_envs, bool)
        rewards = np.where(over, 99.0, self.state[:, 2])  # of the step that is ignored: nobody is to learn from it
        return observations, rewards, no if self.truncates else ends, ends if self.truncates else no, info

    def seen(self):
        masks = np.stack([self.state[:, 2] % 2 == 0, self.state[:, 2] % 2 == 1], 1).astype(np.int8)
        if self.mask == "entry":
            return {"x": self.state.copy(), MASK: masks}, {}
        return self.state.copy(), {MASK: masks, f"_{MASK}": np.arange(self.num_envs) > 0} if self.mask else {}


@pytest.fixture(params=["own", "vector"])
def made(request):
    """What makes each source."""

    def made(**how):
        if request.param == "own":
            return Envs(lambda: Scripted(**how), N, seed=SEED)
        return VectorEnvs(lambda: ScriptedVector(N, **how), seed=SEED)

    return made


@pytest.mark.parametrize("truncates", [False, True])
def test_the_story_is_the_same(made, truncates):
    envs = made(length=2, truncates=truncates)
    assert np.array_equal(np.stack(envs.reset()[0]), [(SEED + i, 0, 0) for i in range(N)])
    steps = [envs.step(ACTIONS) for _ in range(4)]
    seen = [tuple(map(int, step.observations[1][1:])) for step in steps]
    assert seen == [(0, 1), (0, 2), (1, 0), (1, 1)]
    assert [set(step.rewards) for step in steps] == [{1}, {2}, {0}, {1}]
    assert [set(step.valid) for step in steps] == [{True}, {True}, {False}, {True}]
    assert [step.terminated.all() for step in steps] == [False, not truncates, False, False]
    assert [step.truncated.all() for step in steps] == [False, truncates, False, False]
    assert [step.episodes for step in steps] == [(), ((3.0, 2),) * N, (), ()]
    assert envs.faults == 0
    assert all(step.rewards.dtype == np.float32 for step in steps)


@pytest.mark.parametrize("mask", ["info", "entry"])
def test_masks_are_those_of_each(mask):
    envs = VectorEnvs(lambda: ScriptedVector(N, mask=mask), seed=SEED)
    observations, masks = envs.reset()
    if mask == "entry":
        assert [one[MASK].tolist() for one in observations] == [[1, 0]] * N
        assert masks == [None] * N
    else:
        assert masks[0] is None, "the first said nothing"
        assert [mask.tolist() for mask in masks[1:]] == [[1, 0]] * (N - 1)


def hang(env):
    time.sleep(60)


def wrong(k, value):
    def step(env):
        result = list(ScriptedVector.step(env, ACTIONS))
        result[k] = result[k].copy()
        result[k][3] = value
        return tuple(result)

    return step


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        (lambda env: 1 / 0, "ZeroDivisionError: division by zero"),
        (hang, "TimeoutError: no answer within 0.3 s"),
        (wrong(0, np.nan), "ValueError: observation of copy 3 is not finite"),
        (wrong(1, np.inf), "are not finite"),
    ],
    ids=["raises", "hangs", "observation", "reward"],
)
def test_a_fault_costs_all_episodes_and_is_counted(fails, said):
    count = iter([fails])
    envs = VectorEnvs(
        lambda: ScriptedVector(N, fails=next(count, None)), seed=SEED, step_limit_s=0.3, name="env mine:Fails-v0"
    )
    envs.reset()
    envs.step(ACTIONS)
    step = envs.step(ACTIONS)
    assert not step.valid.any()
    assert (set(step.rewards), step.episodes) == ({0}, ())
    assert tuple(step.observations[0]) == (SEED + N, 0, 0), "made anew, with other seeds"
    assert envs.faults == 1
    assert envs.last_fault.startswith("env mine:Fails-v0, all 8 copies: ")
    assert said in envs.last_fault
    later = [envs.step(ACTIONS) for _ in range(3)]
    assert [episode for step in later for episode in step.episodes] == [(6.0, 3)] * N
    envs.close()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_too_many_faults_end_it():
    envs = VectorEnvs(lambda: ScriptedVector(N, fails=lambda env: 1 / 0, at=1), seed=SEED, name="env mine:Fails-v0")
    envs.reset()
    with pytest.raises(ProblemError, match=r"20 faults in a row; env mine:Fails-v0, all 8 copies: ZeroDivisionError"):
        for _ in range(20):
            envs.step(ACTIONS)


class Other(ScriptedVector):
    def __init__(self, **how):
        super().__init__(**how)
        self.single_observation_space = Dict({"x": Box(-1, 1, (2,)), MASK: MultiBinary(2)})


class SameStep(ScriptedVector):
    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012


@pytest.fixture
def registered():
    """Registers an id with a vector implementation."""
    names = []

    def registered(vector):
        names.append(f"Scripted{len(names)}-v0")
        gymnasium.register(names[-1], entry_point=Scripted, vector_entry_point=vector)
        return names[-1]

    yield registered
    for name in names:
        gymnasium.registry.pop(name)


@pytest.mark.parametrize(
    ("vector", "num_envs", "options", "used"),
    [
        (ScriptedVector, 8, {}, True),
        (ScriptedVector, 8, {"length": 5}, True),
        (ScriptedVector, 7, {}, False),  # one after another is as quick
        (ScriptedVector, 8, {"log": []}, True),
        (Other, 8, {}, False),
        (SameStep, 8, {}, False),
        (None, 8, {}, False),
    ],
)
def test_when_the_vector_implementation_is_used(registered, vector, num_envs, options, used):
    make_all = make_all_of(registered(vector), num_envs, **options)
    assert (make_all is not None) is used
    if used:
        made = make_all()
        assert (made.num_envs, made.length) == (num_envs, options.get("length", 3))


def test_options_that_only_one_has(registered):
    class Few(ScriptedVector):
        def __init__(self, num_envs):
            super().__init__(num_envs)

    assert make_all_of(registered(Few), 8, length=5) is None
    assert make_all_of(Scripted, 8) is None


def test_cart_poles_own_is_cart_pole():
    """Gymnasium's vector implementation steps and ends as one does."""
    envs, one = VectorEnvs(make_all_of("CartPole-v1", N), seed=SEED), maker("CartPole-v1")()
    observations, _ = envs.reset()
    for _ in range(60):
        one.reset()
        one.unwrapped.state = np.array(observations[0], np.float64)
        step = envs.step(ACTIONS)
        seen, reward, terminated, truncated, _ = one.step(0)
        if step.valid[0]:
            np.testing.assert_allclose(step.observations[0], seen, rtol=1e-4, atol=1e-5)
            assert (step.rewards[0], step.terminated[0], step.truncated[0]) == (reward, terminated, truncated)
        observations = step.observations
    assert isinstance(envs.action_space, Discrete)
