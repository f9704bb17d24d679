"""The bag-of-words files of the UCI repository: NIPS, KOS, Enron, NYTimes, PubMed; gensim's UciCorpus writes such, too.

Three lines with the numbers of documents (D), words (W) and entries (NNZ), then one line for each entry: document, word
and count, the first two counted from 1.
"""

from __future__ import annotations

import re
from functools import partial

from hsa2c.examples.lda.corpora.entries import LARGEST_NUMBER, MOST_ENTRIES, Header, most_documents, read_matrix
from hsa2c.examples.lda.corpora.lines import Lines, shown


def _read_header(lines: Lines) -> Header:
    """The three numbers at the beginning."""
    _, documents = _number(lines, "the number of documents, D", 1, most_documents(lines))
    words_line, words = _number(lines, "the number of words, W", 1, LARGEST_NUMBER)
    line, entries = _number(lines, "the number of entries, NNZ", 0, MOST_ENTRIES)
    return Header(documents=documents, words=words, words_line=words_line, entries=entries, line=line)


def _number(lines: Lines, meaning: str, least: int, most: int) -> tuple[int, int]:
    """The number of the next line that is not blank, and what it says."""
    number, line = lines.filled()
    if not line:
        raise lines.error(f"missing; must be {meaning}", number)
    if not re.fullmatch(rb"\s*[0-9]{1,18}\s*", line):
        other = "; other formats end in .mtx, .mm, .ldac, .lda-c or .dat" if number == 1 else ""
        raise lines.error(f"{shown(line)}: must be {meaning}{other}", number)
    if not least <= int(line) <= most:
        raise lines.error(f"{int(line)}: must be {meaning}, from {least} to {most} in a file of this size", number)
    return number, int(line)


read_uci = partial(read_matrix, read_header=_read_header)
"""See `read_matrix`."""
