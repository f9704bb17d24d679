import pytest

from hsa2c.config.loading import build, to_dict
from hsa2c.envs.protocol import EvaluationProtocol
from hsa2c.envs.settings import EnvConfig
from hsa2c.errors import ConfigError


def test_defaults_are_the_papers():
    assert to_dict(EnvConfig()) == {
        "sticky_actions": 0.0,
        "life_loss_episodes": True,
        "full_action_set": False,
        "noop_max": 30,
        "fire_reset": True,
        "clip_rewards": True,
        "max_frames": 108_000,
    }


@pytest.mark.parametrize("config_type", [EnvConfig, EvaluationProtocol])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sticky_actions", 1.01),
        ("sticky_actions", -0.1),
        ("sticky_actions", float("nan")),
        ("noop_max", -1),
        ("noop_max", 1.5),
        ("max_frames", 0),
        ("max_frames", 2**31),
        ("fire_reset", 1),
        ("full_action_set", "yes"),
        ("sticky_action", 0.25),
    ],
)
def test_bad_values_are_one_line(config_type, field, value):
    with pytest.raises(ConfigError, match=f"^{field}") as raised:
        build(config_type, {field: value})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("field", "value"), [("games", 0), ("games", 100_001), ("seed", -1), ("seed", 2**31)])
def test_bad_protocols_are_one_line(field, value):
    with pytest.raises(ConfigError, match=f"^{field}"):
        build(EvaluationProtocol, {field: value})


def test_the_protocol_in_one_line():
    assert EvaluationProtocol().describe() == (
        "30 whole games, raw score, up to 30 no-ops, FIRE at the start, sticky actions 0, sampled actions, "
        "108,000-frame cap, seed 1000"
    )
    assert EvaluationProtocol().describe(2).startswith("30 games, 2 of them cut off by the cap, raw score, ")
    other = EvaluationProtocol(
        games=1,
        greedy=True,
        sticky_actions=0.25,
        noop_max=0,
        fire_reset=False,
        max_frames=18_000,
        full_action_set=True,
        seed=7,
    )
    assert other.describe() == (
        "1 whole game, raw score, no no-ops, sticky actions 0.25, greedy actions, all 18 actions, "
        "18,000-frame cap, seed 7"
    )


def test_every_setting_of_a_protocol_shows_in_its_line():
    changed = {"games": 2, "greedy": True, "sticky_actions": 0.5, "noop_max": 3, "fire_reset": False}
    changed |= {"max_frames": 99, "full_action_set": True, "seed": 5}
    assert set(changed) == set(to_dict(EvaluationProtocol()))
    plain = EvaluationProtocol().describe()
    for field, value in changed.items():
        assert build(EvaluationProtocol, {field: value}).describe() != plain


def test_a_protocol_plays_whole_games_for_raw_scores_with_its_own_settings():
    protocol = EvaluationProtocol(
        sticky_actions=0.25, noop_max=7, fire_reset=False, max_frames=1234, full_action_set=True
    )
    assert protocol.env_config() == EnvConfig(
        sticky_actions=0.25,
        noop_max=7,
        fire_reset=False,
        max_frames=1234,
        full_action_set=True,
        life_loss_episodes=False,
        clip_rewards=False,
    )
