import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from agents.application import APPLICATION
from hsa2c.cluster.world import World
from hsa2c.config.loading import read_yaml, to_dict
from hsa2c.errors import CheckpointError, ConfigError, FinishedError
from hsa2c.observe.runlog import Journal, read_rows
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run import directory as rundir
from hsa2c.run.checkpoint import Checkpoint

ALONE = World(0, 1, started_by_mpi=False)

REPOSITORY = Path(__file__).resolve().parents[2]
ALONE = World(0, 1, started_by_mpi=False)


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(rundir, "share_of_cores", lambda nodes: max(1, 8 // nodes))


@pytest.fixture
def prepare(tmp_path):
    def prepare(config_file=None, world=ALONE, **given):
        given = {dotted.replace("__", "."): value for dotted, value in given.items()}
        return rundir.prepare(APPLICATION, {"output.run_dir": str(tmp_path)} | given, config_file, world)

    return prepare


@pytest.fixture
def make_run(prepare):
    """A run that was started and has a checkpoint at t = 10; its directory."""

    def make_run(**given):
        run = prepare(**({"output__name": "old"} | given))
        with run.open():
            pass
        add_checkpoint(run, 10)
        return run.directory

    return make_run


def add_checkpoint(run, t, **counters):
    checkpoint = Checkpoint(
        v=np.zeros(3, np.float32),
        momentum=np.zeros(3, np.float32),
        optimiser_states=(),
        t=t,
        counters={"agent_steps": 10 * t, "sessions": run.session, "elapsed_s": 1.0} | counters,
        config=to_dict(run.config),
        identity=APPLICATION.identity(run.config),
    )
    return checkpoints.save(run.directory / "checkpoints", checkpoint, keep=3)


def resume(directory, **given):
    fields = {key.replace("__", "."): value for key, value in given.items()}
    return rundir.resume(APPLICATION, directory, fields, None, ALONE)


def events(directory, kind):
    return [row for row in read_rows(directory / "journal.jsonl") if row["kind"] == kind]


# New runs


def test_preparing_writes_nothing_and_opening_writes_what_runs(prepare, tmp_path):
    run = prepare(output__name="mine", game="space-invaders")
    assert list(tmp_path.iterdir()) == []
    with run.open():
        assert {path.name for path in run.directory.iterdir()} == {
            ".lock",
            "about.yaml",
            "config.yaml",
            "journal.jsonl",
        }
    assert APPLICATION.build_config(read_yaml(run.directory / "config.yaml")) == run.config
    assert run.config.game == "SpaceInvaders"
    about = yaml.safe_load((run.directory / "about.yaml").read_text())
    assert {"command", "host", "cores", "packages", "commit"} <= about.keys()


def test_what_was_left_to_the_rules_is_filled_in(prepare):
    config = prepare(cluster__nodes=4, dpsgd__momentum=0.5, dpsgd__global_factor=2.0).config
    assert (config.cluster.processes, config.dpsgd.deltas_per_step) == (2, 4)
    assert config.dpsgd.global_rate == pytest.approx(2.0 * 0.5 / 4)
    config = prepare(cluster__nodes=4, cluster__processes=3, dpsgd__deltas_per_step=2, dpsgd__global_rate=0.1).config
    assert (config.cluster.processes, config.dpsgd.deltas_per_step, config.dpsgd.global_rate) == (3, 2, 0.1)


@pytest.mark.parametrize(
    ("nodes", "p", "wanted", "exchange"),
    [
        (1, 1, "auto", "paper"),
        (1, 2, "auto", "overlap"),
        (2, 1, "auto", "overlap"),
        (1, 1, "overlap", "overlap"),
        (4, 4, "paper", "paper"),
    ],
)
def test_exchange_is_in_the_background_where_anybody_could_wait(prepare, nodes, p, wanted, exchange):
    run = prepare(cluster__nodes=nodes, cluster__processes=p, dpsgd__exchange=wanted)
    assert run.config.dpsgd.exchange == exchange


def test_exchange_of_an_application_that_cannot_overlap(prepare, monkeypatch):
    monkeypatch.setattr(type(APPLICATION), "overlaps", False)
    assert prepare(cluster__processes=2).config.dpsgd.exchange == "paper"
    with pytest.raises(ConfigError, match=r"^dpsgd\.exchange = 'overlap': hsa2c cannot"):
        prepare(dpsgd__exchange="overlap")


def test_annealing_needs_a_limit(prepare):
    with pytest.raises(ConfigError, match=r"^optimiser\.anneal = True: needs a limit"):
        prepare(optimiser__anneal=True)
    for limit in ({"stop__minutes": 1.0}, {"stop__agent_steps": 10}):
        assert prepare(optimiser__anneal=True, **limit).config.optimiser.anneal


def test_run_that_exists_is_not_started_again(prepare, make_run):
    directory = make_run()
    with pytest.raises(ConfigError, match=rf"^{directory}: exists; --resume {directory} goes on with it"):
        prepare(output__name="old")


def test_run_that_comes_to_exist_meanwhile_is_left_alone(prepare):
    first, second = prepare(output__name="mine"), prepare(output__name="mine", seed=2)
    with first.open():
        pass
    with pytest.raises(ConfigError, match="exists"):
        second.open()
    assert read_yaml(first.directory / "config.yaml")["seed"] == 1


@pytest.mark.parametrize("again", [False, True])
def test_what_lies_in_a_runs_place_is_named(tmp_path, again):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    for name, rule in {"link": "is a link to .*nowhere, which does not exist", "file": "is not a folder"}.items():
        given = {"output.run_dir": str(tmp_path), "output.name": name}
        with pytest.raises(ConfigError, match=rf"{name}: {rule}"):
            rundir.prepare(APPLICATION, given, "smoke", ALONE, again=again).open()
        with pytest.raises(ConfigError, match=rf"{name}: {rule}" if name == "link" else "cannot be written"):
            rundir.prepare(APPLICATION, given | {"output.run_dir": str(tmp_path / name)}, "smoke", ALONE).open()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_names_given_by_the_clock_do_not_meet(prepare):
    names = []
    for _ in range(3):
        with prepare().open() as run:
            names.append(run.directory.name)
            assert run.config.output.name == run.directory.name
    assert len(set(names)) == 3
    assert all(name.startswith("Pong-2") for name in names)


def test_folder_that_cannot_be_written(prepare, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written: Not a directory$"):
        prepare(output__run_dir=str(tmp_path / "file")).open()


# In a world of MPI


@pytest.mark.parametrize(("size", "nodes"), [(1, 1), (2, 1), (3, 2), (41, 40)])
def test_nodes_are_the_ranks_less_the_masters(prepare, size, nodes):
    world = World(0, size, started_by_mpi=True)
    assert prepare(world=world).config.cluster.nodes == nodes
    assert prepare(world=world, cluster__nodes=nodes).config.cluster.nodes == nodes
    with pytest.raises(ConfigError, match=f"this world has {size} ranks, one is the master: must be {nodes}$"):
        prepare(world=world, cluster__nodes=nodes + 1)


def test_several_masters_are_no_nodes(prepare):
    world = World(0, 8, started_by_mpi=True)
    assert prepare(world=world, cluster__masters=2, cluster__spares=1).config.cluster.nodes == 5
    with pytest.raises(ConfigError, match=r"this world has 8 ranks, 3 are masters, 1 spare: must be 4$"):
        prepare(world=world, cluster__masters=3, cluster__spares=1, cluster__nodes=5)


def test_one_node_needs_one_master(prepare):
    with pytest.raises(ConfigError, match=r"^cluster.masters = 2: one node needs no more than 1 \(or --nodes 2\)$"):
        prepare(cluster__masters=2)
    with pytest.raises(ConfigError, match=r"^cluster.masters = 2: one node"):
        prepare(world=World(0, 3, started_by_mpi=True), cluster__masters=2)
    assert prepare(cluster__nodes=2, cluster__masters=2).config.cluster.masters == 2


def test_number_of_nodes_in_a_file_must_fit_the_world_too(prepare):
    assert prepare("smoke", World(0, 3, started_by_mpi=True)).config.cluster.nodes == 2
    with pytest.raises(ConfigError, match="must be 3"):
        prepare("smoke", World(0, 4, started_by_mpi=True))


def test_other_ranks_come_when_the_directory_is_there_already(prepare):
    with prepare(world=World(0, 3, started_by_mpi=True), output__name="world").open() as run:
        assert prepare(world=World(1, 3, started_by_mpi=True), output__name="world").config == run.config


# Resumed runs


def test_resume_goes_on_from_the_newest_checkpoint(make_run):
    directory = make_run()
    with resume(directory).open() as run:
        path = add_checkpoint(run, 20)
    run = resume(directory, stop__agent_steps=1000)
    assert (run.checkpoint, run.session, run.directory, list(run.remarks)) == (path, 3, directory, [])
    with run.open():
        pass
    _, event = events(directory, "resume")
    assert (event["session"], event["message"]) == (3, "resuming from step-000000020.safetensors")
    assert (directory / "about-3.yaml").is_file()
    assert (directory / "about.yaml").is_file()
    assert read_yaml(directory / "config.yaml")["stop"]["agent_steps"] == 1000
    assert resume(directory).config.stop.agent_steps == 1000, "later resumes keep it"


def test_session_that_left_no_checkpoint_counts_too(make_run):
    directory = make_run()
    sessions = []
    for _ in range(3):
        with resume(directory).open() as run:
            sessions.append(run.session)
    assert sessions == [2, 3, 4]
    assert [event["session"] for event in events(directory, "resume")] == sessions


def test_damaged_checkpoint_is_passed_over_and_remarked(make_run):
    directory = make_run()
    damaged = directory / "checkpoints" / "step-000000020.safetensors"
    damaged.write_bytes(b"\0" * 100)
    run = resume(directory)
    assert run.checkpoint.name == "step-000000010.safetensors"
    (remark,) = run.remarks
    assert remark.startswith(f"{damaged}: damaged")
    with run.open():
        pass
    assert [event["message"] for event in events(directory, "warning")] == [remark]
    assert [event["message"] for event in events(directory, "resume")] == ["resuming from step-000000010.safetensors"]


def test_no_good_checkpoint(make_run):
    directory = make_run()
    path = directory / "checkpoints" / "step-000000010.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="none of 1 checkpoints can be loaded"):
        resume(directory)


def test_run_renamed_by_its_user_can_be_resumed(make_run, tmp_path):
    directory = make_run().rename(tmp_path / "new")
    with resume(directory).open() as run:
        assert run.directory == directory


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"game": "Boxing"}, "game = 'Boxing': cannot change in a resumed run, which has 'Pong'"),
        ({"seed": 2}, "seed = 2: cannot change in a resumed run, which has 1"),
        ({"output__name": "x"}, "output.name = 'x': cannot change in a resumed run, which has 'old'"),
        ({"output": {"name": "x"}}, "output.name = 'x': cannot change in a resumed run, which has 'old'"),
        (
            {"agent__initialisation": "torch"},
            "agent.initialisation = 'torch': cannot change in a resumed run, which has 'orthogonal'",
        ),
        ({"optimiser__name": "sgd"}, "optimiser.name = 'sgd': cannot change in a resumed run, which has 'adam'"),
    ],
)
def test_settings_that_a_resumed_run_keeps(make_run, given, rule):
    with pytest.raises(ConfigError) as caught:
        resume(make_run(), **given)
    assert str(caught.value) == rule


