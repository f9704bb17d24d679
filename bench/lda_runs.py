"""Runs of the LDA example through its own command, and a corpus of NYTimes' size: for `bench.lda`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from bench.testbed.runs import execute, rows
from hsa2c.examples.lda.corpora import Corpus, open_corpus
from hsa2c.examples.lda.synthetic import Recipe, draw_documents, draw_topics, write_uci


def say(text: str) -> None:
    """A sign of life."""
    print(text, file=sys.stderr, flush=True)


def write_files(corpus: Corpus, folder: Path) -> tuple[Path, Path]:
    """A corpus as files of counts and of words."""
    counts, vocabulary = folder / "docword.txt", folder / "vocab.txt"
    write_uci(corpus, counts, vocabulary)
    return counts, vocabulary


def run_lda(files: tuple[Path, Path], folder: Path, number: Iterator[int], options: Sequence[str]) -> dict[str, Any]:
    """One ``python -m examples.lda``; gives back its summary and its rows."""
    name = f"run-{next(number)}"
    command = [sys.executable, "-m", "examples.lda", "--corpus", str(files[0]), "--vocab", str(files[1])]
    command += ["--run-dir", str(folder), "--name", name, "--json", "--set", "stop.patience=null", *options]
    printed = execute(command, env=_cache(folder))
    return {**json.loads(printed.splitlines()[-1]), "rows": rows(folder / name)}


def _cache(folder: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(folder / "cache")}


def large() -> dict[str, Any]:
    """A corpus of NYTimes' size: time and memory of loading it, and an update's cost for two vocabularies."""
    with tempfile.TemporaryDirectory(prefix="hsa2c-bench-") as name:
        folder = Path(name)
        updates = {}
        for V, documents in ((10_000, 30_000), (102_660, 300_000)):
            recipe = Recipe(documents=documents, V=V, tokens=332.0)
            files = write_files(draw_documents(recipe, draw_topics(recipe)), folder)
            loading = _load(files, folder) if V > 100_000 else {}
            options = ["--topics", "50", "--nodes", "1", "--p", "2", "--B", "15", "--minutes", "0.5"]
            options += ["--validation", "1000", "--test", "1000", "--set", "measure_every_s=20"]
            updates[V] = _update_cost(run_lda(files, folder, count(V), options)["rows"])
            say(f"V = {V:,}: {updates[V]}; {loading}")
        return {"loading": loading, "updates": updates}


def _load(files: tuple[Path, Path], folder: Path) -> dict[str, float]:
    """Seconds and peak memory of a process that reads the corpus for the first time."""
    code = (
        "import json, resource, sys, time; from pathlib import Path\n"
        "from hsa2c.examples.lda.corpora import open_corpus\n"
        "t = time.perf_counter(); c = open_corpus(sys.argv[1], Path(sys.argv[2]), cache=Path(sys.argv[3]))\n"
        "print(json.dumps({'seconds': time.perf_counter() - t, 'documents': c.documents, 'entries': int(c.indptr[-1]),"
        " 'V': c.V, 'peak_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))"
    )
    cache = folder / "cache" / "hsa2c" / "lda"
    arguments = [sys.executable, "-c", code, str(files[0]), str(files[1]), str(cache)]
    run = subprocess.run(arguments, capture_output=True, text=True, check=True)
    loaded: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    open_corpus(str(files[0]), files[1], cache=cache)  # it is there now
    return loaded


def _update_cost(history: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds of an update, by part: of each process, between two exchanges."""
    steady = history[2:-1]
    seconds = steady[-1]["elapsed_s"] - steady[0]["elapsed_s"]
    updates = (steady[-1]["updates"] - steady[0]["updates"]) / 2  # each of two processes
    shares = {
        key: statistics.fmean(row[f"time/{key}_share"] for row in steady)
        for key in ("reading", "local_step", "optimiser", "waiting")
    }
    words = statistics.fmean(row["batch/words"] for row in steady)
    touching = shares["reading"] + shares["optimiser"]
    return {
        "updates_per_s": 2 * updates / seconds,
        "words_of_a_batch": words,
        **{f"{key}_ms": 1000 * share * seconds / updates for key, share in shares.items()},
        "reading_and_writing_us_per_word": 1e6 * touching * seconds / updates / words,
    }
