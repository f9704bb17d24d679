import json
import re

import pytest
import yaml

from hsa2c.agents.application import APPLICATION
from hsa2c.agents.settings import AgentConfig
from hsa2c.commands import run_options, train
from hsa2c.config.loading import read_yaml

SHIPPED = "gym/mujoco, paper/ddrl_a3c, paper/hsa2c, pong, smoke"

MPI = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch):
    """No test here starts a job by accident."""

    def started(*_):
        pytest.fail("a job was started")

    monkeypatch.setattr(train, "launch", started)
    monkeypatch.setattr(train, "join", started)
    for name in (*MPI, "PMI_RANK", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """Runs the command with a job that ends at once; gives back what would have been started."""

    def launched(*arguments, code=0):
        starts = []

        def launch(what):
            starts.append(what)
            return code

        monkeypatch.setattr(train, "launch", launch)
        if "--resume" not in arguments:
            arguments = ("--run-dir", tmp_path, *arguments)
        assert train.main([str(argument) for argument in arguments]) == code
        (what,) = starts
        return what

    return launched


# Bad input: exit code 2, one line, nothing written


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--game Pogn", "train.py: game = 'Pogn': no such game; did you mean Pong, Pooyan or Phoenix?"),
        ("--game combat", "train.py: game = 'combat': ALE has it for two players only"),
        ("--nodes 0", "train.py: cluster.nodes = 0: must be greater than or equal to 1"),
        ("--hosts no", "train.py: no: cannot be read: No such file or directory"),
        ("--p 0", "train.py: cluster.processes = 0: must be greater than or equal to 1"),
        ("--B 0", "train.py: dpsgd.local_updates = 0: must be greater than or equal to 1"),
        ("--M 0", "train.py: dpsgd.deltas_per_step = 0: must be greater than or equal to 1"),
        ("--rho 0", "train.py: dpsgd.global_rate = 0.0: must be greater than 0"),
        ("--momentum 1", "train.py: dpsgd.momentum = 1.0: must be less than 1"),
        ("--lr nan", "train.py: optimiser.learning_rate = nan: must be a finite number"),
        ("--minutes inf", "train.py: stop.minutes = inf: must be a finite number"),
        ("--score nan", "train.py: stop.score = nan: must be a finite number"),
        ("--seed -1", "train.py: seed = -1: must be greater than or equal to 0"),
        ("--agent-steps 0", "train.py: stop.agent_steps = 0: must be greater than or equal to 1"),
        (
            "--name ../x",
            "train.py: output.name = '../x': must be letters, digits, '.', '_' and '-', at most 100, the first a letter"
            " or digit",
        ),
        ("--set seed", "train.py: --set seed: must be section.field=value, for example agent.discount=0.99"),
        ("--set agent.discuont=1", "train.py: agent.discuont: no such setting; did you mean discount?"),
        ("--set agent.discount=x", "train.py: agent.discount = 'x': must be a valid number"),
        ("--set agent={minibatches:7}", "train.py: agent.minibatches:7: no such setting; did you mean minibatches?"),
        (
            "--set agent.t_max=5 --set agent.num_envs=2 --set agent.minibatches=7",
            "train.py: agent.minibatches = 7: must be a divisor of t_max = 5",
        ),
        (
            "--set optimiser.anneal=true",
            "train.py: optimiser.anneal = True: needs a limit to fall to 0 at, --agent-steps or --minutes",
        ),
        (
            "--set optimiser.anneal=true --score 5",
            "train.py: optimiser.anneal = True: needs a limit to fall to 0 at, --agent-steps or --minutes",
        ),
        (
            "--config nosuch",
            f"train.py: --config nosuch: no such file; shipped are {SHIPPED}",
        ),
        (
            "--config /no/such.yaml",
            f"train.py: --config /no/such.yaml: no such file; shipped are {SHIPPED}",
        ),
        (
            "--config /",
            f"train.py: --config /: no such file; shipped are {SHIPPED}",
        ),
        ("--nods 2", "train.py: unrecognized arguments: --nods 2 (--help shows all options)"),
        ("--node 2", "train.py: unrecognized arguments: --node 2 (--help shows all options)"),
        ("Pong", "train.py: unrecognized arguments: Pong (--help shows all options)"),
        ("--p two", "train.py: argument --p: invalid int value: 'two' (--help shows all options)"),
        ("--B two", "train.py: argument --B: 'two': must be a whole number, or auto (--help shows all options)"),
        (
            "--set dpsgd.local_updates=two",
            "train.py: dpsgd.local_updates = 'two': must be a valid integer or 'auto'",
        ),
        ("--set dpsgd.exchange_share=1", "train.py: dpsgd.exchange_share = 1: must be less than 1"),
        ("--game", "train.py: argument --game: expected one argument (--help shows all options)"),
    ],
)
def test_bad_option_is_refused(refused, tmp_path, arguments, line):
    assert refused(train.main, "--run-dir", tmp_path / "runs", *arguments.split()) == line


