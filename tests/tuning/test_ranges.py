"""Ranges: what is typed, what a setting allows, and one line where they differ."""

import pytest

from hsa2c.agents.gym.application import APPLICATION
from hsa2c.errors import ConfigError
from hsa2c.tuning.ranges import read_all


def read(text, asked=()):
    return read_all([text], APPLICATION, dict(asked))[text.partition("=")[0]]


def test_numbers_between_two():
    found = read("optimiser.learning_rate=1e-4..1e-2:log")
    assert (found.low, found.high, found.log, found.choices) == (1e-4, 1e-2, True, ())
    assert found.ends == (1e-4, 1e-2)


def test_whole_numbers_where_the_setting_takes_no_others():
    found = read("agent.t_max=16..128")
    assert (found.low, found.high, found.log) == (16, 128, False)
    assert isinstance(found.low, int)
    found = read("dpsgd.local_updates=1..64:log")  # a number, or the word auto
    assert isinstance(found.high, int)


def test_whole_ends_of_a_setting_that_takes_any_number():
    found = read("agent.entropy_weight=0..1")
    assert isinstance(found.low, float)
    assert (found.low, found.high) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("agent.t_max=16,32,64", (16, 32, 64)),
        ("agent.recurrent=none,lstm", ("none", "lstm")),
        ("agent.normalise_rewards=true,false", (True, False)),
        ("agent.max_gradient_norm=null,0.5,1e-1", (None, 0.5, 0.1)),
    ],
)
def test_choices(text, choices):
    found = read(text)
    assert found.choices == choices
    assert found.ends == (choices[0], choices[-1])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("agent.t_max", "--range agent.t_max"),
        ("agent.t_max=", "--range agent.t_max="),
        ("=1..2", "--range =1..2"),
        ("agent..t_max=1..2", "agent..t_max"),
        ("agent.t_max=16", "two choices"),
        ("agent.t_max=16,16", "no two alike"),
        ("agent.t_max=[16],[32]", "choices must be"),
        ("agent.t_max=16,}", "must be FIELD"),
        ("agent.t_max=a..b", "must be FIELD"),
        ("agent.t_max=64..16", "64 must be less than 16"),
        ("agent.t_max=1..inf", "finite"),
        ("agent.entropy_weight=0..1:log", "greater than 0"),
        ("agent.tmax=16..32", "did you mean t_max"),
        ("nowhere.at=1..2", "nowhere"),
        ("agent.t_max=0..32", "agent.t_max = 0"),
        ("agent.t_max=16.5..32", "agent.t_max = 16.5"),
        ("optimiser.learning_rate=1e-3..20", "optimiser.learning_rate = 20"),
        ("optimiser.learning_rate=1..20", "optimiser.learning_rate = 20"),
        ("agent.recurrent=1..2", "agent.recurrent = 1"),
        ("agent.recurrent=lstm,gro", "'gro'"),
        ("output.name=a,b", "output.name"),
    ],
)
def test_one_line_for_what_is_no_range(text, named):
    with pytest.raises(ConfigError) as error:
        read_all([text], APPLICATION, {})
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_a_setting_has_one_range_and_no_other_value():
    with pytest.raises(ConfigError, match=r"agent\.t_max has a range already"):
        read_all(["agent.t_max=16..32", "agent.t_max=64,128"], APPLICATION, {})
    with pytest.raises(ConfigError, match=r"agent\.t_max = 5 is set already"):
        read("agent.t_max=16..32", {"agent": {"t_max": 5}})
