import dataclasses
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from hsa2c.agents.application import APPLICATION, AtariConfig
from hsa2c.config.loading import (
    assignments,
    at,
    build,
    field_at,
    find_config,
    merge,
    nested,
    parse_assignment,
    read_yaml,
    to_dict,
    to_yaml,
    tree,
)
from hsa2c.config.sections import ClusterConfig, DPSGDConfig, OptimiserConfig, OutputConfig
from hsa2c.errors import ConfigError

SHIPPED = "gym/mujoco, paper/ddrl_a3c, paper/hsa2c, pong, smoke"


def error_of(values, config_type=AtariConfig):
    """The message of the ConfigError that building gives; it must be one line."""
    with pytest.raises(ConfigError) as caught:
        build(config_type, values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "settings.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_yaml(path)

    return read


# Building


def test_defaults_need_no_values():
    config = build(AtariConfig, {})
    assert config == AtariConfig()
    assert (config.game, config.seed, config.cluster.nodes, config.dpsgd.local_updates) == ("Pong", 1, 1, 8)


def test_values_reach_their_fields_and_others_keep_their_defaults():
    config = build(AtariConfig, {"seed": 7, "optimiser": {"name": "sgd", "learning_rate": 1}, "stop": {"score": -5}})
    assert (config.seed, config.optimiser.name, config.optimiser.learning_rate, config.stop.score) == (7, "sgd", 1, -5)
    assert type(config.optimiser.learning_rate) is float
    assert config.optimiser.beta1 == AtariConfig().optimiser.beta1
    assert config.agent == AtariConfig().agent


def test_configurations_are_frozen_and_keyword_only():
    config = build(AtariConfig, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.cluster.nodes = 2
    with pytest.raises(Exception, match="positional"):
        ClusterConfig(2)


NO_SUCH = "no such setting; known are nodes, hosts, processes, spares, masters, restarts, absence_s?"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sed": 1}, "sed: no such setting; did you mean seed?"),
        ({"agent": {"discuont": 0.9}}, "agent.discuont: no such setting; did you mean discount?"),
        ({"cluster": {"xyzzy": 1}}, f"cluster.xyzzy: {NO_SUCH}"),
        (
            {"cluster": {"int": 1}},
            f"cluster.int: {NO_SUCH}",
        ),
        (
            {"cluster": {"a[0]": 1}},
            f"cluster.a[0]: {NO_SUCH}",
        ),
        ({"cluster": {"": 1}}, f"cluster.'': {NO_SUCH}"),
        (
            {"cluster": {"a\nb": 1}},
            rf"cluster.'a\nb': {NO_SUCH}",
        ),
        ({"seed": "3"}, "seed = '3': must be a valid integer"),
        ({"seed": 3.0}, "seed = 3.0: must be a valid integer"),
        ({"seed": True}, "seed = True: must be a valid integer"),
        ({"seed": None}, "seed = None: must be a valid integer"),
        ({"seed": -1}, "seed = -1: must be greater than or equal to 0"),
        ({"seed": 2**31}, "seed = 2147483648: must be less than 2147483648"),
        ({"cluster": {"nodes": 0}}, "cluster.nodes = 0: must be greater than or equal to 1"),
        ({"cluster": {"processes": "all"}}, "cluster.processes = 'all': must be a valid integer"),
        ({"cluster": 5}, "cluster = 5: must be an object"),
        ({"cluster": None}, "cluster = None: must be an object"),
        ({"cluster": [1]}, "cluster = [1]: must be an object"),
        ({"dpsgd": {"momentum": 1}}, "dpsgd.momentum = 1: must be less than 1"),
        ({"optimiser": {"name": "adm"}}, "optimiser.name = 'adm': must be 'sgd', 'rmsprop' or 'adam'"),
        ({"optimiser": {"learning_rate": math.nan}}, "optimiser.learning_rate = nan: must be a finite number"),
        ({"stop": {"score": -math.inf}}, "stop.score = -inf: must be a finite number"),
        ({"optimiser": {"anneal": 1}}, "optimiser.anneal = 1: must be a valid boolean"),
        ({"output": {"run_dir": ""}}, "output.run_dir = '': must have at least 1 character"),
        (
            {"output": {"name": "../x"}},
            "output.name = '../x': must be letters, digits, '.', '_' and '-', at most 100, the first a letter or digit",
        ),
        (
            {"agent": {"minibatches": 7, "t_max": 5, "num_envs": 2}},
            "agent.minibatches = 7: must be a divisor of t_max = 5",
        ),
        ({"game": "Pogn"}, "game = 'Pogn': no such game; did you mean Pong, Pooyan or Phoenix?"),
        ({"game": 3}, "game = 3: must be a valid string"),
    ],
)
def test_error_names_field_value_and_rule(values, message):
    assert error_of(values) == message


