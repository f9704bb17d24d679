import gzip
import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.lda.corpora import lines as lines_module
from examples.lda.corpora.lines import Lines, open_lines, read_vocabulary
from tests.examples.lda.corpora.reference import message_of


def lines_of(content, block_bytes=1 << 20):
    return Lines("file", io.BufferedReader(io.BytesIO(content)), lambda: None, block_bytes)


@given(st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"")), max_size=9), st.integers(1, 30))
def test_lines_are_those_of_the_file_however_it_is_cut(expected, block_bytes):
    content = b"\n".join(expected)
    expected = content.removesuffix(b"\n").split(b"\n") if content else []
    assert list(lines_of(content, block_bytes).each()) == list(enumerate(expected, 1))
    one_by_one = lines_of(content, block_bytes)
    assert list(iter(one_by_one.line, None)) == expected
    assert one_by_one.line() is None


@given(st.integers(1, 30), st.integers(0, 4))
def test_blocks_are_whole_lines_and_begin_after_those_given_out(block_bytes, headers):
    content = b"one\ntwo\n\nfour\nfive"
    lines = lines_of(content, block_bytes)
    seen = b""
    for number in range(headers):
        seen += lines.line() + b"\n"
        assert lines.before == number
    for block in lines.blocks():
        assert block.endswith(b"\n")
        assert lines.before == seen.count(b"\n")
        seen += block
    assert seen == content + b"\n"


def test_a_line_without_end_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(lines_module, "LONGEST_LINE_BYTES", 100)
    endless = lines_of(b"short\n" + b"x" * 10_000, block_bytes=60)
    assert message_of(list, endless.blocks()) == "file: line 2: longer than 100 bytes"


def test_a_file_that_cannot_be_opened(tmp_path):
    def open_it():
        with open_lines(tmp_path):
            pass

    assert message_of(open_it) == f"{tmp_path}: cannot be read: Is a directory"


# The bar


class Screen(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.mark.parametrize(
    ("terminal", "progress", "shown"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_bar_is_for_terminals_and_for_who_wants_it(tmp_path, monkeypatch, terminal, progress, shown):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", screen := Screen(terminal))
    path = tmp_path / "words [x].gz"
    path.write_bytes(gzip.compress(b"a\nb\n"))
    with open_lines(path, progress=progress) as lines:
        assert list(lines.each()) == [(1, b"a"), (2, b"b")]
    assert ("reading words [x].gz" in screen.getvalue()) == shown
    assert bool(screen.getvalue()) == shown


# Vocabularies


@pytest.fixture
def vocabulary(tmp_path):
    def vocabulary(content):
        path = tmp_path / "vocab.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return vocabulary


@pytest.mark.parametrize("content", ["naïve\nnew york\nb\n", "naïve\r\n new york\r\nb", "\ufeffnaïve\nnew york\nb\n"])
def test_a_vocabulary_has_a_word_on_each_line(vocabulary, content):
    assert read_vocabulary(vocabulary(content)) == ["naïve", "new york", "b"]
    assert read_vocabulary(vocabulary(gzip.compress(content.encode()))) == ["naïve", "new york", "b"]


def test_other_separators_of_lines_are_part_of_a_word(vocabulary):
    assert read_vocabulary(vocabulary("a\u2028b\nc\x0bd\n")) == ["a\u2028b", "c\x0bd"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": has no words"),
        ("a\n\nb\n", ": line 2: empty; must be a word"),
        ("a\nb\n \n", ": line 3: empty; must be a word"),
        (b"a\nna\xefve\n", r": line 2: 'na\\xefve': not UTF-8"),
    ],
)
def test_a_wrong_vocabulary(vocabulary, content, message):
    path = vocabulary(content)
    assert message_of(read_vocabulary, path) == f"{path}{message}"