@pytest.mark.parametrize("value", ["", "x" * 300, "a\nb", "a\0b"])
def test_strange_text_is_refused(refused, tmp_path, value):
    for option in ("--game", "--config", "--name", "--resume", "--set", "--nodes"):
        refused(train.main, "--run-dir", tmp_path / "runs", option, value)


@pytest.mark.parametrize("folder", ["x" * 300, "a\0b", ""])
def test_run_dir_that_cannot_be(refused, monkeypatch, tmp_path, folder):
    monkeypatch.chdir(tmp_path)
    refused(train.main, "--run-dir", folder)


def test_run_dir_that_is_a_file(refused, tmp_path):
    (tmp_path / "file").write_text("")
    line = refused(train.main, "--run-dir", tmp_path / "file", "--name", "x")
    assert line == f"train.py: {tmp_path}/file/x: cannot be written: Not a directory"


def test_bad_file_is_refused(refused, tmp_path):
    path = tmp_path / "mine.yaml"
    for text, what in [
        ("- 1", "holds list, not a mapping of settings"),
        ("agent: [", "not YAML"),
        ("agent:\n  gama: 1", "agent.gama: no such setting"),
        ("agent:\nseed: 2", "agent = None: must be an object"),
    ]:
        path.write_text(text)
        assert what in refused(train.main, "--run-dir", tmp_path / "runs", "--config", path)


def test_existing_run_is_left_alone(refused, make_run, tmp_path):
    run = make_run("mine")
    line = refused(train.main, "--run-dir", tmp_path, "--name", "mine")
    assert line == f"train.py: {run}: exists; --resume {run} goes on with it, --name starts another"


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("--game", "Breakout", "game = 'Breakout': cannot change in a resumed run, which has 'Pong'"),
        ("--set", "game=Breakout", "game = 'Breakout': cannot change in a resumed run, which has 'Pong'"),
        ("--seed", 5, "seed = 5: cannot change in a resumed run, which has 1"),
        ("--name", "new", "output.name = 'new': cannot change in a resumed run, which has 'old'"),
        ("--set", "output={name: new}", "output.name = 'new': cannot change in a resumed run, which has 'old'"),
        ("--set", "optimiser.name=sgd", "optimiser.name = 'sgd': cannot change in a resumed run, which has 'adam'"),
        ("--config", "pong", "--config pong: a resumed run keeps its own configuration"),
        ("--nodes", 0, "cluster.nodes = 0: must be greater than or equal to 1"),
    ],
)
def test_resumed_run_keeps_what_makes_it_that_run(refused, make_run, option, value, line):
    run = make_run()
    assert refused(train.main, "--resume", run, option, value) == f"train.py: {line}"