def test_settings_that_may_change(make_run):
    directory = make_run()
    run = resume(directory, game="pong", seed=1, optimiser__learning_rate=0.1, agent__t_max=40, dpsgd__local_updates=3)
    config = run.config
    assert (config.optimiser.learning_rate, config.agent.t_max, config.dpsgd.local_updates) == (0.1, 40, 3)


def test_nothing_left_to_do(make_run):
    directory = make_run(stop__agent_steps=100)
    with pytest.raises(ConfigError, match=r"nothing left to do: 100 agent steps \(limit 100\); raise the limit$"):
        resume(directory)
    assert resume(directory, stop__agent_steps=101).config.stop.agent_steps == 101
    with pytest.raises(ConfigError, match=r"nothing left to do: 0\.01 min of training; raise the limit$"):
        resume(directory, stop__agent_steps=101, stop__minutes=0.01)


FOLLOWED = [
    # what the run was started with, what the resume is given, then processes, M and rho
    ({}, {}, (4, 2, 0.5)),
    ({}, {"cluster__nodes": 4}, (2, 4, 0.25)),
    ({}, {"cluster__nodes": 2}, (4, 2, 0.5)),
    ({}, {"cluster__nodes": 1}, (8, 1, 1.0)),
    ({"dpsgd__global_rate": 0.3}, {"cluster__nodes": 4}, (2, 4, 0.3)),
    ({"dpsgd__deltas_per_step": 1}, {"cluster__nodes": 4}, (2, 1, 1.0)),
    ({"dpsgd__momentum": 0.5}, {"cluster__nodes": 4}, (2, 4, 0.125)),
    ({"dpsgd__global_factor": 3.0}, {"cluster__nodes": 4}, (2, 4, 0.75)),
    ({}, {"cluster__nodes": 4, "dpsgd__deltas_per_step": 2}, (2, 2, 0.5)),
    ({}, {"cluster__nodes": 4, "dpsgd__global_rate": 0.1}, (2, 4, 0.1)),
    ({}, {"cluster__nodes": 4, "cluster__processes": 7}, (7, 4, 0.25)),
    ({}, {"dpsgd__deltas_per_step": 1}, (4, 1, 1.0)),
    ({}, {"dpsgd__momentum": 0.75}, (4, 2, 0.125)),
    ({}, {"dpsgd__global_factor": 3.0}, (4, 2, 1.5)),
    ({"dpsgd__global_rate": 0.3}, {"dpsgd__momentum": 0.75}, (4, 2, 0.3)),
    ({"cluster__processes": 3}, {}, (3, 2, 0.5)),
]


