import gzip
import re
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hsa2c.errors import ConfigError
from hsa2c.examples.lda.corpora import kernels, open_corpus, rows
from hsa2c.examples.lda.corpora.storage import load
from hsa2c.examples.lda.corpora.uci import read_uci
from tests.examples.lda.corpora.reference import (
    LARGEST,
    WrongError,
    documents_of,
    message_of,
    read_uci_slowly,
    write_vocabulary,
)

SIZE = "in a file of this size"
OTHER = "other formats end in .mtx, .mm, .ldac, .lda-c or .dat"
SMALL = "3\n4\n5\n1 1 2\n1 4 1\n3 1 7\n3 2 1\n3 3 10\n"


def read_text(content, V=4, block_bytes=1 << 20, block_entries=1 << 20):
    """The corpus in the bytes of a file."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "BLOCK_ENTRIES", block_entries)
        path, made = Path(folder, "docword.txt"), Path(folder, "made")
        path.write_bytes(content)
        made.mkdir()
        read_uci(path, write_vocabulary(Path(folder, "vocab.txt"), V), made, block_bytes=block_bytes)
        corpus = load(made)
        left = {file.name for file in made.iterdir()}
    assert left == {"indptr.npy", "words.npy", "counts.npy", "vocabulary.txt", "corpus.json"}
    return corpus


@pytest.fixture
def complaint(tmp_path):
    """The message about a file's content, without the file; the cache must be left empty."""

    def complaint(content, V=4, name="docword.txt"):
        path, cache = tmp_path / name, tmp_path / "cache"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        vocabulary = write_vocabulary(tmp_path / "vocab.txt", V)
        message = message_of(open_corpus, str(path), vocabulary, cache=cache)
        assert list(cache.iterdir()) == []
        assert message.startswith(f"{path}: ")
        return message.removeprefix(f"{path}: ")

    return complaint


def test_a_file_by_hand():
    corpus = read_text(SMALL.encode())
    assert corpus.indptr.tolist() == [0, 2, 2, 5]
    assert corpus.words.tolist() == [0, 3, 0, 1, 2]
    assert corpus.counts.tolist() == [2, 1, 7, 1, 10]
    assert corpus.vocabulary == ["w0", "w1", "w2", "w3"]
    assert (corpus.documents, corpus.V, corpus.tokens, corpus.name) == (3, 4, 21, "docword.txt")
    assert [corpus.indptr.dtype, corpus.words.dtype, corpus.counts.dtype] == [np.int64, np.int32, np.int32]


