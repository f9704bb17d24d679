import gzip
import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsa2c.examples.lda.corpora import lines as lines_module
from hsa2c.examples.lda.corpora.lines import Lines, open_lines
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


@pytest.mark.parametrize("block_bytes", [1, 4, 100])
def test_a_mark_of_utf_8_is_no_part_of_the_text(block_bytes):
    assert list(lines_of("\ufeffone\n\ufefftwo".encode(), block_bytes).each()) == [
        (1, b"one"),
        (2, "\ufefftwo".encode()),
    ]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_told(encoding):
    lines = lines_of("\ufeffone\n".encode(encoding))
    assert message_of(lines.line) == "file: line 1: the file is UTF-16: must be UTF-8"


def test_filled_lines_are_numbered():
    lines = lines_of(b"\n  \n% no\none\n\r\n% two\n\n")
    assert lines.filled(comment=b"%") == (4, b"one")
    assert lines.filled() == (6, b"% two")
    assert lines.filled() == (8, b"")


def test_many_lines_one_by_one_are_quick():
    """They were once copied with all that followed: minutes for what takes a second now."""
    lines = lines_of(b"%\n" * 300_000 + b"x")
    assert lines.filled(comment=b"%") == (300_001, b"x")


def test_gzip_may_not_unpack_to_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "ANY_BYTES", 1000)
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"0\n" * 1_000_000))
    with open_lines(tmp_path / "x.gz", block_bytes=10_000) as lines:
        allowed = lines.most_bytes
        assert allowed == 1000 + 100 * (tmp_path / "x.gz").stat().st_size < 2_000_000
        assert f": the file goes on after {allowed} bytes, more than" in message_of(list, lines.blocks())


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