@pytest.mark.parametrize(("start", "given", "expected"), FOLLOWED)
def test_what_followed_by_rule_follows_again(make_run, start, given, expected):
    config = resume(make_run(**({"cluster__nodes": 2} | start)), **given).config
    found = (config.cluster.processes, config.dpsgd.deltas_per_step, config.dpsgd.global_rate)
    assert found == pytest.approx(expected)


# One process at a time


def test_second_process_is_refused(make_run):
    directory = make_run()
    code = f"""
import sys
from pathlib import Path
from agents.application import APPLICATION
from hsa2c.errors import ConfigError
from hsa2c.run import directory as rundir
from hsa2c.cluster.world import World
try:
    run = rundir.resume(APPLICATION, Path({str(directory)!r}), {{}}, None, World(0, 1, False)).open()
except ConfigError as error:
    sys.exit(str(error))
print("opened", flush=True)
sys.stdin.read()
"""

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    with resume(directory).open():
        refused = start().communicate(timeout=100)
        assert refused == ("", f"{directory}: another process is training in it\n")
        assert events(directory, "resume")[1:] == [], "the second one wrote nothing"
    with start() as other:
        try:
            assert other.stdout.readline() == "opened\n"
            with pytest.raises(ConfigError, match=r"another process is training in it$"):
                resume(directory).open()
        finally:
            other.kill()
    with resume(directory).open():
        pass


