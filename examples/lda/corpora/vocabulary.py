"""Files of words, a word on each line; the forms in which gensim and others number them are read, too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hsa2c.errors import ConfigError
from hsa2c.examples.lda.corpora.lines import open_lines, shown

_NUMBER = re.compile("[0-9]{1,10}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def read_vocabulary(path: Path, encoding: str = "utf-8") -> list[str]:
    """The words of a file, plain or packed by gzip.

    Each line is a word. Or each is a number and a word, in either order, a tab or blanks between; or, as gensim's
    ``Dictionary.save_as_text`` writes them after a line with the number of documents, a number, a word and a frequency.
    Numbers are from 0 or from 1, in any order, and none is left out.

    Args:
        path: The file.
        encoding: Of its text.

    Raises:
        ConfigError: It cannot be read, has another encoding, no word, an empty line before the last word, a word twice,
            or it is not clear what the words are.
    """
    lines = _text_lines(path, encoding)
    if not lines:
        raise ConfigError(f"{path}: has no words")
    words = _words(path, lines)
    known: dict[str, int] = {}
    for number, word in words:
        if not word:
            raise _wrong(path, number, "empty; must be a word")
        if _CONTROL.search(word):
            raise _wrong(path, number, f"{_short(word)}: must be a word, without control characters")
        if word in known:
            raise _wrong(path, number, f"{_short(word)}: as in line {known[word]}; each word must be there once")
        known[word] = number
    return list(known)


def remark_on_words(path: str, words: Sequence[str]) -> str | None:
    """What the user should know of the words of a file; None if nothing."""
    if all(word.isdecimal() for word in words):
        return f"{path}: all {len(words):,} words are numbers; topics will be shown as numbers"
    return None


def _text_lines(path: Path, encoding: str) -> list[str]:
    """The lines without blanks around them, those behind the last word left out."""
    texts: list[str] = []
    with open_lines(path) as lines:
        for number, line in lines.each():
            try:
                texts.append(line.decode(encoding).strip())
            except UnicodeError:
                raise lines.error(f"{shown(line)}: not {encoding.upper()} (--encoding)", number) from None
    while texts and not texts[-1]:
        texts.pop()
    return texts


def _words(path: Path, lines: list[str]) -> list[tuple[int, str]]:
    """The words in order, each with the number of its line."""
    tabs = any("\t" in line for line in lines)
    rows = [(n, line.split("\t") if tabs else line.split()) for n, line in enumerate(lines, 1)]
    begins_with_number = bool(_NUMBER.fullmatch(lines[0]))
    if tabs and begins_with_number:
        del rows[0]  # gensim's number of documents
    if {len(fields) for _, fields in rows} in ({2}, {3}):
        for column in range(2):
            if _are_numbers(rows, column):
                return _ordered(path, rows, column)
    if tabs:
        number = next((n for n, fields in rows if len(fields) != 2), rows[0][0])
        raise _wrong(
            path, number, f"{_short(lines[number - 1])}: must be a word; or, in each line, a number and a word"
        )
    if begins_with_number and int(lines[0]) == len(lines) - 1:
        raise _wrong(path, 1, f"{lines[0]}: must be a word; it is the number of the words below")
    return list(enumerate(lines, 1))


def _are_numbers(rows: Sequence[tuple[int, Sequence[str]]], column: int) -> bool:
    return all(len(fields) > column and _NUMBER.fullmatch(fields[column].strip()) for _, fields in rows)


def _ordered(path: Path, rows: Sequence[tuple[int, Sequence[str]]], column: int) -> list[tuple[int, str]]:
    """The words of numbered lines, in the order of their numbers."""
    numbers = [int(fields[column]) for _, fields in rows]
    least, words = min(1, *numbers), {}
    for number, (line, fields) in zip(numbers, rows, strict=True):
        if number in words or number - least >= len(rows):
            must = f"each of 0 to {len(rows) - 1}, or of 1 to {len(rows)}, once"
            raise _wrong(path, line, f"number = {number}: must be {must}")
        words[number] = line, fields[1 - column].strip()
    return [words[number] for number in sorted(words)]


def _wrong(path: Path, line: int, what: str) -> ConfigError:
    return ConfigError(f"{path}: line {line}: {what}")


def _short(text: str) -> str:
    return shown(text.encode(errors="backslashreplace"))
