"""Slow readers and writers in the words of the formats' descriptions, to compare the fast ones with."""

import re
from decimal import Decimal
from pathlib import Path

from hsa2c.errors import ConfigError

LARGEST = 2**31 - 1


class WrongError(Exception):
    """What the reference says of a malformed file: the line, from 1."""

    def __init__(self, line):
        super().__init__(line)
        self.line = line


def read_uci_slowly(text):
    """The documents of a bag-of-words file, each a sorted list of (word, count), words from 0.

    Raises:
        WrongError: Names the first line that is wrong.
    """
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    D, W, NNZ = (int(line) for line in lines[:3])
    documents = [{} for _ in range(D)]
    entries = 0
    for number, line in enumerate(lines[3:], 4):
        if line.strip(" \t\r") == "":
            continue
        fields = re.split(r"[ \t\r]+", line.strip(" \t\r"))
        if len(fields) != 3 or not all(re.fullmatch("[0-9]+", field) for field in fields[:2]):
            raise WrongError(number)
        if not re.fullmatch(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?", fields[2]):
            raise WrongError(number)
        document, word, count = int(fields[0]), int(fields[1]), Decimal(fields[2])
        if not (1 <= document <= D and 1 <= word <= W and 1 <= count <= LARGEST) or count % 1:
            raise WrongError(number)
        entries += 1
        if entries > NNZ:
            raise WrongError(number)
        bag = documents[document - 1]
        bag[word - 1] = bag.get(word - 1, 0) + int(count)
    if entries < NNZ:
        raise WrongError(3)
    return [sorted(bag.items()) for bag in documents]


def documents_of(corpus):
    """The documents of a corpus, as `read_uci_slowly` gives them."""
    pairs = list(zip(corpus.words.tolist(), corpus.counts.tolist(), strict=True))
    return [pairs[a:b] for a, b in zip(corpus.indptr.tolist(), corpus.indptr.tolist()[1:], strict=False)]


def write_vocabulary(path: Path, V: int) -> Path:
    """A file with the words w0, w1, ..."""
    path.write_text("".join(f"w{word}\n" for word in range(V)))
    return path


def message_of(function, *arguments, **options):
    """The message of the ConfigError that a call ends with; it must be one line."""
    try:
        function(*arguments, **options)
    except ConfigError as error:
        assert "\n" not in str(error)
        return str(error)
    raise AssertionError("no ConfigError")