# Options and files


def test_assignments_are_flat():
    texts = ["seed=1", "agent={t_max: 5, num_envs: 2}", "a.b={c: {d: 1}}", "seed=2", "env={}"]
    assert rundir.assignments(texts, "a=1") == {
        "seed": 2,
        "agent.t_max": 5,
        "agent.num_envs": 2,
        "a.b.c.d": 1,
        "env": {},
    }


def test_own_file_comes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = rundir.find_config("pong")
    assert shipped.parent.name == "configs"
    Path("pong").write_text("seed: 3")
    assert rundir.find_config("pong") == Path("pong")
    Path("smoke").mkdir()
    assert rundir.find_config("smoke") == shipped.with_name("smoke.yaml")


@pytest.mark.parametrize("name", ["", "nope", "/nope", "/nope/x.yaml", "../nope", "paper", "x" * 300, "a/b/c/d", "."])
def test_file_that_is_not_there(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        rundir.find_config(name)
    assert str(caught.value) == f"--config {name}: no such file; shipped are paper/ddrl_a3c, paper/hsa2c, pong, smoke"


def test_summary_is_of_the_last_row_and_stop(tmp_path):
    rows = [
        {"step": 5, "elapsed_s": 1.0, "agent_steps": 5, "games": 1, "score/mean_100": -20.0},
        {"step": 9, "elapsed_s": 2.0, "agent_steps": 9, "games": 2, "score/mean_100": -19.0},
        {"step": 9},
    ]
    stops = [{"kind": "stop", "message": "old"}, {"kind": "stop", "message": "9 agent steps", "checkpoint": "c"}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in stops))
    assert rundir.summary(APPLICATION, tmp_path, 0) == {
        "run": str(tmp_path),
        "exit_code": 0,
        "reason": "9 agent steps",
        "checkpoint": "c",
        "elapsed_s": 2.0,
        "agent_steps": 9,
        "updates": None,
        "games": 2,
        "exchanges": None,
        "global_steps": None,
        "mean_score": -19.0,
        "best_mean_score": None,
    }


