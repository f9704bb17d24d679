from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsa2c.agents.returns import gae, n_step_returns, vtrace_targets


def column(*numbers, dtype=np.float32):
    return np.array(numbers, dtype=dtype)[:, None]


def flags(*numbers):
    return column(*numbers, dtype=bool)


def rollout(seed: int, t_max: int, num_envs: int) -> dict[str, np.ndarray]:
    """A rollout as the environments give it: a step after the end of an episode is its reset.

    Now and then it is not, as with environments that reset within the step: an end must cut by itself.
    """
    rng = np.random.default_rng(seed)
    terminated, truncated = np.zeros((2, t_max, num_envs), dtype=bool)
    valid = np.ones((t_max, num_envs), dtype=bool)
    valid[0] = rng.random(num_envs) < 0.7
    for t in range(t_max):
        for e in range(num_envs):
            if t and (terminated[t - 1, e] or truncated[t - 1, e]):
                valid[t, e] = rng.random() < 0.2
            if valid[t, e]:
                kind = rng.choice(["on", "terminated", "truncated", "both"], p=[0.7, 0.13, 0.13, 0.04])
                terminated[t, e] = kind in ("terminated", "both")
                truncated[t, e] = kind in ("truncated", "both")
    return {
        "rewards": rng.normal(size=(t_max, num_envs)).astype(np.float32),
        "values": rng.normal(size=(t_max, num_envs)).astype(np.float32),
        "bootstrap_value": rng.normal(size=num_envs).astype(np.float32),
        "terminated": terminated,
        "truncated": truncated,
        "valid": valid,
    }


def split(r):
    return (r["rewards"], r["values"], r["bootstrap_value"]), {k: r[k] for k in ("terminated", "truncated", "valid")}


def value_after(r, t, e):
    if r["terminated"][t, e]:
        return 0.0
    return float(r["values"][t + 1, e]) if t + 1 < len(r["values"]) else float(r["bootstrap_value"][e])


def episode_end(r, t, e):
    """Index of the last step of the rollout that belongs to the episode of step t."""
    while t + 1 < len(r["values"]) and not (r["terminated"][t, e] or r["truncated"][t, e]):
        t += 1
    return t


def slow_n_step(r, discount):
    """sum_k discount^k r_{t+k} + discount^(n) V(last), one cell at a time, in float64."""
    out = r["values"].astype(float)
    for t, e in np.argwhere(r["valid"]):
        end = episode_end(r, t, e)
        out[t, e] = sum(discount ** (k - t) * float(r["rewards"][k, e]) for k in range(t, end + 1))
        out[t, e] += discount ** (end - t + 1) * value_after(r, end, e)
    return out


def slow_gae(r, discount, gae_lambda):
    """sum_k (discount * lambda)^k delta_{t+k}, one cell at a time, in float64."""
    out = np.zeros(r["values"].shape)
    for t, e in np.argwhere(r["valid"]):
        for k in range(t, episode_end(r, t, e) + 1):
            delta = float(r["rewards"][k, e]) + discount * value_after(r, k, e) - float(r["values"][k, e])
            out[t, e] += (discount * gae_lambda) ** (k - t) * delta
    return out


def slow_vtrace(r, ratios, discount, gae_lambda):
    """Eq. 1 as the sum of products that it is, and the policy's advantages, one cell at a time, in float64."""
    rho, V, v = np.minimum(ratios, 1).astype(float), r["values"].astype(float), r["values"].astype(float)
    advantages = np.zeros(V.shape)
    for t, e in np.argwhere(r["valid"]):
        for k in range(t, episode_end(r, t, e) + 1):
            delta = rho[k, e] * (float(r["rewards"][k, e]) + discount * value_after(r, k, e) - V[k, e])
            v[t, e] += discount ** (k - t) * np.prod(gae_lambda * rho[t:k, e]) * delta
    for t, e in np.argwhere(r["valid"]):
        following = value_after(r, t, e) if episode_end(r, t, e) == t else v[t + 1, e]
        advantages[t, e] = rho[t, e] * (float(r["rewards"][t, e]) + discount * following - V[t, e])
    return advantages, v


rollouts = st.builds(rollout, st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 4))
fractions = st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0])


