"""What a configuration of an agent stands for: environments and their spaces, networks, statistics."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from hsa2c import names
from hsa2c.agents.gym.settings import EnvironmentConfig, GymConfig, ImageConfig, learns_from_sequences
from hsa2c.config.loading import build, to_dict
from hsa2c.errors import ConfigError

if TYPE_CHECKING:
    from hsa2c.agents.gym.networks import Agent
    from hsa2c.agents.gym.statistics import Statistics
    from hsa2c.envs.making import Make
    from hsa2c.envs.vectors import MakeAll


def is_code(name: str) -> bool:
    """Whether a name is that of the user's code: an id such as package:Id-v0 has a version at its end."""
    where, colon, attribute = name.rpartition(":")
    return bool(colon and where) and not attribute.rpartition("-v")[2].isdigit()


def maker_of(config: GymConfig, **more: Any) -> Make:
    """What makes an environment, with more keyword arguments for it."""
    return _make_of(config.env, more)


def _make_of(env: EnvironmentConfig, more: Mapping[str, Any]) -> Make:
    from hsa2c.envs.making import maker, of_pixels

    image = env.image
    make = maker(names.find(env.id) if is_code(env.id) else env.id, **env.options, **more)
    return of_pixels(make, grey=image.grey, size=image.size, stack=image.stack)


def maker_of_all(config: GymConfig) -> MakeAll | None:
    """What makes all environments of a process at once; None where there is no such thing."""
    from hsa2c.envs.vectors import make_all_of

    env = config.env
    if is_code(env.id) or env.image != ImageConfig():
        return None
    return make_all_of(env.id, env.num_envs, **env.options)


def spaces_of(config: GymConfig) -> tuple[Any, Any]:
    """Of observations and actions."""
    return _spaces_of(json.dumps(to_dict(config.env), sort_keys=True))


@cache
def _spaces_of(text: str) -> tuple[Any, Any]:
    """The same; an environment is made to ask it."""
    from hsa2c.agents.gym.spaces import action_parameters, leaves
    from hsa2c.envs.making import make_one

    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame asks for no display
    config = build(EnvironmentConfig, json.loads(text))
    made = make_one(_make_of(config, {}), f"env = {config.id!r}", config.step_limit_s)
    leaves(made.observation_space)
    action_parameters(made.action_space)
    spaces = made.observation_space, made.action_space
    made.close()
    return spaces


def statistics_of(config: GymConfig) -> Statistics:
    """What is normalised."""
    from hsa2c.agents.gym.spaces import leaves
    from hsa2c.agents.gym.statistics import Statistics

    observations, _ = spaces_of(config)
    agent = config.agent
    return Statistics(leaves(observations), observations=agent.normalise_observations, rewards=agent.normalise_rewards)


def agent_of(config: GymConfig) -> Agent:
    """A network, the user's own or by the spaces.

    Raises:
        ConfigError: The user's own cannot be made, or is no torch module.
    """
    from torch import nn

    from hsa2c.agents.gym.networks import Agent
    from hsa2c.agents.gym.spaces import leaves

    observations, actions = spaces_of(config)
    own = None
    if config.agent.network is not None:
        try:
            own = names.find(config.agent.network)(observations, actions)
        except ConfigError as error:
            raise ConfigError(f"agent.network: {error}") from None
        except Exception as error:
            raise ConfigError(f"agent.network: cannot be made: {type(error).__name__}: {error}") from None
        if not isinstance(own, nn.Module):
            raise ConfigError(f"agent.network: gave a {type(own).__name__}, must give a torch.nn.Module")
    agent = config.agent
    return Agent(
        leaves(observations),
        actions,
        hidden=agent.hidden,
        layers=agent.layers,
        convolution=agent.convolution,
        recurrent=agent.recurrent,
        log_std=agent.log_std,
        own=own,
    )


def parameters_of(config: GymConfig) -> int:
    """Weights of the network; one is made to count them."""
    values = to_dict(config)
    return _parameters_of(json.dumps({"env": values["env"], "agent": values["agent"]}, sort_keys=True))


@cache
def _parameters_of(text: str) -> int:
    from hsa2c.agents.network import num_parameters

    return num_parameters(agent_of(build(GymConfig, json.loads(text))))


def try_out(config: GymConfig) -> None:
    """Begin an episode, and let what is the user's own see observations, before anything is written."""
    from hsa2c.agents.gym.spaces import action_parameters, check_mask, leaves
    from hsa2c.agents.gym.trial import survive
    from hsa2c.envs.making import try_reset

    name = f"env = {config.env.id!r}"
    trial = (maker_of(config), name, config.env.step_limit_s, config.seed)
    if is_code(config.env.id) or config.env.options:  # what Gymnasium has, as it is, ends no process
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        limit_s = config.env.step_limit_s  # twice: to make it, and to reset it
        survive(lambda: try_reset(*trial), f"{name}: made or reset, it", None if limit_s is None else 2 * limit_s)
    observations, actions = spaces_of(config)
    observation, info = try_reset(*trial)
    try:
        check_mask(observation, info.get("action_mask"), actions)
    except (AttributeError, ValueError) as error:
        raise ConfigError(f"{name}: reset: {error}") from None
    if config.agent.network is not None:
        from hsa2c.agents.gym.networks import check  # torch, which a launcher does without

        check(agent_of(config), leaves(observations), action_parameters(actions))
    if is_code(config.agent.loss):
        from hsa2c.agents.gym.losses import check as check_loss

        check_loss(names.find(config.agent.loss), actions, sequences=learns_from_sequences(config.agent))
