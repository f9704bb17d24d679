"""``python -m examples.lda evaluate RUN``: perplexity of documents that were not trained on."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hsa2c.commands.options import OneLineParser, guarded
from hsa2c.errors import ConfigError

if TYPE_CHECKING:
    from hsa2c.examples.lda.corpora import Corpus
    from hsa2c.examples.lda.trained import Trained

PROG = "examples.lda evaluate"

_DESCRIPTION = """Perplexity of held-out documents, by document completion, and the variational bound.

Of the run's own test documents, or, with --corpus, of all documents of another corpus; words that the run does not know
are left out there, and counted."""


def parser(prog: str = PROG) -> OneLineParser:
    """The command line."""
    p = OneLineParser(prog, _DESCRIPTION)
    p.set_defaults(prog=prog)
    p.add_argument("target", metavar="RUN_OR_CHECKPOINT", type=Path, help="run directory or .safetensors file")
    p.add_argument("--newest", action="store_true", help="the newest checkpoint of the run instead of the best")
    p.add_argument("--corpus", metavar="SOURCE", help="other documents, as in training")
    p.add_argument("--vocab", type=Path, metavar="FILE", help="the words of a file of counts, one in a line")
    p.add_argument("--encoding", metavar="NAME", help="of text and of the words (the run's)")
    p.add_argument("--pattern", metavar="GLOB", help="documents of a folder, such as '*' (the run's)")
    p.add_argument("--seed", type=int, default=0, help="of dealing each document's tokens into two halves (0)")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return p


def main(arguments: list[str] | None = None, *, prog: str = PROG) -> int:
    """Run the command; gives back the exit code: 0 done, 2 bad input.

    Args:
        arguments: What was typed; None: this process's.
        prog: The command's name.
    """
    options = parser(prog).parse_args(arguments)
    return guarded(prog, lambda: _evaluate(options))


def _evaluate(options: argparse.Namespace) -> int:
    from hsa2c.examples.lda.trained import load

    if options.seed < 0:
        raise ConfigError(f"--seed {options.seed}: must be at least 0")
    for name in ("vocab", "encoding", "pattern"):
        if (value := getattr(options, name)) is not None and options.corpus is None:
            raise ConfigError(f"--{name} {value}: belongs to --corpus, which is not given")
    result = _score(load(options.target, newest=options.newest, prog=options.prog), options)
    if options.json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


def _score(trained: Trained, options: argparse.Namespace) -> dict[str, Any]:
    from hsa2c.examples.lda.perplexity import HeldOut

    corpus, ids, unknown, what = trained.corpus, trained.parts.test, 0, "test documents"
    if options.corpus is not None:
        other = _other_corpus(trained, options)
        if other.digest != corpus.digest:
            what = f"documents of {other.name}"
            corpus, unknown = in_words_of(other, corpus)
            ids = np.flatnonzero(np.diff(corpus.indptr)).astype(np.int32)
    if not ids.size and corpus is trained.corpus:
        raise ConfigError(f"{options.target}: has no test documents (--test 0): --corpus names others")
    held_out = HeldOut(corpus, ids, seed=options.seed)
    if not held_out.tokens:
        raise ConfigError(f"{what}: no document has two tokens or more that the run knows")
    score = held_out.score(trained.x, trained.model)
    return {
        "checkpoint": str(trained.path),
        "what": what,
        "perplexity": score.perplexity,
        "bound_per_token": score.bound_per_token,
        "documents": score.documents,
        "tokens_scored": score.tokens,
        "unknown_tokens": unknown,
        "vocabulary": corpus.V,
        "inference": trained.config.model.inference,
        "alpha": trained.model.alpha,
        "seed": options.seed,
    }


def _other_corpus(trained: Trained, options: argparse.Namespace) -> Corpus:
    """What --corpus names; what is not given is as in training, where it is of use."""
    from hsa2c.examples.lda.corpora import open_corpus, remark_on

    own, source = trained.config.corpus, options.corpus
    pattern = options.pattern or (own.pattern if Path(source).is_dir() else None)
    corpus = open_corpus(source, options.vocab, encoding=options.encoding or own.encoding, pattern=pattern)
    if remark := remark_on(source, pattern):
        print(f"{options.prog}: {remark}", file=sys.stderr)
    return corpus


def _print(result: dict[str, Any]) -> None:
    print(f"perplexity {result['perplexity']:,.1f} of {result['documents']:,} {result['what']}")
    print(f"variational bound {result['bound_per_token']:.4f} nats a token")
    print(
        f"protocol: document completion, {result['tokens_scored']:,} tokens scored, halves of seed {result['seed']},"
        f" {result['inference']}, alpha {result['alpha']:g}, vocabulary of {result['vocabulary']:,} words,"
        f" {result['unknown_tokens']:,} unknown tokens left out"
    )
    print(f"checkpoint: {result['checkpoint']}")


def in_words_of(other: Corpus, known: Corpus) -> tuple[Corpus, int]:
    """`other` in the word ids of `known`, and how many of its tokens were of words that `known` has not."""
    import dataclasses

    place = {word: w for w, word in enumerate(known.vocabulary)}
    ids = np.array([place.get(word, -1) for word in other.vocabulary], np.int32)
    words, counts = ids[other.words], np.asarray(other.counts)
    keep = words >= 0
    kept_before = np.concatenate(([0], np.cumsum(keep)))
    corpus = dataclasses.replace(
        other,
        indptr=kept_before[other.indptr],
        words=words[keep],
        counts=counts[keep],
        vocabulary=known.vocabulary,
    )
    return corpus, int(counts[~keep].sum())
