"""The paper's experiments: valid commands at its scale, tables and pictures of given results, a tiny real figure."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
from pathlib import Path

import pytest

from bench.paper import __main__ as paper
from bench.paper import atari, best, cluster, jobs, published, reach, simulated_topics, speed, topics
from bench.paper.jobs import Job
from bench.paper.slurm import batch_file
from bench.testbed.results import Results
from hsa2c.agents.application import APPLICATION as ATARI
from hsa2c.cluster.world import World
from hsa2c.commands import run_options
from hsa2c.config.loading import merge, nested
from hsa2c.examples.lda.application import APPLICATION as LDA
from hsa2c.examples.lda.synthetic import Recipe, draw_documents, draw_topics, write_uci
from hsa2c.run import begin

pytestmark = pytest.mark.timeout(120)
EVERYTHING = ("fig1", "fig2", "fig3", "fig4", "fig5", "fig6", "table2")


def parsed(job: Job, arguments: list[str]) -> argparse.Namespace:
    return run_options.parser((ATARI if job.program == "train" else LDA).command).parse_args(arguments)


@pytest.mark.parametrize("what", EVERYTHING)
@pytest.mark.slow
def test_every_published_run_is_a_valid_command(what, tmp_path) -> None:
    seen = set()
    for job in paper.jobs_of(what):
        options = parsed(job, job.arguments(tmp_path))
        assert (options.nodes, options.p, options.minutes) == (job.nodes, job.p, job.minutes)
        assert parsed(job, job.again(tmp_path, "hosts.txt")).hosts == "hosts.txt"
        if job.program == "lda":
            values: dict = {}
            for dotted, value in run_options.given(LDA.command, options).items():
                values = merge(values, nested(dotted, value))
            assert LDA.build_config(values).cluster.nodes == job.nodes
        elif (job.nodes, job.key["game"]) not in seen:  # settings differ by no more than their values
            seen.add((job.nodes, job.key["game"]))
            fields = run_options.given(ATARI.command, options)
            run = begin.prepare(ATARI, fields, options.config, World(0, 1, started_by_mpi=False))
            assert run.config.game == job.key["game"]
            assert run.config.cluster.processes == job.p
    assert len({job.name for job in paper.jobs_of(what)}) == len(paper.jobs_of(what))


def test_published_runs_have_the_papers_sizes() -> None:
    cells = {(job.key["nodes"], job.key["B"]) for job in paper.jobs_of("fig6")}
    assert {nodes for nodes, _ in cells} == {20, 30, 40, 60}
    assert len(paper.jobs_of("fig6")) == 6 * 4 * len(atari.BS) * 5
    assert {job.minutes for job in paper.jobs_of("fig6")} == {30}
    assert {job.key["game"] for job in paper.jobs_of("fig5")} == {"SpaceInvaders"}
    assert [job.nodes for job in paper.jobs_of("fig1")[:-1]] == [1, 4, 9, 14, 19]
    assert [job.hosts for job in paper.jobs_of("fig1")[:-1]] == [2, 5, 10, 10, 10]  # the cluster of section 4.1
    assert [job.p for job in paper.jobs_of("fig2")[:-1]] == [1, 1, 3, 5, 8, 10]


@pytest.mark.parametrize("what", ["fig3", "table2"])
def test_slurm_files_are_shell_scripts_that_start_or_resume_the_run(what, tmp_path) -> None:
    job = paper.jobs_of(what)[-2]
    text = batch_file(job, tmp_path, partition="short")
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, timeout=20)
    assert f"#SBATCH --nodes={job.hosts}\n" in text
    assert "#SBATCH --partition=short\n" in text
    again, start = (shlex.split(line)[1:] for line in text.splitlines() if line.strip().startswith("exec "))
    program = len(job.line([]))
    assert parsed(job, again[program:]).resume == tmp_path / job.name
    assert parsed(job, start[program:]).name == job.name
    assert parsed(job, start[program:]).hosts == "$hosts"


def test_writes_what_would_be_run_and_runs_what_there_are_hosts_for(tmp_path, capsys, monkeypatch) -> None:
    started = []
    monkeypatch.setattr(cluster, "complete", lambda job, folder, hosts: started.append((job.name, hosts.read_text())))
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    arguments = ["fig1", "--scale", "paper", "--run-dir", str(tmp_path / "runs"), "--slurm-dir", str(tmp_path / "jobs")]
    assert paper.main(arguments) == 0
    assert "no --hosts and no allocation: nothing is run" in capsys.readouterr().err
    commands = (tmp_path / "jobs" / "commands.txt").read_text().splitlines()
    assert len(commands) == len(list((tmp_path / "jobs").glob("*.sbatch"))) == len(paper.jobs_of("fig1"))
    assert started == []

    (tmp_path / "hosts.txt").write_text("".join(f"h{n}\n" for n in range(5)))
    assert paper.main([*arguments, "--hosts", str(tmp_path / "hosts.txt")]) == 0
    assert started == [
        ("lda-M-36-nodes-1-p-1-B-1", "h0 slots=0\nh1\n"),
        ("lda-M-36-nodes-4-p-1-B-1", "h0 slots=0\nh1\nh2\nh3\nh4\n"),
        ("lda-svi", "h0\n"),
    ]
    assert "lda-M-36-nodes-9-p-1-B-1: needs 10 hosts, 5 are here" in capsys.readouterr().err


def test_draws_what_a_cluster_has_left(tmp_path, capsys) -> None:
    """Runs as they come back: half an hour of the first seed of some cells, the others not there."""
    for nodes, B, speed_, score_ in (
        (20, 1, 1000, 300.0),
        (20, 8, 4000, 280.0),
        (40, 1, 1100, 310.0),
        (40, 8, 8000, 400.0),
    ):
        directory = tmp_path / f"SpaceInvaders-nodes-{nodes}-B-{B}-seed-1"
        directory.mkdir()
        rows = [
            {
                "time": t,
                "session": 1,
                "step": t,
                "elapsed_s": float(t),
                "agent_steps": speed_ * t,
                atari.BEST: score_ * t / 1800,
            }
            for t in range(0, 1801, 100)
        ]
        (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = ["--scale", "paper", "--run-dir", str(tmp_path), "--json"]
    assert paper.main(["fig5", *common]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert {(row["nodes"], row["B"]): row["data_points_per_s"] for row in found} == {
        (20, 1): 1000, (20, 8): 4000, (40, 1): 1100, (40, 8): 8000,
    }  # fmt: skip
    assert paper.main(["fig6", *common]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert {row["goal"] for row in found} == {310.0}  # the best of B = 1, of any number of nodes
    assert {(row["nodes"], row["B"]): row["seconds"] for row in found} == {
        (20, 1): None, (20, 8): None, (40, 1): 1800, (40, 8): 1400,
    }  # fmt: skip
    assert (tmp_path / "fig5.png").stat().st_size > 10_000
    assert (tmp_path / "fig6.png").stat().st_size > 10_000


def curve(kind: str, cell: tuple[int, int, int], *points: tuple[float, float], number: int = 0) -> dict:
    sizes = dict(zip(topics.CELL, cell, strict=True))
    return {
        "kind": kind,
        **sizes,
        "round": number,
        "seconds": [s for s, _ in points],
        "perplexity": [x for _, x in points],
    }


def test_speedup_by_hand(tmp_path) -> None:
    found = [
        curve("measured", (1, 1, 1), (0, 2000), (10, 1100), (20, 1000)),  # to 1050 after 15 s
        curve("measured", (2, 1, 1), (0, 2000), (7.5, 1050)),
        curve("measured", (1, 1, 1), (0, 2000), (30, 1000), number=1),  # to 1050 after 28.5 s
        curve("measured", (2, 1, 1), (7.125, 1000), number=1),
        curve("measured", (4, 1, 1), (0, 2000), (5, 1051)),
    ]
    lines = {(line["nodes"], line["runs"]): line for line in topics.speedups(found)}
    assert lines[1, 2]["TSP"] == 1.0
    assert lines[2, 2]["TSP"] == pytest.approx(3.0)  # between 15 / 7.5 and 28.5 / 7.125
    assert (lines[2, 2]["least"], lines[2, 2]["most"]) == pytest.approx((2.0, 4.0))
    assert lines[4, 0]["TSP"] is None  # never came to it
    for what in ("fig1", "fig2", "fig3", "fig4"):
        topics.draw(what, found, tmp_path / f"{what}.png", "Here: nowhere.")
        assert (tmp_path / f"{what}.png").stat().st_size > 10_000


def test_a_curve_has_each_measurement_once() -> None:
    tag = "perplexity/validation"
    rows = [{"elapsed_s": t, tag: x} for t, x in ((1.0, None), (2.0, 900.12345), (3.0, 900.12345), (4.0, 800.0))]
    assert topics.curve(rows) == {"seconds": [2.0, 4.0], "perplexity": [900.123, 800.0]}


def test_on_a_cluster_the_goal_is_what_all_have_reached() -> None:
    found = [
        curve("cluster", (1, 1, 1), (10, 3000), (20, 1000)),
        curve("cluster", (4, 1, 1), (10, 1500)),
    ]
    (serial, four) = topics.speedups(found)
    assert serial["seconds"] == pytest.approx(10 + 10 * (3000 - 1575) / 2000)
    assert four["TSP"] == pytest.approx(serial["seconds"] / 10)


def test_table_keeps_the_published_rows_and_marks_ours(tmp_path) -> None:
    found = [
        {
            "group": "this project, 5 min",
            "game": game,
            "mean": mean,
            "minutes": 4.0,
            "seed": seed,
            "nodes": 1,
            "p": 2,
            "B": 8,
        }
        for game, mean, seed in (("Pong", -10.0, 1), ("Pong", -14.0, 2), ("Qbert", 300.0, 1))
    ]
    lines = best.draw("table2", found, tmp_path / "table2.png", "Here: nowhere.")
    assert (tmp_path / "table2.png").stat().st_size > 10_000
    assert [line["row"] for line in lines[:5]] == ["HSA2C", "DDRL A3C", "GA3C", "BA3C", "A3C"]
    ddrl, ours = lines[1], lines[-1]
    assert ddrl["mean"] == sum(ddrl[game] for game in published.GAMES[:4]) / 4 == 650  # as the text has it
    assert all(line["is"] != "measured here" for line in lines[:-1])
    assert (ours["Pong"], ours["Qbert"], ours["Boxing"], ours["mean"]) == (-12.0, 300.0, None, None)
    assert ours["of what"] == "nodes x p: 1 x 2, B = 8; seeds 1, 2"
    assert "GA3C" in jobs.table(lines)


def test_a_score_is_what_evaluate_says_and_is_played_once(tmp_path, monkeypatch) -> None:
    results = Results(tmp_path / "table2.jsonl")
    played = {"game": "Pong", "mean": 18.0, "min": 17, "max": 19, "protocol": "two games"}
    commands = []
    monkeypatch.setattr(best, "execute", lambda command, limit_s: (commands.append(command), json.dumps(played))[1])
    row = best.evaluated(paper_checkpoint(), 2, results)
    assert (row["mean"], row["game"], row["nodes"], row["p"]) == (18.0, "Pong", 1, 2)
    assert 5 < row["minutes"] < 10  # of training until then, as the checkpoint says
    assert best.evaluated(paper_checkpoint(), 2, Results(tmp_path / "table2.jsonl")) == row
    (command,) = commands
    assert command[3:] == ["evaluate", str(paper_checkpoint() / "best.safetensors"), "--games", "2", "--json"]


def test_a_game_of_which_there_is_a_run_is_not_trained(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(best, "complete", lambda job, folder: Path(job.options[1]))
    monkeypatch.setattr(best, "evaluated", lambda path, games, results: {"game": path.name})
    options = argparse.Namespace(
        run_dir=str(tmp_path), minutes=5.0, seeds=[1], games=None, evaluate=2, runs=[Path("/there/Pong")]
    )
    found = best.small(options, Results(tmp_path / "table2.jsonl"))
    assert [row["game"] for row in found] == [game for game in published.GAMES if game != "Pong"] + ["Pong"]
    assert [row["group"] for row in found] == 5 * ["this project, 5 min"] + ["this project, --runs"]
    options.games = ["Pong"]
    assert [row["game"] for row in best.small(options, Results(tmp_path / "table2.jsonl"))] == ["Pong", "Pong"]


def paper_checkpoint():
    return Path(__file__).parents[2] / "checkpoints" / "pong"


def test_draws_fig5_and_tells_places_apart(tmp_path) -> None:
    found = [
        {"where": where, "exchange": exchange, "nodes": nodes, "B": B, "data_points_per_s": 100.0 * nodes * B}
        for where in ("emulated", "simulated")
        for exchange in ("paper", "overlap")
        for nodes in (1, 2)
        for B in (1, 4)
    ]
    assert speed.draw("fig5", found, tmp_path / "fig5.png", "Here: nowhere.") == found
    assert (tmp_path / "fig5.png").stat().st_size > 20_000


def test_goal_is_the_best_of_B_1_and_its_own_run_reaches_it() -> None:
    key = {"where": "here", "game": "Pong", "minutes": 1}
    found = [
        {**key, "nodes": 1, "B": 1, "seed": 1, "seconds": [10, 20], "score": [-20.0, -18.0]},
        {**key, "nodes": 1, "B": 1, "seed": 2, "seconds": [10], "score": [-19.0]},
        {**key, "nodes": 2, "B": 1, "seed": 1, "seconds": [], "score": []},  # fewer than 100 games
        {**key, "nodes": 2, "B": 4, "seed": 1, "seconds": [5, 8], "score": [-19.0, -18.2]},
    ]
    assert reach.goals_of(found) == {"Pong": -18.5}
    lines = {(line["nodes"], line["B"]): line for line in reach.times(found)}
    assert (lines[1, 1]["seconds"], lines[1, 1]["reached"]) == (20, "1 of 2")
    assert (lines[2, 1]["seconds"], lines[2, 1]["best"]) == (None, None)
    assert lines[2, 4]["seconds"] == 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    recipe = Recipe(documents=400, V=300, K=5, tokens=40.0, concentration=50.0)
    write_uci(draw_documents(recipe, draw_topics(recipe)), folder / "counts.txt", folder / "words.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield [str(folder / "counts.txt"), str(folder / "words.txt")]


@pytest.mark.slow
def test_simulated_workers_are_as_good_and_sooner(corpus) -> None:
    """Bytes that take no time: nW workers do the same work in 1 / nW of the time."""
    seconds = {}
    for nodes in (1, 4):
        setting = simulated_topics.Setting(
            nodes=nodes, p=1, B=1, M=4, topics=5, batch=16, update_s=0.1, bits_per_s=1e15, latency_s=0.0, master_s=0.0,
            passes=8,
        )  # fmt: skip
        run = simulated_topics.simulate(setting, *corpus)
        assert run["perplexity"][-1] < run["perplexity"][0]
        assert run["negative"] == 0
        seconds[nodes] = run["seconds"][-1]
        assert run["seconds"][-1] * nodes == pytest.approx(0.1 * 8 * 360 / 16, rel=0.2)  # documents / batch updates
    assert seconds[1] / seconds[4] == pytest.approx(4, rel=0.15)


@pytest.mark.slow
def test_a_tiny_figure_for_real_is_measured_once(corpus, tmp_path, capsys, monkeypatch) -> None:
    tiny = topics.Figure(M=2, across="threads", paper=((2, 1, 2),), small=((1, 2, 2),), update_ms=(10.0,))
    monkeypatch.setitem(topics.FIGURES, "fig2", tiny)
    arguments = ["fig2", "--rounds", "1", "--passes", "20", "--minutes", "0.2", "--json", "--run-dir", str(tmp_path)]
    arguments += ["--corpus", corpus[0], "--vocab", corpus[1]]
    assert paper.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    kinds = ["measured"] * 2 + ["simulated, 10 ms an update"] * 2
    assert [line["kind"] for line in found] == kinds
    assert found[0]["TSP"] == found[2]["TSP"] == 1.0
    assert found[0]["seconds"] > 0
    assert (tmp_path / "fig2.png").stat().st_size > 10_000
    for name in ("complete", "execute"):
        monkeypatch.setattr(topics, name, lambda *_: pytest.fail("measured again"))
    assert paper.main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["results"] == found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fig7"], "invalid choice"),
        (["fig1", "--scale", "paper", "--hosts", "/nowhere/hosts.txt"], "cannot be read"),
        (["fig1", "--rounds", "0"], "--rounds"),
        (["table2", "--runs", "/nowhere/run"], "/nowhere/run"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(arguments, words, tmp_path, capsys) -> None:
    try:
        code = paper.main([*arguments, "--run-dir", str(tmp_path / "runs")])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()