@pytest.mark.parametrize("name", [".", "..", "-x", "a/b", "a b", "a\n", "x" * 101, "ä"])
def test_names_that_are_no_folder_names(name):
    assert error_of({"output": {"name": name}}).startswith(f"output.name = {name!r:.20}"[:20])


@pytest.mark.parametrize(
    "value",
    [{1, 2}, b"x", object(), {"a": [{(1, 2): 3}]}, 16**5000],
    ids=["set", "bytes", "object", "tuple key", "huge integer"],
)
def test_values_that_no_yaml_holds(value):
    assert error_of({"seed": value}).startswith("configuration: ")


def test_values_that_go_round_in_circles_or_too_deep():
    circle = {}
    circle["agent"] = circle
    assert error_of(circle).startswith("configuration: ")
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert error_of({"seed": deep}).startswith("configuration: ")
    less_deep = []
    for _ in range(500):
        less_deep = [less_deep]
    assert error_of({"seed": less_deep}).startswith("configuration: ")


def test_long_values_make_no_long_message():
    assert len(error_of({"seed": "x" * 10_000})) < 200
    assert len(error_of({"seed": list(range(10_000))})) < 200


def test_only_the_first_of_several_errors_is_told():
    assert error_of({"cluster": {"nodes": 0}, "seed": -1}).count(":") == 1


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def garbage():
    """Trees that look like a configuration now and then."""
    known = to_dict(AtariConfig())
    fields = [(key, name) for key, section in known.items() if isinstance(section, dict) for name in section]

    def tree(items):
        values = {}
        for (section, name), value in items:
            values.setdefault(section, {})[name] = value
        return values

    near = st.lists(st.tuples(st.sampled_from(fields), plain), max_size=4).map(tree)
    top = st.dictionaries(st.sampled_from(sorted(known)) | st.text(max_size=5), plain, max_size=3)
    return st.builds(lambda a, b: {**a, **b}, near, top)


@given(values=garbage())
def test_garbage_is_one_line_or_a_configuration(values):
    try:
        config = build(AtariConfig, values)
    except ConfigError as error:
        assert "\n" not in str(error)
        assert str(error)
    else:
        assert build(AtariConfig, to_dict(config)) == config
        assert all(math.isfinite(x) for x in leaves(to_dict(config)) if isinstance(x, float))


def leaves(tree):
    return [x for value in tree.values() for x in (leaves(value) if isinstance(value, dict) else [value])]


# YAML


def test_yaml_of_a_configuration_makes_an_equal_one(read):
    config = build(
        AtariConfig,
        {
            "seed": 3,
            "cluster": {"processes": 2},
            "optimiser": {"learning_rate": 1e-05, "epsilon": 1e-30},
            "stop": {"score": -0.1, "agent_steps": 10**12},
            "output": {"run_dir": "a: b # c", "name": "1e5"},
        },
    )
    assert build(AtariConfig, read(to_yaml(config))) == config


@given(name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True))
@example(name="1e5")
@example(name="2024-01-01")
@example(name="null")
def test_every_name_survives_yaml(name):
    config = build(OutputConfig, {"name": name})
    line = to_yaml(config).split("name: ")[1].splitlines()[0]
    assert parse_assignment(f"name={line}") == ("name", name)


@given(rate=st.floats(min_value=0, max_value=10, exclude_min=True))
def test_every_float_survives_yaml(rate):
    config = build(OptimiserConfig, {"learning_rate": rate})
    text = to_yaml(config)
    key, value = parse_assignment(f"learning_rate={text.split('learning_rate: ')[1].splitlines()[0]}")
    assert build(OptimiserConfig, {key: value}) == config