def test_summary_of_a_run_that_never_began(tmp_path):
    summary = rundir.summary(APPLICATION, tmp_path, 1)
    assert (summary["exit_code"], summary["reason"], summary["agent_steps"]) == (1, None, None)


# Several hosts


@pytest.fixture
def host_file(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("a\nb slots=2\n")
    return path


def test_a_host_file_says_how_many_nodes(prepare, host_file, monkeypatch):
    monkeypatch.chdir(host_file.parent)
    cluster = prepare(cluster__hosts="hosts").config.cluster
    assert (cluster.nodes, cluster.processes, cluster.hosts) == (3, None, str(host_file)), "p is each host's share"
    config = prepare(cluster__hosts="hosts", cluster__nodes=1, cluster__processes=2, cluster__spares=1).config
    assert (config.cluster.nodes, config.cluster.processes) == (1, 2)
    assert config.dpsgd.exchange == "overlap"


def test_hosts_may_have_a_p_of_their_own(prepare, make_run, host_file):
    host_file.write_text("a p=1\nb slots=2\n")
    config = prepare(cluster__hosts=str(host_file)).config
    assert (config.cluster.nodes, config.cluster.processes) == (3, None)
    both = r"^cluster.processes = 2: .*hosts gives a a p of its own: must be one or the other \(--p, or p=\)$"
    with pytest.raises(ConfigError, match=both):
        prepare(cluster__hosts=str(host_file), cluster__processes=2)
    # One process is all there is, as with --p 1 --nodes 1: nothing could go on during an exchange.
    assert prepare(cluster__hosts=str(host_file), cluster__nodes=1).config.dpsgd.exchange == "paper"
    host_file.write_text("a p=2\n")
    assert prepare(cluster__hosts=str(host_file)).config.dpsgd.exchange == "overlap"
    # A run of one machine, whose p was that machine's, goes on there; and when a host is lost, p stays with the others.
    config = rundir.resume(APPLICATION, make_run(), {"cluster.hosts": str(host_file)}, None, ALONE).config
    assert (config.cluster.nodes, config.cluster.processes) == (1, None)
    host_file.write_text("a p=1\nb slots=2\n")
    config = prepare(cluster__hosts=str(host_file)).config
    assert rundir.with_nodes(APPLICATION, config, 2).cluster.processes is None


def test_wrong_hosts_are_told_before_anything_is_written(prepare, host_file):
    host_file.write_text("a\na\n")
    for more in ({}, {"cluster__nodes": 2}):
        with pytest.raises(ConfigError, match=r"hosts, line 2: a: is there twice"):
            prepare(cluster__hosts=str(host_file), **more)
    with pytest.raises(ConfigError, match=r"^--hosts .*: this world is there already; give its file to mpiexec"):
        prepare(cluster__hosts=str(host_file), world=World(0, 3, started_by_mpi=True))


def test_resume_on_other_hosts(make_run, host_file):
    directory = make_run(cluster__hosts=str(host_file))
    resume = lambda world=ALONE, **given: rundir.resume(APPLICATION, directory, given, None, world).config
    config = resume()
    assert (config.cluster.nodes, config.cluster.hosts, config.dpsgd.deltas_per_step) == (3, str(host_file), 3)
    config = resume(**{"cluster.hosts": None, "cluster.nodes": 2})
    assert (config.cluster.hosts, config.cluster.processes, config.dpsgd.deltas_per_step) == (None, 4, 2)
    other = host_file.with_name("others")
    other.write_text("c slots=5")
    config = resume(**{"cluster.hosts": str(other)})
    assert (config.cluster.nodes, config.cluster.processes, config.dpsgd.global_rate) == (5, None, 0.2)
    config = resume(World(0, 4, started_by_mpi=True))
    assert (config.cluster.nodes, config.cluster.hosts) == (3, None), "its starter knows the hosts"


def test_fewer_nodes_follow_the_rules(prepare, host_file):
    config = prepare(cluster__hosts=str(host_file), cluster__nodes=4, cluster__processes=3).config
    fewer = rundir.with_nodes(APPLICATION, config, 2)
    assert (fewer.cluster.nodes, fewer.cluster.processes) == (2, 3), "p was given"
    assert (fewer.dpsgd.deltas_per_step, fewer.dpsgd.global_rate, fewer.dpsgd.max_delay) == (2, 0.5, 10)


# In an allocation of Slurm or PBS


@pytest.fixture
def allocated(tmp_path, monkeypatch):
    """This process in an allocation of PBS of such hosts; without any in none."""

    def allocated(*names):
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
        monkeypatch.delenv("PBS_NODEFILE", raising=False)
        if names:
            file = tmp_path / "nodefile"
            file.write_text("".join(f"{name}\n" for name in names))
            monkeypatch.setenv("PBS_NODEFILE", str(file))

    return allocated


HERE = socket.gethostname()
OTHERS = ("192.0.2.7", "192.0.2.8", "192.0.2.9")  # addresses of no host (RFC 5737)


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (OTHERS, {}, ("allocation", 3, None)),
        (OTHERS, {"cluster__nodes": 5, "cluster__processes": 2}, ("allocation", 5, 2)),
        ((HERE, *OTHERS), {"cluster__spares": 1}, ("allocation", 4, None)),
        ((HERE,), {}, (None, 1, 8)),
        ((HERE,), {"cluster__nodes": 2}, (None, 2, 4)),
        ((HERE, *OTHERS), {"cluster__nodes": 1}, (None, 1, 8)),
        ((HERE, *OTHERS), {"cluster__nodes": 1, "cluster__spares": 1}, ("allocation", 1, None)),
        (OTHERS, {"cluster__hosts": None}, (None, 1, 8)),
    ],
)
def test_hosts_of_the_allocation(prepare, allocated, names, given, expected):
    allocated(*names)
    cluster = prepare(**given).config.cluster
    assert (cluster.hosts, cluster.nodes, cluster.processes) == expected


