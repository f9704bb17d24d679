"""Corpora: read from files of the usual formats, from plain text, or from Python's own documentation."""

from hsa2c.examples.lda.corpora.corpus import Corpus, content_digest
from hsa2c.examples.lda.corpora.opening import open_corpus, remark_on
from hsa2c.examples.lda.corpora.splitting import Split, split

__all__ = ["Corpus", "Split", "content_digest", "open_corpus", "remark_on", "split"]
