import gzip

import pytest

from hsa2c.examples.lda.corpora.vocabulary import read_vocabulary, remark_on_words
from tests.examples.lda.corpora.reference import message_of


@pytest.fixture
def vocabulary(tmp_path):
    def vocabulary(content):
        path = tmp_path / "vocab.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return vocabulary


@pytest.mark.parametrize(
    "content",
    [
        "naïve\nnew york\nb\n",
        "naïve\r\n new york\r\nb",
        "\ufeffnaïve\nnew york\nb\n",
        "naïve\nnew york\nb\n\n \n",
        "0\tnaïve\n1\tnew york\n2\tb\n",
        "2\tnew york\n1\tnaïve\n3\tb\n",
        "naïve\t0\nnew york\t1\nb\t2\n\n",
        "400\n2\tb\t7\n0\tnaïve\t1\n1\tnew york\t12\n",
        "400\n2\tb\t0\n0\tnaïve\t1\n1\tnew york\t2\n",
    ],
    ids=["plain", "windows", "mark", "blank end", "numbered", "from 1", "numbers behind", "gensim", "gensim's numbers"],
)
def test_a_word_on_each_line(vocabulary, content):
    assert read_vocabulary(vocabulary(content)) == ["naïve", "new york", "b"]
    assert read_vocabulary(vocabulary(gzip.compress(content.encode()))) == ["naïve", "new york", "b"]


@pytest.mark.parametrize("content", ["1 ant\n0 bee\n", "0 bee\n1 ant", "bee 1\nant 2\n"])
def test_numbers_with_blanks(vocabulary, content):
    assert read_vocabulary(vocabulary(content)) == ["bee", "ant"]


@pytest.mark.parametrize("content", ["2 live process pool\nboeing 747\nb\n", "1984\n3\n7\n", "a\u2028b\nc\n"])
def test_words_that_look_like_something_else(vocabulary, content):
    assert read_vocabulary(vocabulary(content)) == content.split("\n")[:-1]


def test_words_that_are_numbers_alone_are_told():
    assert remark_on_words("v.txt", ["1984", "3"]) == (
        "v.txt: all 2 words are numbers; topics will be shown as numbers"
    )
    assert remark_on_words("v.txt", ["1984", "b"]) is None


def test_another_encoding(vocabulary):
    assert read_vocabulary(vocabulary("naïve\nb\n".encode("latin-1")), "latin-1") == ["naïve", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": has no words"),
        ("\n \n", ": has no words"),
        ("a\n\nb\n", ": line 2: empty; must be a word"),
        (b"a\nna\xefve\n", r": line 2: 'na\\xefve': not UTF-8 (--encoding)"),
        ("a\nb\na\n", ": line 3: 'a': as in line 1; each word must be there once"),
        ("0\ta\n1\tb\n2\ta\n", ": line 3: 'a': as in line 1; each word must be there once"),
        ("0\ta\n2\tb\n", ": line 2: number = 2: must be each of 0 to 1, or of 1 to 2, once"),
        ("0\ta\n0\tb\n", ": line 2: number = 0: must be each of 0 to 1, or of 1 to 2, once"),
        ("2 a\n3 b\n", ": line 2: number = 3: must be each of 0 to 1, or of 1 to 2, once"),
        ("a\t17\nb\t9\n", ": line 1: number = 17: must be each of 0 to 1, or of 1 to 2, once"),
        ("0\ta\n1\t\n", r": line 2: '1': must be a word; or, in each line, a number and a word"),
        ("a\tb\nc\td\n", r": line 1: 'a\tb': must be a word; or, in each line, a number and a word"),
        ("a\nb\tc\n", ": line 1: 'a': must be a word; or, in each line, a number and a word"),
        ("3\na\nb\nc\n", ": line 1: 3: must be a word; it is the number of the words below"),
        ("a\rb\rc", r": line 1: 'a\rb\rc': must be a word, without control characters"),
        ("a\nb\0\n", r": line 2: 'b\x00': must be a word, without control characters"),
    ],
)
def test_what_is_wrong_or_doubtful_is_told(vocabulary, content, message):
    path = vocabulary(content)
    assert message_of(read_vocabulary, path) == f"{path}{message}"
