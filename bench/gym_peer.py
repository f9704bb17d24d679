"""Stable-Baselines3 in one environment until a score: ``python -m bench.gym_peer ENV ppo|a2c SEED``; see `bench.gym`.

Its settings are those of its zoo (rl-baselines3-zoo, hyperparams/ppo.yml and a2c.yml), which were tuned for each
environment. Those of Hopper, HalfCheetah and Walker2d were tuned for version 3 of the environments and 1M steps. Rates
that fall to 0 over the zoo's number of steps are constant here, for a run ends at a score.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

#: Policy of Hopper and HalfCheetah; ``activation_fn`` is torch's ReLU, which is not loaded yet.
WIDE = {
    "log_std_init": -2,
    "ortho_init": False,
    "activation_fn": "ReLU",
    "net_arch": {"pi": [256, 256], "vf": [256, 256]},
}

_CURVE_STEPS = 10_000  # between two points of a curve

#: For each algorithm and environment: environments side by side, whether all is normalised, and its own arguments.
SETTINGS: dict[str, dict[str, tuple[int, bool, dict[str, Any]]]] = {
    "ppo": {
        "CartPole-v1": (
            8,
            False,
            {
                "n_steps": 32,
                "batch_size": 256,
                "gae_lambda": 0.8,
                "gamma": 0.98,
                "n_epochs": 20,
                "ent_coef": 0.0,
                "learning_rate": 1e-3,
            },
        ),
        "Acrobot-v1": (
            16,
            True,
            {"n_steps": 256, "gae_lambda": 0.94, "gamma": 0.99, "n_epochs": 4, "ent_coef": 0.0},
        ),
        "LunarLander-v3": (
            16,
            False,
            {
                "n_steps": 1024,
                "batch_size": 64,
                "gae_lambda": 0.98,
                "gamma": 0.999,
                "n_epochs": 4,
                "ent_coef": 0.01,
            },
        ),
        "Pendulum-v1": (
            4,
            False,
            {
                "n_steps": 1024,
                "gae_lambda": 0.95,
                "gamma": 0.9,
                "n_epochs": 10,
                "ent_coef": 0.0,
                "learning_rate": 1e-3,
                "use_sde": True,
                "sde_sample_freq": 4,
            },
        ),
        "Hopper-v5": (
            1,
            True,
            {
                "batch_size": 32,
                "n_steps": 512,
                "gamma": 0.999,
                "learning_rate": 9.80828e-5,
                "ent_coef": 0.00229519,
                "clip_range": 0.2,
                "n_epochs": 5,
                "gae_lambda": 0.99,
                "max_grad_norm": 0.7,
                "vf_coef": 0.835671,
                "policy_kwargs": WIDE,
            },
        ),
        "HalfCheetah-v5": (
            1,
            True,
            {
                "batch_size": 64,
                "n_steps": 512,
                "gamma": 0.98,
                "learning_rate": 2.0633e-5,
                "ent_coef": 0.000401762,
                "clip_range": 0.1,
                "n_epochs": 20,
                "gae_lambda": 0.92,
                "max_grad_norm": 0.8,
                "vf_coef": 0.58096,
                "policy_kwargs": WIDE,
            },
        ),
        "Walker2d-v5": (
            1,
            True,
            {
                "batch_size": 32,
                "n_steps": 512,
                "gamma": 0.99,
                "learning_rate": 5.05041e-5,
                "ent_coef": 0.000585045,
                "clip_range": 0.1,
                "n_epochs": 20,
                "gae_lambda": 0.95,
                "max_grad_norm": 1.0,
                "vf_coef": 0.871923,
            },
        ),
    },
    "a2c": {
        "CartPole-v1": (8, False, {"ent_coef": 0.0}),
        "Acrobot-v1": (16, True, {"ent_coef": 0.0}),
        "LunarLander-v3": (8, False, {"gamma": 0.995, "n_steps": 5, "learning_rate": 8.3e-4, "ent_coef": 1e-5}),
        "Pendulum-v1": (
            8,
            True,
            {"ent_coef": 0.0, "n_steps": 8, "gae_lambda": 0.9, "vf_coef": 0.4, "gamma": 0.9, "learning_rate": 7e-4},
        ),
    },
}


def main() -> int:
    """Train until the mean of the last 100 training episodes is at a score, or time or steps are over.

    Prints JSON: a line for each point of the curve (steps, seconds, mean score), and what came of it last.
    """
    env, algorithm, seed, score, minutes, steps = sys.argv[1:7]
    began_at = time.perf_counter()
    import numpy as np
    import torch
    from stable_baselines3 import A2C, PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    num_envs, normalised, settings = SETTINGS[algorithm][env]
    if (policy := settings.get("policy_kwargs")) is not None:
        policy = {**policy, "activation_fn": getattr(torch.nn, policy["activation_fn"])}
        settings = {**settings, "policy_kwargs": policy}

    class Until(BaseCallback):  # type: ignore[misc]
        """Looks at the training episodes."""

        best = -np.inf
        reached_s: float | None = None
        reached_steps: int | None = None

        def _on_step(self) -> bool:
            scores = [info["r"] for info in self.model.ep_info_buffer or ()]
            if scores and self.num_timesteps // _CURVE_STEPS > (self.num_timesteps - num_envs) // _CURVE_STEPS:
                point = [self.num_timesteps, time.perf_counter() - began_at, float(np.mean(scores))]
                print(json.dumps({"point": point}), flush=True)
            if len(scores) >= 100:
                self.best = max(self.best, float(np.mean(scores)))
            if self.best >= float(score) and self.reached_s is None:
                self.reached_s, self.reached_steps = time.perf_counter() - began_at, self.num_timesteps
                return False
            return time.perf_counter() - began_at < 60 * float(minutes)

    envs: Any = make_vec_env(env, n_envs=num_envs, seed=int(seed))  # one after another: the zoo's default
    if normalised:
        envs = VecNormalize(envs, gamma=settings.get("gamma", 0.99))
    until = Until()
    model = {"ppo": PPO, "a2c": A2C}[algorithm]("MlpPolicy", envs, seed=int(seed), device="cpu", **settings)
    model.learn(int(float(steps)), callback=until)
    scores = [info["r"] for info in model.ep_info_buffer or ()]
    print(
        json.dumps(
            {
                "reached_s": until.reached_s,
                "steps": until.reached_steps or int(model.num_timesteps),
                "seconds": time.perf_counter() - began_at,
                "score": float(np.mean(scores)) if scores else None,
            }
        )
    )
    envs.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
