"""``python -m examples.lda`` as its user meets it: runs in real processes, and what is made of them afterwards.

A start takes seconds, so tests that only look share a run.
"""

import csv
import json
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from examples.lda.__main__ import main
from hsa2c.commands import train
from hsa2c.config.loading import to_dict
from hsa2c.examples.lda import application
from hsa2c.examples.lda.commands.evaluate import in_words_of
from hsa2c.examples.lda.picture import draw
from hsa2c.examples.lda.trained import load
from hsa2c.observe.runlog import read_rows
from hsa2c.run import checkpoint as checkpoints
from tests.examples.lda.planted import Planted
from tests.examples.lda.reference import corpus_of, documents_of
from tests.test_end_to_end import started

REPOSITORY = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.timeout(300)


# Runs


@dataclass
class Trained:
    """A run that has ended by itself."""

    directory: Path
    result: dict
    stderr: str

    def rows(self):
        return read_rows(self.directory / "metrics.jsonl")


@pytest.fixture(scope="module")
def options(corpus_files):
    """What all runs here have in common."""
    counts, words = corpus_files
    return [
        *("--corpus", counts, "--vocab", words, "--validation", 40, "--test", 40, "--topics", 5, "--seed", 1),
        *("--p", 1, "--B", 2, "--batch", 32, "--kappa", 0.7, "--tau0", 10, "--set", "stop.patience=null"),
        *("--set", "measure_every_s=0.01", "--set", "output={log_every_s: 0.05, checkpoint_every_s: 0.5}"),
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder that holds the runs."""
    return tmp_path_factory.mktemp("runs")


def to_its_end(directory, *arguments):
    """Run a command of training to its end; nothing is left of it but its files."""
    with started(directory, "-m", "examples.lda", *arguments, "--json") as run:
        assert run.end() == 0, run.stderr()
        run.assert_gone()
        output = run.launcher.stdout_path.read_text()
        assert output.count("\n") == 1
        return Trained(directory, json.loads(output), run.stderr())


@pytest.fixture(scope="module")
def trained(runs, options):
    """One node, one process."""
    return to_its_end(runs / "run", *options, "--documents", 20_000, "--run-dir", runs, "--name", "run")


@pytest.fixture(scope="module")
def serial(runs, options):
    """The baseline: SVI."""
    given = options[: options.index("--p")]
    return to_its_end(
        runs / "svi", *given, "--svi", "--documents", 20_000, "--run-dir", runs, "--name", "svi",
        *options[options.index("--set") :],
    )  # fmt: skip


@pytest.fixture(scope="module")
def resumed(runs, trained):
    """A copy of the run, gone on with."""
    directory = runs / "again"
    shutil.copytree(trained.directory, directory)
    return to_its_end(directory, "--resume", directory, "--documents", 30_000)


def recovered(directory, planted):
    """Cosine of each planted topic with the one that was found for it."""
    beta = load(directory).beta.astype(np.float64)
    norms = np.outer(np.linalg.norm(planted.topics, axis=1), np.linalg.norm(beta, axis=1))
    cosines = planted.topics @ beta.T / norms
    return cosines[linear_sum_assignment(-cosines)]


def test_its_own_words_are_in_its_pictures_and_pages(trained, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["report", str(trained.directory), "-o", str(page)]) == 0
    text = page.read_text()
    assert re.search(r"<td>what</td><td>/.*docword", text)
    assert "<h2>Guard</h2>" in text
    assert main(["plot", str(trained.directory), "-o", str(tmp_path / "curves.png")]) == 0
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["plot", str(trained.directory), "--x", "agent_steps"])
    assert "choose from 'documents', 'minutes'" in capsys.readouterr().err


def test_training_ends_at_its_limit_and_says_so(trained):
    result = trained.result
    assert (result["exit_code"], result["run"]) == (0, str(trained.directory))
    assert result["reason"] == f"{result['documents']:,} documents (limit 20,000)"
    assert 20_000 <= result["documents"] < 20_000 + 2 * 2 * 32
    assert result["updates"] == result["documents"] / 32, "ten batches are a pass"
    assert result["negative_entries"] == 0
    assert result["reason"] in trained.stderr
    assert (trained.directory / "log.txt").read_text() == "", "no library grumbles"


def test_topics_are_found(trained, planted):
    assert trained.result["best_perplexity"] <= trained.result["perplexity"] < 0.65 * planted.unigram < planted.V
    assert np.median(recovered(trained.directory, planted)) > 0.8


def test_metrics_and_tensorboard_tell_of_the_run(trained):
    rows = trained.rows()
    last = rows[-1]
    assert last["documents"] == trained.result["documents"] == last["step"]
    assert last["passes"] == pytest.approx(last["documents"] / 320)
    assert last["perplexity/validation"] == trained.result["perplexity"]
    assert rows[0]["perplexity/validation"] is None or rows[0]["perplexity/validation"] > last["perplexity/validation"]
    updates, eta = [(row["updates"], row["rate/eta"]) for row in rows if row["rate/eta"]][-1]
    assert eta == pytest.approx((10 + updates - 1) ** -0.7, rel=1e-5)
    assert last["local_step/iterations"] > 1
    assert -5 < last["bound/per_token"] < -2
    assert any(row["speed/documents_per_s"] for row in rows)
    (events,) = trained.directory.glob("events.out.tfevents.*")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(events), size_guidance={"scalars": 0}).Reload()
    assert {"perplexity/validation", "bound/per_token", "speed/documents_per_s"} <= set(board.Tags()["scalars"])
    assert board.Scalars("documents")[-1].value == last["documents"]


def test_checkpoints_are_of_the_run(trained):
    newest, path, skipped = checkpoints.load_newest(trained.directory / "checkpoints")
    assert (str(path), skipped) == (trained.result["checkpoint"], [])
    assert newest.v.size == 120 * 5
    assert (newest.v >= 0).all()
    assert newest.counters["documents"] == trained.result["documents"]
    assert [state.tolist() for state in newest.optimiser_states] == [[trained.result["updates"]]]
    best = checkpoints.load(trained.directory / "checkpoints" / "best.safetensors")
    assert best.counters["best_perplexity"] == trained.result["best_perplexity"]


@pytest.mark.slow
def test_resumed_run_goes_on(trained, resumed):
    assert resumed.result["reason"].endswith(" documents (limit 30,000)")
    assert resumed.result["documents"] >= 30_000
    rows = [row for row in resumed.rows() if "documents" in row]
    assert {row["session"] for row in rows} == {1, 2}
    for key in ("documents", "updates", "exchanges", "global_steps", "elapsed_s"):
        values = [row[key] for row in rows]
        assert values == sorted(values), key
    assert resumed.result["updates"] > trained.result["updates"]
    updates, eta = [(row["updates"], row["rate/eta"]) for row in rows if row["rate/eta"]][-1]
    assert updates > trained.result["updates"]
    assert eta == pytest.approx((10 + updates - 1) ** -0.7, rel=1e-5), "the nodes' count of updates was kept"
    assert resumed.result["best_perplexity"] <= trained.result["best_perplexity"]


@pytest.mark.slow
def test_all_documents_may_be_for_training(runs, options, planted, command, capsys):
    """Then nothing is measured, so nothing is the best, and only a limit ends the run."""
    all_of_it = ("--validation", 0, "--test", 0, "--set", "stop.patience=1", "--run-dir", runs, "--name", "all")
    run = to_its_end(runs / "all", *options, *all_of_it, "--documents", 20_000)
    assert run.result["documents"] >= 20_000
    assert run.result["perplexity"] is run.result["best_perplexity"] is None
    assert run.rows()[-1]["passes"] == run.result["documents"] / 400
    assert not (run.directory / "checkpoints" / "best.safetensors").exists()
    assert json.loads(command("show", run.directory, "--json"))["checkpoint"] == run.result["checkpoint"]
    assert np.median(recovered(run.directory, planted)) > 0.8
    assert main(["evaluate", str(run.directory)]) == 2
    assert capsys.readouterr().err.endswith("has no test documents (--test 0): --corpus names others\n")


def test_a_run_that_nothing_ends_is_told(runs, options, monkeypatch, command):
    monkeypatch.setattr(train, "launch", lambda _: 0)
    command(*options, "--validation", 0, "--run-dir", runs, "--name", "endless")
    rows = read_rows(runs / "endless" / "journal.jsonl")
    assert [row["message"] for row in rows if row["kind"] == "warning"] == [
        "no validation documents, and no --documents, --passes or --minutes: the run goes on until it is stopped"
    ]


@pytest.mark.slow
def test_two_nodes_over_mpi(runs, options, planted):
    run = to_its_end(runs / "two", *options, "--nodes", 2, "--documents", 40_000, "--run-dir", runs, "--name", "two")
    assert 40_000 <= run.result["documents"] < 40_000 + 4 * 2 * 2 * 32
    ready = [event for event in read_rows(run.directory / "journal.jsonl") if event["kind"] == "node_ready"]
    assert sorted(event["node"] for event in ready) == [0, 1]
    states = checkpoints.load_newest(run.directory / "checkpoints")[0].optimiser_states
    assert sum(state[0] for state in states) == run.result["updates"]
    assert all(state[0] > 0.1 * run.result["updates"] for state in states), "both have worked"
    assert run.result["best_perplexity"] < 0.65 * planted.unigram
    assert np.median(recovered(run.directory, planted)) > 0.8


# Commands in this process


@pytest.fixture
def command(capsys, monkeypatch):
    """Runs a command that must do what it is asked; gives back what it prints."""
    monkeypatch.setenv("COLUMNS", "20")  # of a terminal, which there is not

    def command(*arguments):
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    return command


# show


def test_show_prints_a_table_and_draws_a_picture(command, trained):
    out = command("show", trained.directory, "--words", 4)
    lines = out.splitlines()
    assert lines[0] == f"docword.planted.txt, {trained.directory}/checkpoints/best.safetensors"
    assert lines[1].split() == ["topic", "tokens", "words"]
    topics = load(trained.directory)
    shares = []
    for line, k in zip(lines[2:], np.argsort(-topics.shares), strict=True):
        number, share, *words = line.split()
        assert int(number) == k
        assert words == [f"word{w}" for w in np.argsort(-topics.beta[k])[:4]]
        shares.append(float(share.rstrip("%")))
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.3)
    check_png(trained.directory / "topics.png", at_least=(400, 100))


def check_png(path, at_least):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert at_least[0] < width < 10_000
    assert at_least[1] < height < 10_000
    assert len(content) > 2_000


def test_show_json(command, trained, tmp_path):
    result = json.loads(command("show", trained.directory, "--json", "--picture", tmp_path / "x.png"))
    assert result["checkpoint"] == str(trained.directory / "checkpoints" / "best.safetensors")
    assert sorted(topic["topic"] for topic in result["topics"]) == [0, 1, 2, 3, 4]
    for topic in result["topics"]:
        probabilities = [probability for _, probability in topic["words"]]
        assert len(probabilities) == 10
        assert probabilities == sorted(probabilities, reverse=True)
    check_png(tmp_path / "x.png", at_least=(400, 100))


def test_show_takes_the_newest_or_a_file(command, trained):
    newest = json.loads(command("show", trained.directory, "--json", "--newest"))["checkpoint"]
    assert newest == trained.result["checkpoint"]
    assert json.loads(command("show", newest, "--json"))["checkpoint"] == newest


def test_show_writes_all_words_as_csv(command, trained, tmp_path):
    command("show", trained.directory, "--csv", tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 5 * 120
    beta = load(trained.directory).beta
    for k in range(5):
        rows = [row for row in table if int(row["topic"]) == k]
        assert [int(row["rank"]) for row in rows] == list(range(1, 121))
        probabilities = [float(row["probability"]) for row in rows]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)
        assert {row["word"] for row in rows} == {f"word{w}" for w in range(120)}
        assert rows[0]["word"] == f"word{beta[k].argmax()}"
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_show_writes_what_pyldavis_takes(command, trained, planted, tmp_path):
    command("show", trained.directory, "--pyldavis", tmp_path / "p.json")
    values = json.loads((tmp_path / "p.json").read_text())
    ids = load(trained.directory).parts.training
    assert np.shape(values["topic_term_dists"]) == (5, 120)
    assert np.shape(values["doc_topic_dists"]) == (320, 5)
    np.testing.assert_allclose(np.sum(values["topic_term_dists"], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.sum(values["doc_topic_dists"], axis=1), 1, rtol=1e-5)
    assert values["doc_lengths"] == planted.counts[ids].sum(axis=1).tolist()
    assert values["term_frequency"] == planted.counts[ids].sum(axis=0).tolist()
    assert values["vocab"] == [f"word{w}" for w in range(120)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # pyLDAvis' own
def test_show_writes_a_page(command, trained, tmp_path):
    pytest.importorskip("pyLDAvis", exc_type=ImportError)
    command("show", trained.directory, "--html", tmp_path / "t.html")
    page = (tmp_path / "t.html").read_text()
    assert "ldavis" in page
    assert '"word7"' in page
    assert len(page) > 10_000


def test_words_that_look_like_something_else_are_words(planted, tmp_path, monkeypatch, command):
    """Rich reads [/b] and :smile: as markup, matplotlib what is between two dollars."""
    strange = ["[/b]", "[red]", "$\\bad$", ":smile:", "_"]
    words = [f"word{w}" for w in range(planted.V)]
    for word, topic in zip(strange, planted.topics, strict=True):
        words[topic.argmax()] = word
    directory = make_run(planted, tmp_path, monkeypatch, words=words, name="docword.[b]$\\x$.txt")
    out = command("show", directory, "--words", 2)
    assert set(strange) <= set(out.split())
    assert out.startswith("docword.[b]$\\x$.txt, ")
    check_png(directory / "topics.png", at_least=(400, 100))


@pytest.mark.slow
def test_many_topics_are_drawn_in_part(tmp_path):
    topics = [{"topic": k, "share": 0.01, "words": [["a", 0.5], ["b", 0.25]]} for k in range(60)]
    draw(topics, tmp_path / "t.png", title="many")
    check_png(tmp_path / "t.png", at_least=(800, 500))


def test_negative_entries_of_a_checkpoint_are_read_as_the_prior(planted, tmp_path, monkeypatch, command):
    v = 4000 * planted.topics.T.reshape(-1).astype(np.float32)
    v[::3] = -5.0
    topics = load(make_run(planted, tmp_path, monkeypatch, v=v))
    lam = np.maximum(v, 0).reshape(planted.V, 5).T.astype(np.float64) + 0.2
    np.testing.assert_allclose(topics.beta, lam / lam.sum(axis=1, keepdims=True), rtol=1e-4)
    assert topics.shares.sum() == pytest.approx(1)
    assert json.loads(command("evaluate", topics.path, "--json"))["perplexity"] < 10 * planted.V


def make_run(planted, folder, monkeypatch, *, words=None, name="docword.txt", v=None):
    """A run directory with a checkpoint of the true topics, without a run."""
    counts, vocabulary = planted.write_uci(folder / "source", name)
    if words:
        vocabulary.write_text("".join(f"{word}\n" for word in words))

    def save(what):
        x = 4000 * planted.topics.T.reshape(-1).astype(np.float32) if v is None else v
        checkpoint = checkpoints.Checkpoint(
            v=x,
            momentum=np.zeros_like(x),
            optimiser_states=(np.array([1], np.float32),),
            t=1,
            counters={"documents": 320},
            config=to_dict(what.config),
            identity=application.APPLICATION.identity(what.config),
        )
        checkpoints.save(what.directory / "checkpoints", checkpoint, keep=3)
        return 0

    monkeypatch.setattr(train, "launch", save)
    arguments = [
        "--corpus",
        counts,
        "--vocab",
        vocabulary,
        "--topics",
        planted.K,
        "--run-dir",
        folder,
        "--name",
        "made",
    ]
    assert main(list(map(str, arguments))) == 0
    return folder / "made"


def test_a_corpus_by_a_relative_path_is_found_from_everywhere(planted, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    make_run(planted, Path(), monkeypatch)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    application.read_corpus.cache_clear()  # as in another process
    assert load(tmp_path / "made").config.corpus.source == str(tmp_path / "source" / "docword.txt")
    command("show", tmp_path / "made")
    command("evaluate", tmp_path / "made")


def test_evaluate_reads_other_text_as_in_training_or_as_told(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "letters").mkdir()
    for n in range(9):
        (tmp_path / "letters" / f"{n}{'.txt' if n else ''}").write_bytes(b"Word na\xefve" if n % 2 else b"word wind")
    options = ["evaluate", str(trained.directory), "--corpus", str(tmp_path / "letters"), "--encoding"]
    assert main([*options, "utf-8"]) == 2
    assert "line 1: not UTF-8" in capsys.readouterr().err
    for pattern, told in (("*.txt", "1 of 9 files left out, such as 0: names must fit *.txt"), ("*", "")):
        assert main([*options, "latin-1", "--pattern", pattern]) == 2  # the planted corpus has none of these words
        err = capsys.readouterr().err
        assert told in err
        assert err.endswith("documents of letters: no document has two tokens or more that the run knows\n")
        assert err.count("\n") == 1 + bool(told)


def test_files_left_out_of_a_folder_are_told(tmp_path, monkeypatch, command):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(train, "launch", lambda _: 0)
    folder = tmp_path / "letters"
    folder.mkdir()
    for n in range(60):
        (folder / (f"{n}.txt" if n < 40 else f"{n}")).write_bytes(b"ship na\xefve" if n % 3 else b"wind rope")
    given = ("--corpus", folder, "--encoding", "latin-1", "--run-dir", tmp_path / "runs", "--topics", 2)

    def warnings(name):
        rows = read_rows(tmp_path / "runs" / name / "journal.jsonl")
        return [row["message"] for row in rows if row["kind"] == "warning"]

    command(*given, "--name", "some")
    (message,) = warnings("some")
    assert message.startswith(f"{folder}: 20 of 60 files left out, such as 40: ")
    command(*given, "--pattern", "*", "--name", "all")
    assert warnings("all") == []


# evaluate


def test_evaluate_own_test_documents(command, trained, planted):
    result = json.loads(command("evaluate", trained.directory, "--json"))
    assert (
        result.items()
        >= {
            "what": "test documents",
            "documents": 40,
            "unknown_tokens": 0,
            "vocabulary": 120,
            "inference": "variational",
            "alpha": 0.2,
            "seed": 0,
        }.items()
    )
    test = load(trained.directory).parts.test
    assert result["tokens_scored"] == sum(-(-n // 2) for n in planted.counts[test].sum(axis=1).tolist())
    assert result["perplexity"] < 0.7 * planted.unigram
    assert -5 < result["bound_per_token"] < -2
    other = json.loads(command("evaluate", trained.directory, "--json", "--seed", 1))
    assert other["perplexity"] != result["perplexity"]
    assert other["perplexity"] == pytest.approx(result["perplexity"], rel=0.1)
    assert other["bound_per_token"] == result["bound_per_token"], "of whole documents"


def test_evaluate_says_it_in_words(command, trained):
    result = json.loads(command("evaluate", trained.directory, "--json"))
    out = command("evaluate", trained.directory)
    assert out.startswith(f"perplexity {result['perplexity']:,.1f} of 40 test documents\n")
    assert f"{result['tokens_scored']:,} tokens scored" in out


def test_evaluate_another_corpus_with_unknown_words(command, trained, planted, tmp_path):
    """Other documents of the same topics, their words in another order, and thirty of them under other names."""
    other = Planted(seed=0, documents=90)
    other.topics = planted.topics
    names = [f"word{w}" for w in range(90)] + [f"unknown{w}" for w in range(90, 120)]
    order = np.random.default_rng(0).permutation(120)
    counts = other.counts
    shuffled = Planted(documents=90)
    shuffled.topics = planted.topics
    shuffled.counts = counts[:, order]
    path, words = shuffled.write_uci(tmp_path)
    words.write_text("".join(f"{names[w]}\n" for w in order))
    result = json.loads(command("evaluate", trained.directory, "--corpus", path, "--vocab", words, "--json"))
    known = counts[:, :90].sum(axis=1)
    assert result["unknown_tokens"] == counts[:, 90:].sum() > 0
    assert result["documents"] == (known > 1).sum()
    assert result["tokens_scored"] == sum(-(-n // 2) for n in known[known > 1].tolist())
    assert result["what"] == "documents of docword.planted.txt"
    assert result["perplexity"] < 0.7 * planted.unigram


def test_evaluate_the_same_corpus_keeps_to_the_test_documents(command, trained, corpus_files):
    counts, words = corpus_files
    given = json.loads(command("evaluate", trained.directory, "--corpus", counts, "--vocab", words, "--json"))
    assert given == json.loads(command("evaluate", trained.directory, "--json"))


def test_in_words_of_another_vocabulary():
    known = corpus_of([[(0, 1)]], 3)  # word0, word1, word2
    other = corpus_of([[(0, 2), (1, 3)], [(1, 7)], [], [(0, 1), (2, 4)]], 3)
    other.vocabulary[:] = ["word2", "else", "word0"]
    corpus, unknown = in_words_of(other, known)
    assert documents_of(corpus) == [[(2, 2)], [], [], [(2, 1), (0, 4)]]
    assert (unknown, corpus.V) == (10, 3)


# speedup


@pytest.mark.slow
def test_speedup_over_serial_svi(command, serial, trained):
    result = json.loads(command("speedup", serial.directory, trained.directory, "--json"))
    bests = [
        min(row["perplexity/validation"] for row in run.rows() if row.get("perplexity/validation") is not None)
        for run in (serial, trained)
    ]
    assert result["perplexity"] == max(bests)
    assert result["tsp"] == result["baseline_s"] / result["run_s"] > 0
    assert "TSP (Eq. 12)" in command("speedup", serial.directory, trained.directory)


@pytest.mark.slow
def test_svi_is_serial(serial, planted):
    config = load(serial.directory).config
    assert (config.cluster.nodes, config.cluster.processes, config.model.batch) == (1, 1, 1024)
    assert serial.result["updates"] == serial.result["documents"] / 320, "all training documents are one batch"
    assert serial.result["perplexity"] < planted.unigram
    updates, eta = [(row["updates"], row["rate/eta"]) for row in serial.rows() if row["rate/eta"]][-1]
    assert eta == pytest.approx(updates**-config.optimiser.kappa)


def test_speedup_by_hand(command, tmp_path, capsys):
    curves = {
        "svi": [(1.0, 900.0), (2.0, None), (4.0, 700.0), (10.0, 600.0), (12.0, 650.0)],
        "run": [(0.5, 800.0), (2.5, 590.0), (3.0, 500.0)],
    }
    for name, curve in curves.items():
        (tmp_path / name).mkdir()
        rows = [
            {"time": 0.0, "session": 1, "step": n, "elapsed_s": s, "perplexity/validation": p}
            for n, (s, p) in enumerate(curve)
        ]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = [tmp_path / "svi", tmp_path / "run"]
    result = json.loads(command("speedup", *both, "--json"))
    assert result == {"perplexity": 600.0, "baseline_s": 10.0, "run_s": 2.5, "tsp": 4.0}
    result = json.loads(command("speedup", *both, "--json", "--perplexity", 800))
    assert (result["baseline_s"], result["run_s"], result["tsp"]) == (4.0, 0.5, 8.0)
    assert main(["speedup", *map(str, both), "--perplexity", "550"]) == 2
    assert capsys.readouterr().err == (
        f"examples.lda speedup: {both[0]}: never reached a perplexity of 550, its best is 600\n"
    )


# Bad input: exit code 2, one line, nothing written


def files_of(folder):
    """Everything below a folder with its content, to see that nothing was written."""
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """Runs a command that must be refused; gives back its one line."""
    monkeypatch.setattr(train, "launch", lambda _: pytest.fail("a job was started"))

    def refused(*arguments):
        before = files_of(tmp_path)
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse's own complaints
            code = end.code
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), err
        assert err.count("\n") == 1, err
        assert err.endswith("\n")
        assert files_of(tmp_path) == before
        return err.strip()

    return refused


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--topics 1", "examples.lda: model.topics = 1: must be greater than or equal to 2"),
        ("--validation 1.5", "examples.lda: corpus.validation = 1.5: must be a share below 1 or a whole number of doc"),
        ("--validation -1", "examples.lda: corpus.validation = -1.0: must be greater than or equal to 0"),
        ("--validation nan", "examples.lda: corpus.validation = nan: must be"),
        ("--validation 0 --perplexity 100", "examples.lda: stop.perplexity = 100: is of the validation documents"),
        ("--validation 400", "examples.lda: validation = 400, test = 40: must leave documents for training"),
        ("--rate constant", "examples.lda: optimiser.learning_rate = None: must be given if and only if"),
        ("--eta 0.1", "examples.lda: optimiser.learning_rate = 0.1: must be given if and only if"),
        ("--rate constant --eta 2", "examples.lda: optimiser.learning_rate = 2.0: must be less than or equal to 1"),
        ("--kappa 0.4", "examples.lda: optimiser.kappa = 0.4: must be greater than"),
        ("--tau0 0.5", "examples.lda: optimiser.tau0 = 0.5: must be greater than or equal to 1"),
        ("--B 900000", "examples.lda: dpsgd.local_updates = 900000: 900000 updates between two exchanges"),
        ("--perplexity 1", "examples.lda: stop.perplexity = 1.0: must be greater than 1"),
        ("--passes 0", "examples.lda: stop.passes = 0.0: must be greater than 0"),
        ("--documents x", "examples.lda: argument --documents: invalid int value: 'x'"),
        ("--inference gibbs", "examples.lda: argument --inference: invalid choice: 'gibbs'"),
        ("--set model.topcis=3", "examples.lda: model.topcis: no such setting; did you mean topics"),
        ("--set dpsgd.exchange=overlap", "examples.lda: dpsgd.exchange = 'overlap': lda cannot, must be auto or"),
    ],
)
def test_bad_options_of_training_are_refused(refused, options, tmp_path, arguments, line):
    assert refused(*options, "--run-dir", tmp_path / "runs", *arguments.split()).startswith(line)


def test_hosts_need_one_p_for_all(refused, corpus_files, tmp_path):
    counts, words = corpus_files
    (tmp_path / "hosts").write_text("a slots=2")
    given = ("--corpus", counts, "--vocab", words, "--run-dir", tmp_path / "runs", "--hosts", tmp_path / "hosts")
    assert (
        refused(*given) == "examples.lda: cluster.processes = None: must be a number with --hosts (--p): rates use it"
    )
    (tmp_path / "hosts").write_text("a slots=2 p=1")
    line = f"examples.lda: cluster.processes = 2: {tmp_path}/hosts gives a a p of its own: must be one or the other"
    assert refused(*given, "--p", "2").startswith(line)


def test_a_corpus_that_is_not_there_is_refused(refused, corpus_files, tmp_path):
    counts, words = corpus_files
    runs = ("--run-dir", tmp_path / "runs")
    assert refused("--corpus", tmp_path / "no.txt", "--vocab", words, *runs) == (
        f"examples.lda: {tmp_path}/no.txt: no such file or folder"
    )
    line = f"examples.lda: {counts}: must have a vocabulary: a file with one word on each line"
    assert refused("--corpus", counts, *runs) == line
    refused("--corpus", counts, "--vocab", tmp_path / "no.txt", *runs)
    assert "vocabulary" in refused("--corpus", "pydocs", "--vocab", words, *runs)


def test_resuming_what_is_no_run_is_refused(refused, tmp_path):
    assert refused("--resume", tmp_path) == (
        f"examples.lda: --resume {tmp_path}: not a run directory (it has no config.yaml)"
    )


def test_resuming_with_another_corpus_or_model_is_refused(refused, trained):
    before = files_of(trained.directory)
    assert refused("--resume", trained.directory).startswith(
        f"examples.lda: --resume {trained.directory}: nothing left to do: "
    )
    for change in (("--topics", 6), ("--validation", 50), ("--rate", "eq13"), ("--inference", "posterior-mean")):
        assert "cannot change in a resumed run, which has" in refused("--resume", trained.directory, *change)
    assert files_of(trained.directory) == before


@pytest.mark.parametrize("command", ["show", "evaluate"])
def test_what_is_no_checkpoint_of_topics_is_refused(refused, tmp_path, command):
    for agent in (REPOSITORY / "checkpoints").glob("*/best.safetensors"):
        assert refused(command, agent) == f"examples.lda {command}: {agent}: is of 'hsa2c', not of topics"
    assert refused(command, tmp_path) == (
        f"examples.lda {command}: {tmp_path}: holds no checkpoint (step-*.safetensors)"
    )
    assert "no such run or checkpoint" in refused(command, tmp_path / "nothing")


def test_bad_options_of_the_other_commands_are_refused(refused, trained, tmp_path):
    assert refused("show", trained.directory, "--words", 0) == "examples.lda show: --words 0: must be at least 1"
    assert (
        refused("evaluate", trained.directory, "--seed", -1) == "examples.lda evaluate: --seed -1: must be at least 0"
    )
    for option in ("--vocab", "--encoding", "--pattern"):
        assert "belongs to --corpus" in refused("evaluate", trained.directory, option, tmp_path / "x")
    assert "no such file or folder" in refused("evaluate", trained.directory, "--corpus", tmp_path / "x")
    refused("speedup", tmp_path, trained.directory)
    refused("show")


def test_what_cannot_be_written_is_told(capsys, trained, tmp_path):
    (tmp_path / "no").write_text("")
    for option in ("--csv", "--pyldavis", "--picture"):
        path = tmp_path / "no" / "such.png"
        assert main(["show", str(trained.directory), option, str(path)]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"examples.lda show: {path}: cannot be written: ")
        assert err.count("\n") == 1


def test_a_checkpoint_of_another_length_is_refused(planted, tmp_path, monkeypatch, capsys):
    directory = make_run(planted, tmp_path, monkeypatch, v=np.ones(7, np.float32))
    capsys.readouterr()
    assert main(["show", str(directory)]) == 2
    assert capsys.readouterr().err.endswith("holds 7 numbers, must be 600: words times topics\n")


def test_a_corpus_that_has_changed_is_refused(planted, tmp_path, monkeypatch, capsys):
    directory = make_run(planted, tmp_path, monkeypatch)
    main(["show", str(directory)])
    capsys.readouterr()
    words = tmp_path / "source" / "vocab.txt"
    words.write_text(words.read_text().replace("word3\n", "other\n"))
    application.read_corpus.cache_clear()  # as in another process
    assert main(["show", str(directory)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "is not the corpus any more that" in err


@pytest.mark.parametrize("arguments", [[], ["show"], ["evaluate"], ["speedup"]])
def test_help(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: examples.lda")