def test_resolved_configuration_keeps_the_order_of_its_fields():
    assert list(yaml.safe_load(to_yaml(AtariConfig()))) == [field.name for field in dataclasses.fields(AtariConfig)]


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "1E-3", ".1e-2", "+1e-3", "0.001", "10e-4"])
def test_every_spelling_of_a_small_float(read, text):
    assert read(f"learning_rate: {text}") == {"learning_rate": 1e-3}
    assert parse_assignment(f"a={text}") == ("a", 1e-3)


@pytest.mark.parametrize("text", ["1e", "e-3", "1e-3x", "'1e-3'", "x1e-3"])
def test_what_is_no_float(read, text):
    assert isinstance(read(f"a: {text}")["a"], str)


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "{}"])
def test_empty_file_is_no_settings(read, text):
    assert read(text) == {}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("- 1", "holds list, not a mapping of settings"),
        ("hello", "holds str, not a mapping of settings"),
        ("a: [", "not YAML: "),
        ("a: 1\n b: 2", "not YAML: "),
        ("--- 1\n--- 2", "not YAML: "),
        ("a: 2024-13-45", "not YAML: month must be in 1..12"),
        ("a: !!int x", "not YAML: "),
        ("a: !!python/object/apply:os.getpid []", "not YAML: could not determine a constructor"),
        ("[" * 500, "not YAML: "),
        ("a: " + "9" * 5000, "not YAML: "),
        ("a: 1\nb: 2\na: 3", "not YAML: 'a' is there twice"),
        ("agent:\n  t_max: 5\n  t_max: 6", "not YAML: 't_max' is there twice"),
        (b"a: \xff", "cannot be read: "),
        (b"a: \0", "not YAML: "),
    ],
)
def test_file_that_is_no_mapping(read, text, what):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert "\n" not in str(caught.value)
    path, _, message = str(caught.value).partition(": ")
    assert path.endswith("settings.yaml")
    assert message.startswith(what)