@st.composite
def files(draw):
    """The text of a file, and its number of words; its entries in any order, half the time sorted and unique."""
    D, W = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    entry = st.tuples(st.integers(1, D), st.integers(1, W), st.integers(1, 120) | st.just(LARGEST // 50))
    entries = draw(st.lists(entry, max_size=40))
    if draw(st.booleans()):
        entries = sorted({entry[:2]: entry for entry in entries}.values())
    gap, end = draw(st.sampled_from([" ", "\t", "  "])), draw(st.sampled_from(["\n", "\r\n", " \n", "\n\n"]))
    lines = [gap.join(map(str, entry)) + end for entry in entries]
    return f"{D}\n{W}\n{len(entries)}\n{''.join(lines)}", W


@settings(deadline=None)
@given(files(), st.booleans(), st.booleans(), st.integers(1, 100), st.integers(1, 50))
def test_any_file_is_read_as_the_slow_reader_reads_it(file, packed, ended, block_bytes, block_entries):
    text, W = file
    text = text if ended else text.rstrip()
    content = gzip.compress(text.encode()) if packed else text.encode()
    corpus = read_text(content, W, block_bytes, block_entries)
    assert documents_of(corpus) == read_uci_slowly(text)


@settings(deadline=None, max_examples=100)
@given(files(), st.data(), st.integers(1, 100))
def test_what_is_wrong_is_found_at_the_line_where_the_slow_reader_finds_it(file, data, block_bytes):
    text, W = file
    begin = len("".join(text.splitlines(keepends=True)[:3]))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(begin, len(text)))
        new = data.draw(st.text(alphabet="0123456789 \n\t\r-x.e+\x0b\x00é", max_size=3))
        text = text[:at] + new + text[at + data.draw(st.integers(0, 2)) :]
    try:
        expected = read_uci_slowly(text)
    except WrongError as wrong:
        with pytest.raises(ConfigError, match=rf"docword.txt: line {wrong.line}: ") as caught:
            read_text(text.encode(), W, block_bytes)
        assert "\n" not in str(caught.value)
    else:
        assert documents_of(read_text(text.encode(), W, block_bytes)) == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (SMALL, "", "line 1: missing; must be the number of documents, D"),
        (SMALL, "3\n4\n", "line 3: missing; must be the number of entries, NNZ"),
        ("3\n4\n", "many\n4\n", f"line 1: 'many': must be the number of documents, D; {OTHER}"),
        ("3\n4\n", "3 4\n", f"line 1: '3 4': must be the number of documents, D; {OTHER}"),
        ("3\n4\n", "0\n4\n", f"line 1: 0: must be the number of documents, D, from 1 to 1000037 {SIZE}"),
        (
            "3\n4\n",
            "2000000000\n4\n",
            f"line 1: 2000000000: must be the number of documents, D, from 1 to 1000046 {SIZE}",
        ),
        ("3\n4\n", "3\n-4\n", "line 2: '-4': must be the number of words, W"),
        (
            "3\n4\n",
            "3\n4000000000\n",
            "line 2: 4000000000: must be the number of words, W, from 1 to 2147483647 in a file of this size",
        ),
        ("4\n5\n", "4\n5.0\n", "line 3: '5.0': must be the number of entries, NNZ"),
        ("4\n5\n", "4\n6\n", "line 3: 6 entries: the file has 5"),
        ("4\n5\n", "4\n3\n", "line 7: more entries than the 3 of line 3"),
        ("4\n5\n", "4\n3\n\n\n", "line 9: more entries than the 3 of line 3"),
        ("1 4 1", "0 4 1", "line 5: document = 0: must be from 1 to 3"),
        ("1 4 1", "4 4 1", "line 5: document = 4: must be from 1 to 3"),
        ("1 4 1", "1 0 1", "line 5: word = 0: must be from 1 to 4"),
        ("1 4 1", "1 5 1", "line 5: word = 5: must be from 1 to 4"),
        ("1 4 1", "1 -5 1", "line 5: word = -5: must be from 1 to 4"),
        ("1 4 1", "1 4 0", "line 5: count = 0: must be a whole number from 1 to 2147483647"),
        ("1 4 1", "1 4 -1", "line 5: count = -1: must be a whole number from 1 to 2147483647"),
        ("1 4 1", "1 4 2147483648", "line 5: count = 2147483648: must be a whole number from 1 to 2147483647"),
        ("1 4 1", f"1 4 {'9' * 5000}", f"line 5: count = {'9' * 20}...: must be a whole number from 1 to 2147483647"),
        ("1 4 1", "1 4 1.5", "line 5: count = 1.5: must be a whole number from 1 to 2147483647"),
        ("1 4 1", "1 4 15e-1", "line 5: count = 15e-1: must be a whole number from 1 to 2147483647"),
        ("1 4 1", "1 4 1e400", "line 5: count = 1e400: must be a whole number from 1 to 2147483647"),
        ("1 4 1", "1 4 .5", "line 5: '1 4 .5': must be three numbers: document, word and count"),
        ("1 4 1", "1 4 1e", "line 5: '1 4 1e': must be three numbers: document, word and count"),
        ("1 4 1", "1 4 nan", "line 5: '1 4 nan': must be three numbers: document, word and count"),
        ("1 4 1", "1.0 4 1", "line 5: document = '1.0': must be an integer"),
        ("1 4 1", "1 four 1", "line 5: word = 'four': must be an integer"),
        ("1 4 1", "+1 4 1", "line 5: document = '+1': must be an integer"),
        ("1 4 1", "1 4", "line 5: '1 4': must be three numbers: document, word and count"),
        ("1 4 1", "1 4 1 1", "line 5: '1 4 1 1': must be three numbers: document, word and count"),
        ("1 4 1", "1\x0b4 1", r"line 5: '1\x0b4 1': must be three numbers: document, word and count"),
        ("3 3 10\n", "3 3 ", "line 8: '3 3 ': must be three numbers: document, word and count"),
    ],
)
def test_error_names_line_value_and_rule(complaint, old, new, message):
    assert complaint(SMALL.replace(old, new, 1)) == message


def test_bytes_that_are_no_text_are_shown_on_one_short_line(complaint):
    message = complaint(SMALL.encode().replace(b"1 4 1", bytes(range(128, 256)) * 20))
    assert message.startswith(r"line 5: '\\x80\\x81")
    assert len(message) < 150


def test_a_vocabulary_of_another_length(tmp_path):
    path, vocabulary = tmp_path / "docword.txt", write_vocabulary(tmp_path / "vocab.txt", 3)
    path.write_text(SMALL)
    assert message_of(open_corpus, str(path), vocabulary, cache=tmp_path / "cache") == (
        f"{vocabulary}: has 3 words; must have 4, see line 2 of {path}"
    )


def test_counts_of_repeated_entries_that_are_together_too_large(complaint):
    assert complaint(f"3\n4\n3\n3 2 1\n2 3 {LARGEST}\n2 3 1\n") == (
        "document 2: the counts of word 3 (both from 1) add up to 2147483648: must be at most 2147483647"
    )