@settings(max_examples=60, deadline=None)
@given(r=rollouts, discount=fractions)
def test_n_step_equals_the_slow_loop(r, discount):
    arrays, ends = split(r)
    fast = n_step_returns(*arrays, **ends, discount=discount)
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, slow_n_step(r, discount), rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(r=rollouts, discount=fractions, gae_lambda=fractions)
def test_gae_equals_the_slow_loop(r, discount, gae_lambda):
    arrays, ends = split(r)
    advantages, returns = gae(*arrays, **ends, discount=discount, gae_lambda=gae_lambda)
    assert advantages.dtype == returns.dtype == np.float32
    expected = slow_gae(r, discount, gae_lambda)
    np.testing.assert_allclose(advantages, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(returns, expected + r["values"], rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(r=rollouts, discount=fractions, gae_lambda=fractions, seed=st.integers(0, 99))
def test_vtrace_equals_the_slow_loop(r, discount, gae_lambda, seed):
    ratios = np.exp(np.random.default_rng(seed).normal(size=r["values"].shape)).astype(np.float32)
    arrays, ends = split(r)
    found = vtrace_targets(ratios, *arrays, **ends, discount=discount, gae_lambda=gae_lambda)
    for got, expected in zip(found, slow_vtrace(r, ratios, discount, gae_lambda), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(r=rollouts, discount=fractions, gae_lambda=fractions)
def test_vtrace_of_the_policy_that_acted_has_the_returns_of_gae(r, discount, gae_lambda):
    arrays, ends = split(r)
    _, targets = vtrace_targets(np.ones_like(arrays[1]), *arrays, **ends, discount=discount, gae_lambda=gae_lambda)
    _, returns = gae(*arrays, **ends, discount=discount, gae_lambda=gae_lambda)
    np.testing.assert_allclose(targets, returns, rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(r=rollouts, discount=fractions)
def test_lambda_1_is_n_step_and_lambda_0_the_one_step_error(r, discount):
    arrays, ends = split(r)
    advantages, returns = gae(*arrays, **ends, discount=discount, gae_lambda=1.0)
    n_step = n_step_returns(*arrays, **ends, discount=discount)
    np.testing.assert_allclose(returns, n_step, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(advantages, n_step - r["values"], rtol=1e-4, atol=1e-5)

    advantages, _ = gae(*arrays, **ends, discount=discount, gae_lambda=0.0)
    for t, e in np.argwhere(r["valid"]):
        error = r["rewards"][t, e] + discount * value_after(r, t, e) - r["values"][t, e]
        assert advantages[t, e] == pytest.approx(error, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(r=rollouts, junk=st.sampled_from([1e30, float("nan"), float("inf")]))
def test_the_reward_of_a_reset_reaches_nothing(r, junk):
    arrays, ends = split(r)
    expected = gae(*arrays, **ends, discount=0.9, gae_lambda=0.8), n_step_returns(*arrays, **ends, discount=0.9)
    r["rewards"][~r["valid"]] = junk
    arrays, ends = split(r)
    (advantages, returns), n_step = (
        gae(*arrays, **ends, discount=0.9, gae_lambda=0.8),
        n_step_returns(*arrays, **ends, discount=0.9),
    )
    assert not advantages[~r["valid"]].any()
    np.testing.assert_array_equal(n_step[~r["valid"]], r["values"][~r["valid"]])
    np.testing.assert_array_equal(advantages, expected[0][0])
    np.testing.assert_array_equal(returns, expected[0][1])
    np.testing.assert_array_equal(n_step, expected[1])


def test_whole_rollout_by_hand():
    no = flags(0, 0)
    arrays = column(1, 2), column(10, 20), np.array([30], dtype=np.float32)
    ends = {"terminated": no, "truncated": no, "valid": ~no}
    # R_1 = 2 + 0.5 * 30 = 17, R_0 = 1 + 0.5 * 17 = 9.5
    np.testing.assert_array_equal(n_step_returns(*arrays, **ends, discount=0.5), column(9.5, 17))
    # delta_1 = 17 - 20 = -3, delta_0 = 1 + 0.5 * 20 - 10 = 1; A_0 = 1 + 0.5 * 0.5 * -3 = 0.25
    advantages, returns = gae(*arrays, **ends, discount=0.5, gae_lambda=0.5)
    np.testing.assert_array_equal(advantages, column(0.25, -3))
    np.testing.assert_array_equal(returns, column(10.25, 17))


def test_vtrace_by_hand():
    """Two steps, the second terminates; ratios 2 (cut to 1) and 0.5; discount 0.5."""
    no = flags(0, 0)
    arrays = column(2, 0.5), column(1, 3), column(1, 2), np.array([7], dtype=np.float32)
    A, v = vtrace_targets(*arrays, terminated=flags(0, 1), truncated=no, valid=~no, discount=0.5)
    # delta_1 = 0.5 (3 - 2) = 0.5; delta_0 = 1 (1 + 0.5 * 2 - 1) = 1
    np.testing.assert_array_equal(v, column(1 + 1 + 0.5 * 1 * 0.5, 2 + 0.5))
    np.testing.assert_array_equal(A, column(1 + 0.5 * 2.5 - 1, 0.5 * (3 - 2)))


@pytest.mark.parametrize(("kind", "last"), [("terminated", 2.0), ("truncated", 2 + 0.5 * 30)])
def test_end_of_an_episode_by_hand(kind, last):
    """Step 1 ends the episode, step 2 is the reset (its state is the true last one, value 30), step 3 plays on."""
    no = flags(0, 0, 0, 0)
    ends = {"terminated": no, "truncated": no, kind: flags(0, 1, 0, 0), "valid": flags(1, 1, 0, 1)}
    arrays = column(1, 2, 99, 4), column(10, 20, 30, 40), np.array([50], dtype=np.float32)
    n_step = n_step_returns(*arrays, **ends, discount=0.5)
    np.testing.assert_array_equal(n_step, column(1 + 0.5 * last, last, 30, 4 + 0.5 * 50))
    advantages, _ = gae(*arrays, **ends, discount=0.5, gae_lambda=0.5)
    # delta_0 = 1 + 0.5 * 20 - 10 = 1
    np.testing.assert_array_equal(advantages, column(1 + 0.25 * (last - 20), last - 20, 0, 29 - 40))