def test_yaml_may_use_anchors_and_merge_keys(read):
    assert read("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}")["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize("text", ["seed: 2024-01-01", "seed: 2024-01-01 10:00:00", "2024-01-01: 1", "seed: !!set {1}"])
def test_dates_and_sets_are_no_settings(read, text):
    assert error_of(read(text)).startswith("configuration: holds a value that is neither number, text nor list: ")


def test_a_setting_that_is_no_plain_value_is_named():
    with pytest.raises(ConfigError, match=r"nor list: env\.id = <object"):
        APPLICATION.build_config({"env": {"id": object()}})


def test_file_that_cannot_be_read(tmp_path):
    for path, why in [(tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")]:
        with pytest.raises(ConfigError) as caught:
            read_yaml(path)
        assert str(caught.value) == f"{path}: cannot be read: {why}"


# Trees


def test_merge_goes_key_by_key_and_changes_nothing():
    below = {"a": {"x": 1, "y": {"z": 2}}, "b": 3}
    above = {"a": {"y": {"w": 4}}, "b": None, "c": 5}
    assert merge(below, above) == {"a": {"x": 1, "y": {"z": 2, "w": 4}}, "b": None, "c": 5}
    assert below == {"a": {"x": 1, "y": {"z": 2}}, "b": 3}
    assert above == {"a": {"y": {"w": 4}}, "b": None, "c": 5}


def test_merge_of_a_section_and_what_is_none():
    assert merge({"a": 1}, {"a": {"x": 2}}) == {"a": {"x": 2}}
    assert merge({"a": {"x": 2}}, {"a": 1}) == {"a": 1}
    assert merge({"a": None}, {"a": {"x": 2}}) == {"a": {"x": 2}}
    assert merge({}, {}) == {}


def test_nested():
    assert nested("agent.gamma", 0.9) == {"agent": {"gamma": 0.9}}
    assert nested("seed", 1) == {"seed": 1}
    assert nested("a.b.c", {"d": 1}) == {"a": {"b": {"c": {"d": 1}}}}


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("seed=3", "seed", 3),
        ("agent.discount=0.9", "agent.discount", 0.9),
        (" agent.discount = 0.9 ", "agent.discount", 0.9),
        ("a=b=c", "a", "b=c"),
        ("a=null", "a", None),
        ("a=", "a", None),
        ("a=true", "a", True),
        ("a='1'", "a", "1"),
        ("agent={t_max: 5, num_envs: 2}", "agent", {"t_max": 5, "num_envs": 2}),
        ("a=[1, 2]", "a", [1, 2]),
    ],
)
def test_assignment(text, key, value):
    assert parse_assignment(text) == (key, value)


@pytest.mark.parametrize("text", ["", "a", "=3", "a..b=1", ".a=1", "a.=1", "a.b", "\n=1"])
def test_assignment_without_a_field_and_a_value(text):
    with pytest.raises(ConfigError, match=r"^--set .*: must be section\.field=value, for example a\.b=1$"):
        parse_assignment(text, "a.b=1")


@pytest.mark.parametrize("text", ["a=[", "a={", "a=2024-99-99", "a=!!python/name:os.system", "a=\0", "a=[\n"])
def test_assignment_of_what_is_no_yaml(text):
    with pytest.raises(ConfigError) as caught:
        parse_assignment(text)
    assert "\n" not in str(caught.value)
    assert ": the value is not YAML: " in str(caught.value)


def test_fields_beside_a_field():
    names = ["nodes", "hosts", "processes", "spares", "masters", "restarts", "absence_s"]
    assert field_at(AtariConfig, ("cluster", "x")) == names
    assert field_at(AtariConfig, ("x",))[:3] == ["game", "seed", "cluster"]
    assert field_at(AtariConfig, ("seed", "x")) == []
    assert field_at(DPSGDConfig, ("x",))[0] == "local_updates"


def test_the_float16_of_older_runs_is_bfloat16():
    assert build(DPSGDConfig, {"delta_dtype": "float16"}).delta_dtype == "bfloat16"
    with pytest.raises(ConfigError, match="delta_dtype = 'half'"):
        build(DPSGDConfig, {"delta_dtype": "half"})


def test_text_that_is_not_utf_8_names_the_setting():
    with pytest.raises(ConfigError, match=r"^output\.run_dir = 'x\\udcff': must be UTF-8 text$"):
        build(AtariConfig, {"output": {"run_dir": "x\udcff"}})
    with pytest.raises(ConfigError, match=r"must be UTF-8 text$"):
        build(AtariConfig, {"x\udcff": 1})


def test_tilde_is_the_home_in_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of/mine")
    config = build(AtariConfig, {"output": {"run_dir": "~/x"}, "cluster": {"hosts": "~/hosts"}})
    assert (config.output.run_dir, config.cluster.hosts) == ("/home/of/mine/x", "/home/of/mine/hosts")
    with pytest.raises(ConfigError, match=r"^output\.run_dir = '~no such user/x': must be a path whose user is known"):
        build(AtariConfig, {"output": {"run_dir": "~no such user/x"}})


# Options and files


def test_assignments_are_flat():
    texts = ["seed=1", "agent={t_max: 5, num_envs: 2}", "a.b={c: {d: 1}}", "seed=2", "env={}"]
    assert assignments(texts) == {
        "seed": 2,
        "agent.t_max": 5,
        "agent.num_envs": 2,
        "a.b.c.d": 1,
        "env": {},
    }


def test_fields_make_a_tree():
    values = tree({"seed": 1, "agent.t_max": 5, "agent": {"num_envs": 2, "t_max": 6}, "env": {}})
    assert values == {"seed": 1, "agent": {"t_max": 6, "num_envs": 2}, "env": {}}
    assert (at(values, "agent.t_max"), at(values, "agent.none"), at(values, "seed.none")) == (6, None, None)


def test_own_file_comes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = find_config("pong", "hsa2c.configs")
    assert shipped.parent.name == "configs"
    Path("pong").write_text("seed: 3")
    assert find_config("pong", "hsa2c.configs") == Path("pong")
    Path("smoke").mkdir()
    assert find_config("smoke", "hsa2c.configs") == shipped.with_name("smoke.yaml")


@pytest.mark.parametrize("name", ["", "nope", "/nope", "/nope/x.yaml", "../nope", "paper", "x" * 300, "a/b/c/d", "."])
def test_file_that_is_not_there(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        find_config(name, "hsa2c.configs")
    assert str(caught.value) == f"--config {name}: no such file; shipped are {SHIPPED}"
    with pytest.raises(ConfigError) as caught:
        find_config(name)
    assert str(caught.value) == f"--config {name}: no such file", "an application that ships none"


def test_an_application_without_shipped_files_takes_a_users(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        find_config("pong")
    (tmp_path / "mine.yaml").write_text("seed: 3")
    assert find_config(str(tmp_path / "mine.yaml")) == tmp_path / "mine.yaml"
