import gzip
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsa2c.examples.lda.corpora import open_corpus
from tests.examples.lda.corpora.reference import LARGEST, documents_of, message_of, write_vocabulary

SMALL = "2 0:2 3:1\n0\n3 0:7 1:1 2:10\n"


@pytest.fixture
def read(tmp_path):
    def read(content, name="ap.dat", V=4):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return open_corpus(str(path), write_vocabulary(tmp_path / "vocab.txt", V), cache=tmp_path / "cache")

    return read


@pytest.mark.parametrize("name", ["ap.dat", "ap.ldac", "AP.DAT.gz", "ap.ldac.gz"])
def test_a_file_by_hand(read, name):
    corpus = read(gzip.compress(SMALL.encode()) if name.endswith("gz") else SMALL, name)
    assert documents_of(corpus) == [[(0, 2), (3, 1)], [], [(0, 7), (1, 1), (2, 10)]]
    assert corpus.vocabulary == ["w0", "w1", "w2", "w3"]
    assert (corpus.name, corpus.tokens) == (name, 21)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.tuples(st.integers(0, 11), st.integers(1, 99)), max_size=9), min_size=1, max_size=9))
def test_any_file_is_read_as_written(documents):
    lines = [f"{len(pairs)} {' '.join(f'{word}:{count}' for word, count in pairs)}" for pairs in documents]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.ldac")
        path.write_text("\n".join(lines))
        corpus = open_corpus(str(path), write_vocabulary(Path(folder, "v"), 12), cache=Path(folder, "cache"))
    sums = [{word: sum(c for w, c in pairs if w == word) for word, _ in pairs} for pairs in documents]
    assert documents_of(corpus) == [sorted(bag.items()) for bag in sums]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (SMALL, "", "has no documents"),
        ("3 0:7", "2 0:7", "line 3: N = 2: must be the number of pairs that follow, which is 3"),
        ("0\n", "\n", "line 2: N = '': must be the number of pairs that follow, 0 for an empty document"),
        ("3 0:7", "x 0:7", "line 3: N = 'x': must be the number of pairs that follow, 0 for an empty document"),
        ("2:10", "2", "line 3: '2': must be word:count"),
        ("2:10", "2:", "line 3: '2:': must be word:count"),
        ("2:10", "2:1.5", "line 3: count = 1.5: must be a whole number from 1 to 2147483647"),
        ("2:10", "2:1e400", "line 3: count = inf: must be a whole number from 1 to 2147483647"),
        ("2:10", "2:nan", "line 3: '2:nan': must be word:count"),
        ("2:10", "-2:1", "line 3: '-2:1': must be word:count"),
        ("2:10", "2:10:3", "line 3: '2:10:3': must be word:count"),
        ("2:10", "4:10", "line 3: word = 4: must be from 0 to 3, the last of the vocabulary"),
        ("2:10", "2:0", "line 3: count = 0: must be a whole number from 1 to 2147483647"),
        ("2:10", "2:2147483648", "line 3: count = 2147483648: must be a whole number from 1 to 2147483647"),
        (
            "1:1 2:10",
            f"1:{LARGEST} 1:10",
            "document 3: the counts of word 2 (both from 1) add up to 2147483657: must be at most 2147483647",
        ),
    ],
)
def test_error_names_line_value_and_rule(read, tmp_path, old, new, message):
    assert message_of(read, SMALL.replace(old, new, 1)) == f"{tmp_path / 'ap.dat'}: {message}"
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_truncated_gzip_names_the_line(read, tmp_path):
    assert message_of(read, gzip.compress(SMALL.encode())[:-4]) == (
        f"{tmp_path / 'ap.dat'}: line 4: the file, packed by gzip, ends too early"
    )


@pytest.mark.parametrize("content", ["2 0:2.0 3:1\n0\n3 0:7. 1:1e0 2:1.0E+1\n", "\ufeff\n" + SMALL + "\n \n"])
def test_whole_numbers_in_other_forms_and_blank_lines_around(read, content):
    assert documents_of(read(content)) == documents_of(read(SMALL))
