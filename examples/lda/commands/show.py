"""``python -m examples.lda show RUN``: topics as words, as a picture, and for other programs."""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from hsa2c import streams
from hsa2c.commands.files import replacing
from hsa2c.commands.options import OneLineParser, guarded
from hsa2c.errors import ConfigError

if TYPE_CHECKING:
    from hsa2c.examples.lda.trained import Trained

PROG = "examples.lda show"


def parser() -> OneLineParser:
    """The command line."""
    p = OneLineParser(PROG, "Show the topics of a run; of its best checkpoint if there is one, else of the newest.")
    p.add_argument("target", metavar="RUN_OR_CHECKPOINT", type=Path, help="run directory or .safetensors file")
    p.add_argument("--newest", action="store_true", help="the newest checkpoint of the run")
    p.add_argument("--words", type=int, default=10, metavar="N", help="words of each topic (10)")
    p.add_argument("--picture", type=Path, metavar="FILE", help="(topics.png in the run)")
    p.add_argument("--csv", type=Path, metavar="FILE", help="write topic, rank, word, probability")
    p.add_argument("--pyldavis", type=Path, metavar="FILE", help="write the arguments of pyLDAvis.prepare, as JSON")
    p.add_argument("--html", type=Path, metavar="FILE", help="write pyLDAvis' page (pip install pyLDAvis)")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives back the exit code: 0 done, 2 bad input."""
    options = parser().parse_args(arguments)
    return guarded(PROG, lambda: _show(options))


def _show(options: argparse.Namespace) -> int:
    from hsa2c.examples.lda.trained import load

    if options.words < 1:
        raise ConfigError(f"--words {options.words}: must be at least 1")
    trained = load(options.target, newest=options.newest, prog=PROG)
    topics = top_words(trained, options.words)
    if options.json:
        print(json.dumps({"checkpoint": str(trained.path), "topics": topics}))
    else:
        _print(trained, topics)
    if options.csv:
        _write(options.csv, lambda file: _csv(trained, file))
    if options.pyldavis:
        _write(options.pyldavis, lambda file: json.dump(for_pyldavis(trained), file))
    if options.html:
        _write(options.html, lambda file: file.write(_page(trained)))
    picture = options.picture
    if picture is None and options.target.is_dir():
        picture = options.target / "topics.png"
    if picture is not None:
        from hsa2c.examples.lda.picture import draw

        title = f"{trained.corpus.name}: {trained.model.K} topics, {trained.documents:,} documents"
        with replacing(PROG, picture):
            draw(topics, picture, title=title)
        print(f"picture: {picture}", file=sys.stderr)
    return 0


def top_words(trained: Trained, words: int) -> list[dict[str, Any]]:
    """Topics, the largest first: number, share of the tokens, and their likeliest words with their probabilities."""
    beta, shares = trained.beta, trained.shares
    found = []
    for k in np.argsort(-shares):
        best = np.argsort(-beta[k])[:words]
        found.append(
            {
                "topic": int(k),
                "share": float(shares[k]),
                "words": [[trained.corpus.vocabulary[w], float(beta[k, w])] for w in best],
            }
        )
    return found


def _print(trained: Trained, topics: Sequence[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("topic", justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("words", overflow="fold")
    for topic in topics:
        table.add_row(str(topic["topic"]), f"{topic['share']:.1%}", " ".join(word for word, _ in topic["words"]))
    console = streams.console()
    console.print(f"{trained.corpus.name}, {trained.path}", style="italic", soft_wrap=True)
    console.print(table)


def _csv(trained: Trained, file: IO[str]) -> None:
    """All words of all topics, the likeliest first; probabilities sum to 1 within a topic."""
    writer = csv.writer(file)
    writer.writerow(("topic", "rank", "word", "probability"))
    for k, probabilities in enumerate(trained.beta):
        for rank, w in enumerate(np.argsort(-probabilities, kind="stable"), 1):
            writer.writerow((k, rank, trained.corpus.vocabulary[w], f"{probabilities[w]:.6g}"))


def for_pyldavis(trained: Trained) -> dict[str, Any]:
    """What ``pyLDAvis.prepare`` takes: of the training documents, as plain lists."""
    from hsa2c.examples.lda.perplexity import document_topics

    corpus, ids = trained.corpus, trained.parts.training
    theta = document_topics(corpus, ids, trained.x, trained.model)
    frequency = np.zeros(corpus.V, np.int64)
    for d in ids:
        here = slice(corpus.indptr[d], corpus.indptr[d + 1])
        frequency[corpus.words[here]] += corpus.counts[here]
    lengths = [int(corpus.counts[corpus.indptr[d] : corpus.indptr[d + 1]].sum()) for d in ids]
    return {
        "topic_term_dists": trained.beta.astype(np.float64).tolist(),
        "doc_topic_dists": theta.astype(np.float64).tolist(),
        "doc_lengths": lengths,
        "vocab": list(corpus.vocabulary),
        "term_frequency": frequency.tolist(),
    }


def _page(trained: Trained) -> str:
    try:
        import pyLDAvis
    except ImportError:
        raise ConfigError("--html: needs pyLDAvis: pip install 'hsa2c[lda-html]'") from None
    arguments = for_pyldavis(trained)
    for name in ("topic_term_dists", "doc_topic_dists"):  # it wants sums of 1 to more digits than float32 has
        rows = np.array(arguments[name])
        arguments[name] = rows / rows.sum(axis=1, keepdims=True)
    page: str = pyLDAvis.prepared_data_to_html(pyLDAvis.prepare(**arguments, sort_topics=False, n_jobs=1))
    return page


def _write(path: Path, write: Callable[[IO[str]], Any]) -> None:
    """A file, whole or not at all."""
    try:
        with replacing(PROG, path), tempfile.TemporaryDirectory(prefix=".show-", dir=path.parent) as folder:
            temporary = Path(folder, "file")
            with temporary.open("w", encoding="utf-8", newline="") as file:
                write(file)
            temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None
