import sys

import numpy as np
import pytest

from hsa2c.examples.lda.corpora import open_corpus, pydocs
from hsa2c.examples.lda.corpora.pydocs import source_docstrings
from hsa2c.examples.lda.corpora.storage import load
from tests.examples.lda.corpora.reference import message_of


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def corpus(cache):
    return open_corpus("pydocs", cache=cache)


@pytest.mark.slow
def test_the_corpus_of_this_python(corpus):
    assert 3000 < corpus.documents < 7000
    assert 90_000 < corpus.tokens < 250_000
    assert 2000 < corpus.V < 5000
    assert corpus.name == "pydocs"


@pytest.mark.slow
def test_its_words(corpus):
    assert {"thread", "lock", "turtle", "decimal", "file", "header", "encoding"} <= set(corpus.vocabulary)
    assert not {"the", "which", "os", "__init__"} & set(corpus.vocabulary)
    assert corpus.vocabulary == sorted(set(corpus.vocabulary))
    in_documents = np.bincount(corpus.words, minlength=corpus.V)
    # 10 % of the documents before the short ones are left out, of which there are fewer than of the others.
    assert in_documents.max() < 0.2 * corpus.documents


@pytest.mark.slow
def test_no_document_is_short(corpus):
    assert np.add.reduceat(corpus.counts, corpus.indptr[:-1]).min() == pydocs.FEWEST_TOKENS


@pytest.mark.slow
def test_it_is_made_once(corpus, cache, monkeypatch):
    monkeypatch.setattr(pydocs, "source_docstrings", None)
    assert open_corpus("pydocs", cache=cache).digest == corpus.digest


def test_another_python_or_version_of_the_module_is_another_corpus(monkeypatch):
    before = pydocs.ingredients()
    assert pydocs.ingredients() == before
    monkeypatch.setattr(sys, "version", "4.0")
    another_python = pydocs.ingredients()
    monkeypatch.setattr(pydocs, "VERSION", pydocs.VERSION + 1)
    assert before != another_python != pydocs.ingredients()


SOURCE = '''
"""Module."""
def f():
    """Function."""
    def g():
        """Inner."""
    return """not this"""
class C:
    """Class
       on two lines."""
    async def m(self): """Method."""
try:
    import x
except ImportError:
    if 1:
        def h(): """In a statement."""
else:
    def h(): r"""\\d."""
"neither this"
'''


def test_docstrings_are_found_in_sources_that_are_not_run(tmp_path):
    (tmp_path / "b.py").write_text(SOURCE)
    (tmp_path / "a.py").write_bytes("# coding: latin-1\n'é'\nraise SystemExit\n".encode("latin-1"))
    (tmp_path / "py2.py").write_text("print 'x'")
    (tmp_path / "null.py").write_bytes(b"'x'\0")
    (tmp_path / "odd.py").write_text("'odd \\d'")
    for left_out in ("test", "site-packages", "tests", "idlelib"):
        (tmp_path / left_out).mkdir()
        (tmp_path / left_out / "c.py").write_text("'not this'")
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "c.py").write_text("'below'")
    assert list(source_docstrings(tmp_path)) == [
        *("é", "Module.", "Function.", "Inner.", "Class\non two lines.", "Method.", "In a statement.", r"\d."),
        *("below", r"odd \d"),
    ]


def test_a_python_without_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(pydocs, "standard_library", lambda: tmp_path)
    cache = tmp_path / "cache"
    assert message_of(open_corpus, "pydocs", cache=cache) == (
        f"pydocs: {tmp_path}: has no sources of Python's standard library"
    )


def test_short_documents_are_left_out_and_repeated_ones_counted_once(tmp_path, monkeypatch):
    colours = "amber azure beige coral ebony green ivory khaki lilac"
    texts = [f"{colours} {colour}" for colour in colours.split()] * 2
    monkeypatch.setattr(pydocs, "source_docstrings", lambda library: [*texts, *["amber azure"] * 2, colours])
    monkeypatch.setattr(pydocs, "builtin_docstrings", lambda: texts[:1])
    monkeypatch.setattr(pydocs, "help_pieces", lambda: [f"unique{'x' * i}" for i in range(200)])
    pydocs.read_pydocs(tmp_path)
    corpus = load(tmp_path)
    assert corpus.vocabulary == colours.split()
    assert corpus.documents == 9  # those of 10 tokens, once
    assert corpus.tokens == 90
    assert (np.diff(corpus.indptr) == 9).all()
