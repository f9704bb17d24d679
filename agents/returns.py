"""Returns and advantages of a rollout, as pure functions.

In numpy: a rollout is t_max rows of a few environments, where a numpy operation costs a fraction of torch's dispatch,
and rewards arrive as numpy.

How a rollout tells where games end ("next-step" autoreset): after the transition that ends an episode, the next
observation is the true last one of that episode, and the transition from there, whose action the emulator ignored, is
its reset. Such a transition is not `valid`. So the state that follows step t is always ``values[t + 1]`` (the bootstrap
value at the end), also for an episode that was truncated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


def n_step_returns(
    rewards: Floats,
    values: Floats,
    bootstrap_value: Floats,
    *,
    terminated: Bools,
    truncated: Bools,
    valid: Bools,
    discount: float,
) -> Floats:
    """Discounted rewards to the end of the episode or of the rollout, and the value of the state where that is.

    R_t = r_t + discount * R_{t+1}, with R_{t+1} replaced by 0 after a termination, and by V_{t+1} after a truncation,
    at the rollout's end, and before a step that is not valid. A step that is not valid has R_t = V_t: no error.

    Args:
        rewards: float32 [t_max, num_envs].
        values: V of the state before each step, float32 [t_max, num_envs].
        bootstrap_value: V of the state after the last step, float32 [num_envs].
        terminated: The step ended the episode by the game's rules, bool [t_max, num_envs].
        truncated: The step ended the episode by a limit, bool [t_max, num_envs].
        valid: The step is not a reset, bool [t_max, num_envs].
        discount: gamma.

    Returns:
        float32 [t_max, num_envs].

    Source: Mnih et al. 2016, Algorithm S3.
    """
    returns = np.empty_like(values)
    later = next_value = bootstrap_value
    for t in reversed(range(len(rewards))):
        later = np.where(truncated[t], next_value, later)
        later = np.where(terminated[t], np.float32(0), later)
        later = returns[t] = np.where(valid[t], rewards[t] + discount * later, values[t])
        next_value = values[t]
    return returns


def gae(
    rewards: Floats,
    values: Floats,
    bootstrap_value: Floats,
    *,
    terminated: Bools,
    truncated: Bools,
    valid: Bools,
    discount: float,
    gae_lambda: float,
) -> tuple[Floats, Floats]:
    """Generalised advantage estimates (Schulman et al. 2016, Eq. 16), and the returns they make.

    delta_t = r_t + discount * V_{t+1} - V_t, without V_{t+1} after a termination;
    A_t = delta_t + discount * lambda * A_{t+1}, without A_{t+1} where the episode or the rollout ends.
    A step that is not valid has A_t = 0. gae_lambda = 1 is `n_step_returns`, 0 the one-step error.

    Args:
        rewards: float32 [t_max, num_envs].
        values: V of the state before each step, float32 [t_max, num_envs].
        bootstrap_value: V of the state after the last step, float32 [num_envs].
        terminated: The step ended the episode by the game's rules, bool [t_max, num_envs].
        truncated: The step ended the episode by a limit, bool [t_max, num_envs].
        valid: The step is not a reset, bool [t_max, num_envs].
        discount: gamma.
        gae_lambda: lambda.

    Returns:
        Advantages and returns (advantages + values), float32 [t_max, num_envs] each.
    """
    next_values = np.concatenate([values[1:], bootstrap_value[None]])
    targets = rewards + discount * np.where(terminated, np.float32(0), next_values)
    deltas = np.where(valid, targets - values, np.float32(0))
    carry = np.float32(discount * gae_lambda) * (valid & ~(terminated | truncated))
    advantages = _carried(deltas, carry)
    return advantages, advantages + values


def vtrace_targets(
    ratios: Floats,
    rewards: Floats,
    values: Floats,
    bootstrap_value: Floats,
    *,
    terminated: Bools,
    truncated: Bools,
    valid: Bools,
    discount: float,
    gae_lambda: float = 1.0,
) -> tuple[Floats, Floats]:
    """A and v, the advantages and returns where another policy has acted (Espeholt et al. 2018, Eq. 1, remark 2).

    rho = min(1, ratio); delta_t = rho_t (r_t + discount * V_{t+1} - V_t), without V_{t+1} after a termination;
    v_t - V_t = delta_t + discount * lambda * rho_t (v_{t+1} - V_{t+1}), without the latter where the episode or the
    rollout ends; A_t = rho_t (r_t + discount * v_{t+1} - V_t), with V_{t+1} there, or 0 after a termination.
    A step that is not valid has A_t = 0 and v_t = V_t. Ratios of 1 make v the returns of `gae`. [t_max, num_envs] each.

    Args:
        ratios: pi(a) of the present policy over that of the one that acted, float32 [t_max, num_envs].
        rewards: As for `gae`, as the rest; but values and bootstrap_value are by the present network.
        values: See there.
        bootstrap_value: See there.
        terminated: See there.
        truncated: See there.
        valid: See there.
        discount: gamma.
        gae_lambda: lambda.
    """
    rho = np.minimum(ratios, np.float32(1))
    following = np.where(terminated, np.float32(0), np.concatenate([values[1:], bootstrap_value[None]]))
    deltas = np.where(valid, rho * (rewards + discount * following - values), np.float32(0))
    goes_on = valid & ~(terminated | truncated)
    carry = np.float32(discount * gae_lambda) * rho * goes_on
    targets = values + _carried(deltas, carry)
    after = np.where(goes_on, np.concatenate([targets[1:], bootstrap_value[None]]), following)
    return np.where(valid, rho * (rewards + discount * after - values), np.float32(0)), targets


def _carried(x: Floats, carry: Floats) -> Floats:
    """y_t = x_t + carry_t * y_{t+1}, from the end; [t_max, num_envs] each."""
    y = np.empty_like(x)
    later = np.zeros_like(x[0])
    for t in reversed(range(len(x))):
        later = y[t] = x[t] + carry[t] * later
    return y