def test_an_allocation_takes_no_word_back(prepare, allocated, host_file):
    allocated(*OTHERS)
    assert prepare(cluster__hosts=str(host_file)).config.cluster.hosts == str(host_file)
    assert prepare(world=World(0, 3, started_by_mpi=True)).config.cluster.hosts is None
    for wrong in ({"cluster__nodes": "x"}, {"cluster__nodes": -1}, {"cluster__spares": -1}, {"cluster": 3}):
        with pytest.raises(ConfigError, match=r"^cluster"):
            prepare(**wrong)
    allocated()
    with pytest.raises(ConfigError, match=r"^cluster.hosts = 'allocation': this is no allocation"):
        prepare(cluster__hosts="allocation")


def test_resumed_run_takes_the_hosts_where_it_is(make_run, allocated):
    resumed = lambda directory, **given: resume(directory, **given).config.cluster
    allocated(*OTHERS)
    directory = make_run(cluster__nodes=2)
    cluster = resumed(directory)
    assert (cluster.hosts, cluster.nodes, cluster.processes) == ("allocation", 2, None)
    assert resumed(directory, cluster__processes=3).processes == 3
    assert resumed(directory, cluster__hosts=None).hosts is None
    allocated()
    cluster = resumed(directory)
    assert (cluster.hosts, cluster.nodes, cluster.processes) == (None, 2, 4)
    with resume(directory).open():  # which is now its configuration, until it is in an allocation again
        pass
    allocated(*OTHERS)
    cluster = resumed(directory)
    assert (cluster.hosts, cluster.nodes, cluster.processes) == ("allocation", 2, None)


# --go-on


def test_go_on_begins_or_resumes(tmp_path):
    go_on = lambda **given: rundir.prepare(
        APPLICATION, {"output.run_dir": str(tmp_path), "output.name": "old"} | given, "smoke", ALONE, again=True
    )
    with go_on().open() as run:
        assert (run.session, run.checkpoint) == (1, None)
    # It ended before its first checkpoint: anew in the same directory, and what was written before is void.
    with go_on().open() as run:
        assert (run.session, run.checkpoint) == (2, None)
    add_checkpoint(run, 10)
    with go_on(seed=0).open() as run:
        assert run.session == 3
        assert run.checkpoint is not None
        assert run.checkpoint.name == "step-000000010.safetensors"
    with pytest.raises(ConfigError, match=r"^seed = 5: cannot change in a resumed run, which has 0"):
        go_on(seed=5)