# gzip


def many_lines(entries=5000):
    """A file whose numbers are random enough that gzip ends in the middle of a line wherever it is cut."""
    rng = np.random.default_rng(1)
    lines = [f"{document} {word} {count}" for document, word, count in rng.integers(1, 1000, (entries, 3))]
    return "\n".join(["1000", "1000", str(entries), *lines, ""])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_gzip_names_the_line_that_is_cut(complaint, share):
    packed = gzip.compress(many_lines().encode())
    packed = packed[: int(share * len(packed))]
    whole_lines = zlib.decompressobj(wbits=31).decompress(packed).count(b"\n")
    assert complaint(packed, V=1000, name="docword.txt.gz") == (
        f"line {whole_lines + 1}: the file, packed by gzip, ends too early"
    )


def test_what_is_wrong_before_the_damage_comes_first(complaint):
    packed = gzip.compress(many_lines().replace("\n", "\nx", 4).encode()[:-1])
    assert complaint(packed[:-20], V=1000).startswith("line 2: 'x1000'")


def test_a_damaged_gzip(complaint):
    packed = bytearray(gzip.compress(many_lines().encode()))
    packed[len(packed) // 2] ^= 0xFF
    assert re.match(r"line \d+: ", complaint(bytes(packed), V=1000))
    packed = gzip.compress(SMALL.encode())
    assert complaint(packed[:-8] + b"\0" * 8).startswith("line 9: damaged; what gzip packed does not unpack: CRC")


def test_gzip_is_told_by_content_not_by_name(tmp_path):
    vocabulary = write_vocabulary(tmp_path / "vocab.txt", 4)
    (tmp_path / "plain.gz").write_text(SMALL)
    (tmp_path / "packed.txt").write_bytes(gzip.compress(SMALL.encode()))
    plain, packed = (
        open_corpus(str(tmp_path / name), vocabulary, cache=tmp_path / "cache") for name in ("plain.gz", "packed.txt")
    )
    assert plain.digest == packed.digest
    assert documents_of(plain) == read_uci_slowly(SMALL)


# Memory, speed


def test_arrays_are_read_only_maps(tmp_path):
    path, vocabulary = tmp_path / "docword.txt", write_vocabulary(tmp_path / "vocab.txt", 4)
    path.write_text(SMALL)
    corpus = open_corpus(str(path), vocabulary, cache=tmp_path / "cache")
    for array in (corpus.indptr, corpus.words, corpus.counts):
        assert isinstance(array.base, np.memmap)
        assert not array.flags.writeable


def test_without_numba(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, kernels.__name__)
    path = tmp_path / "docword.txt"
    path.write_text(SMALL)
    message = message_of(open_corpus, str(path), write_vocabulary(tmp_path / "v", 4), cache=tmp_path / "cache")
    assert message == "a file of counts: needs numba: pip install 'hsa2c[lda]'"


COUNTS = {
    "3.0": 3, "3.": 3, "3e0": 3, "3E+00": 3, "1.2E1": 12, "1.2000000000000000e+01": 12, "30e-1": 3, "0.5e1": 5,
    "007": 7, "1.05e2": 105, "1e9": 10**9, "2147483647.000": LARGEST, "21474836470e-1": LARGEST,
    "0.0000000002147483647e19": LARGEST,
}  # fmt: skip


@pytest.mark.parametrize(("text", "count"), COUNTS.items())
def test_whole_numbers_in_every_form(text, count):
    assert documents_of(read_text(f"1\n1\n1\n1 1 {text}\n".encode(), V=1)) == [[(0, count)]]


def test_a_mark_blank_lines_and_windows_ends():
    content = "\ufeff\n\r\n" + SMALL.replace("\n", "\r\n") + "\n\n"
    assert documents_of(read_text(content.encode())) == read_uci_slowly(SMALL)


number_text = st.from_regex(r"[0-9]{1,3}(\.[0-9]{0,3})?(e[+-]?[0-9]{1,2})?", fullmatch=True)


@example(text="12 3 4\n5 6 7\n")
@given(text=st.text(alphabet="0123456789 \n-x.e", max_size=60) | number_text.map(lambda count: f"1 1 {count}"))
def test_the_kernel_means_the_same_uncompiled(text):
    content = np.frombuffer(text.encode() + b"\n", np.uint8)

    def outcome(kernel):
        most, last = np.array([20, 20, LARGEST, 100]), np.array([-1, -1, 1, 0])
        entries, per_document = np.zeros((3, len(content)), np.int32), np.zeros(20, np.int64)
        return [*kernel(content, 3, 1, most, per_document, entries, last), entries.tolist(), [*per_document], [*last]]

    assert outcome(kernels.parse_entries.py_func) == outcome(kernels.parse_entries)