def test_resume_of_nothing(refused, tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        line = refused(train.main, "--resume", folder)
        assert line == f"train.py: --resume {folder}: not a run directory (it has no config.yaml)"


def test_resume_without_a_checkpoint(refused, make_run):
    run = make_run()
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    assert "holds no checkpoint" in refused(train.main, "--resume", run)


def test_resume_with_another_network(refused, make_run):
    line = refused(train.main, "--resume", make_run(), "--set", "env.full_action_set=true")
    assert line.endswith(
        "is of network 'mnih2013-background-4x84x84-6', this run is of 'mnih2013-background-4x84x84-18'"
    )


def test_resume_of_a_run_that_is_done(refused, make_run):
    run = make_run(**{"stop.agent_steps": 200})
    line = f"train.py: --resume {run}: nothing left to do: "
    assert refused(train.main, "--resume", run) == f"{line}200 agent steps (limit 200); raise the limit"
    line += "1.5 min of training; raise the limit"
    assert refused(train.main, "--resume", run, "--agent-steps", 300, "--minutes", 1.5) == line


def test_world_of_another_size(refused, monkeypatch, tmp_path):
    for name, value in zip(MPI, "03", strict=True):
        monkeypatch.setenv(name, value)
    line = refused(train.main, "--run-dir", tmp_path / "runs", "--nodes", 3)
    assert line == "train.py: --nodes 3: this world has 3 ranks, one is the master: must be 2"


# Good input: what would start


def test_new_run_is_prepared(launched, tmp_path):
    what = launched("--game", "pong", "--name", "mine", "--p", 2, "--nodes", 3, "--B", 5, "--set", "agent.num_envs=4")
    config = what.config
    assert (config.game, config.cluster.nodes, config.cluster.processes, config.dpsgd.local_updates) == (
        "Pong",
        3,
        2,
        5,
    )
    assert (config.dpsgd.deltas_per_step, config.dpsgd.global_rate) == (3, pytest.approx(1 / 3))
    assert (what.directory, what.resume_from, what.session) == (tmp_path / "mine", None, 1)
    assert what.title == "HSA2C Pong: 3 nodes x 2 actor-learners x 4 environments, B = 5"
    assert read_yaml(tmp_path / "mine" / "config.yaml")["dpsgd"]["deltas_per_step"] == 3
    about = yaml.safe_load((tmp_path / "mine" / "about.yaml").read_text())
    assert about["packages"]["torch"]


def test_command_line_wins_over_the_file_and_the_file_over_defaults(launched, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 5\ncluster: {nodes: 2}\nagent: {t_max: 10, discount: 1e-1}\n")
    config = launched("--config", path, "--seed", 6, "--set", "agent.t_max=4", "--set", "seed=7").config
    assert (config.seed, config.agent.t_max, config.agent.discount, config.cluster.nodes) == (6, 4, 0.1, 2)
    assert config.agent.num_envs == AgentConfig().num_envs


def test_shipped_configuration_by_name(launched):
    assert launched("--config", "smoke").config.cluster.nodes == 2


@pytest.mark.parametrize(
    "settings",
    [
        ["agent.t_max=5", "agent.num_envs=2"],
        ["agent={t_max: 5, num_envs: 2}"],
        [" agent.t_max = 5", "agent={num_envs: 2}"],
    ],
)
def test_spellings_of_set(launched, settings):
    options = [part for setting in settings for part in ("--set", setting)]
    agent = launched(*options, "--set", "agent.minibatches=1").config.agent
    assert (agent.t_max, agent.num_envs) == (5, 2)


def test_runs_without_a_name_never_meet(launched):
    names = [launched().directory.name for _ in range(3)]
    assert len(set(names)) == 3
    assert all(name.startswith("Pong-") for name in names)


def test_resume_takes_the_checkpoint_and_the_old_settings(launched, make_run):
    run = make_run(**{"agent.t_max": 10})
    what = launched("--resume", run, "--agent-steps", 1000, "--game", "pong")
    assert (what.directory, what.session) == (run, 2)
    assert what.resume_from == run / "checkpoints" / "step-000000010.safetensors"
    assert (what.config.agent.t_max, what.config.stop.agent_steps, what.config.game) == (10, 1000, "Pong")
    assert read_yaml(run / "config.yaml")["stop"]["agent_steps"] == 1000
    assert (run / "about.yaml").is_file()
    assert (run / "about-2.yaml").is_file()


def test_exit_code_is_the_jobs(launched):
    for code in (1, 130, 143):
        launched(code=code)


def test_json_tells_what_became_of_the_run(launched, capsys, tmp_path, monkeypatch):
    launched("--name", "a", "--json")
    result = json.loads(capsys.readouterr().out)
    assert result["run"] == str(tmp_path / "a")
    assert (result["exit_code"], result["reason"], result["mean_score"]) == (0, None, None)


def test_in_a_world_of_mpi_the_ranks_are_the_nodes(monkeypatch, tmp_path):
    for rank in range(3):
        joined = []

        def join(what, world, joined=joined):
            joined.append((what, world.rank))
            return 0

        monkeypatch.setattr(train, "join", join)
        for name, value in zip(MPI, (str(rank), "3"), strict=True):
            monkeypatch.setenv(name, value)
        # Rank 0 has made the directory when the others come.
        assert train.main(["--run-dir", str(tmp_path), "--name", "world"]) == 0
        ((what, joined_as),) = joined
        assert (what.config.cluster.nodes, joined_as) == (2, rank)
    assert (tmp_path / "world" / "config.yaml").is_file()


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as end:
        train.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for option in (*run_options.COMMON, *APPLICATION.command.options):
        assert re.search(rf"^  {option.flag} ", text, re.MULTILINE), option.flag