def interrupted_in(run):
    with pytest.raises(KeyboardInterrupt), run.open():
        assert run.directory.exists()
        raise KeyboardInterrupt


def test_start_that_is_interrupted_removes_what_it_has_made(prepare):
    run = prepare(output__name="new")
    interrupted_in(run)
    assert not run.directory.exists()
    run = prepare(output__name="rows")
    with pytest.raises(KeyboardInterrupt), run.open():
        (run.directory / "metrics.jsonl").write_text('{"step": 1}\n')
        raise KeyboardInterrupt
    assert run.directory.exists(), "something was trained"


def test_start_that_is_interrupted_keeps_what_was_there(make_run, tmp_path):
    directory = make_run()
    interrupted_in(resume(directory))
    assert rundir.has_checkpoint(directory)
    queued = tmp_path / "queued"
    queued.mkdir()
    given = {"output.run_dir": str(tmp_path), "output.name": "queued"}
    interrupted_in(rundir.prepare(APPLICATION, given, None, ALONE, again=True))
    assert queued.exists(), "it has the batch job's file, perhaps"


def test_start_that_cannot_write_leaves_nothing(prepare, monkeypatch):
    run = prepare(output__name="full")
    monkeypatch.setattr(rundir, "about", lambda: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ConfigError, match="No space left on device"):
        run.open()
    assert not run.directory.exists()


def test_go_on_refuses_another_game_with_or_without_checkpoints(make_run, tmp_path):
    directory = make_run(game="Pong")
    go_on = lambda **given: rundir.prepare(
        APPLICATION, {"output.run_dir": str(tmp_path), "output.name": "old"} | given, "smoke", ALONE, again=True
    )
    before = (directory / "config.yaml").read_bytes()
    for remains in (True, False):
        if not remains:
            shutil.rmtree(directory / "checkpoints")
        with pytest.raises(
            ConfigError, match=r"old: is a run of game 'Pong', this one is of 'Breakout'; --name starts"
        ):
            go_on(game="Breakout")
        assert (directory / "config.yaml").read_bytes() == before


def test_go_on_refuses_to_begin_anew_where_a_checkpoint_was_lost(make_run, tmp_path):
    directory = make_run(game="Breakout")
    with Journal(directory, session=1) as journal:
        journal.event("checkpoint", "checkpoint", path=str(directory / "checkpoints" / "step-000000010.safetensors"))
    shutil.rmtree(directory / "checkpoints")
    given = {"output.run_dir": str(tmp_path), "output.name": "old"}
    for more in ({}, {"game": "Breakout"}):
        with pytest.raises(
            ConfigError, match=r"no checkpoint, but step-000000010\.safetensors was written: put it back"
        ):
            rundir.prepare(APPLICATION, given | more, "smoke", ALONE, again=True)


def test_go_on_refuses_checkpoints_without_a_configuration(make_run, tmp_path):
    directory = make_run()
    (directory / "config.yaml").unlink()
    given = {"output.run_dir": str(tmp_path), "output.name": "old"}
    with pytest.raises(ConfigError, match=r"old: holds checkpoints, but no config\.yaml"):
        rundir.prepare(APPLICATION, given, "smoke", ALONE, again=True)


def test_beginning_anew_and_other_settings_are_told(tmp_path):
    for rate in (0.001, 0.002):
        given = {"output.run_dir": str(tmp_path), "output.name": "old", "optimiser.learning_rate": rate}
        with rundir.prepare(APPLICATION, given, "smoke", ALONE, again=True).open() as run:
            pass
    (told,) = events(run.directory, "settings")
    assert told["message"] == "other settings than before: optimiser.learning_rate = 0.002, was 0.001"
    (warning,) = events(run.directory, "warning")
    assert warning["message"] == "no checkpoint was written before: begins anew, and its curves at 0"


def test_going_on_with_a_finished_run_is_no_failure(make_run, tmp_path):
    make_run(stop__agent_steps=100)
    given = {"output.run_dir": str(tmp_path), "output.name": "old"}
    with pytest.raises(FinishedError, match=r"old: nothing left to do: .*; raise the limit to go on$") as told:
        rundir.prepare(APPLICATION, given, None, ALONE, again=True)
    assert told.value.exit_code == 0
