import sys

import numpy as np
import pytest

from examples.lda.corpora import open_corpus
from examples.lda.corpora.text import count_words, text_files
from tests.examples.lda.corpora.reference import documents_of, message_of


@pytest.fixture
def folder(tmp_path):
    def folder(**files):
        for name, content in files.items():
            path = tmp_path / "letters" / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "letters"

    return folder


@pytest.fixture
def read(tmp_path, folder):
    return lambda **files: open_corpus(str(folder(**files)), cache=tmp_path / "cache")


def test_words_are_lower_case_letters_and_neither_short_nor_usual(read):
    corpus = read(
        a_txt="The Ship, the ship! Über 3rd of os_path x2 sea",
        b_md="ship üBER",
        more__c_rst="sea sea which",
        d_txt="sea",
        e_txt="",
        f_txt="alone",
    )
    assert corpus.vocabulary == ["sea", "ship", "über"]
    assert documents_of(corpus) == [[(0, 1), (1, 2), (2, 1)], [(1, 1), (2, 1)], [(0, 1)], [], [], [(0, 2)]]
    assert corpus.name == "letters"
    assert [corpus.indptr.dtype, corpus.words.dtype, corpus.counts.dtype] == [np.int64, np.int32, np.int32]


def test_words_in_too_few_or_too_many_documents_are_left_out():
    texts = ["sea wind ship", "sea wind ship", "sea wind", "sea rope", "sea"]
    words = ["rope", "sea", "ship", "wind"]  # in 1, 5, 2 and 3 of the texts
    for fewest, share, left in [(1, 1.0, words), (2, 0.5, ["ship"]), (2, 0.6, ["ship", "wind"]), (1, 0.4, words[::2])]:
        assert count_words(texts, fewest=fewest, share=share, what="")[-1] == left


def test_files_are_found_below_and_sorted_and_hidden_ones_left_out(folder):
    here = folder(b_txt="", a__z_TXT="", a_pdf="", a__y_markdown="", _git__c_txt="", _x_txt="")
    assert [str(path.relative_to(here)) for path in text_files(here)] == ["a/y.markdown", "a/z.TXT", "b.txt"]


@pytest.mark.parametrize(
    "files",
    [
        {"a_txt": "", "b_txt": ""},
        {"a_txt": "sea", "b_txt": "ship"},
        {"a_txt": "sea", "b_txt": "sea"},
        {"a_txt": "sea ship"},
        {"a_txt": "the of", "b_txt": "the of", "c_txt": "", "d_txt": ""},
    ],
)
def test_no_word_is_left(read, tmp_path, files):
    assert message_of(read, **files) == (
        f"{tmp_path / 'letters'}: no words: none of three letters or more is in at least 2 documents and at most "
        "50% of them"
    )
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_without_text(read, tmp_path):
    assert message_of(read, a_pdf="x") == (
        f"{tmp_path / 'letters'}: has no plain text: no file that ends in .markdown, .md, .rst, .text, .txt"
    )


def test_a_file_that_is_not_utf_8(read, tmp_path):
    assert message_of(read, a_txt="sea", b_txt=b"ship\nna\xefve\n").startswith(
        f"{tmp_path / 'letters' / 'b.txt'}: line 2: not UTF-8: "
    )
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_scikit_learn(read, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    assert message_of(read, a_txt="sea") == (f"{tmp_path / 'letters'}: needs scikit-learn: pip install 'hsa2c[lda]'")


def test_any_change_in_the_folder_is_seen(read):
    before = read(a_txt="sea", b_txt="sea", c_txt="", d_txt="ship ship")
    assert read().digest == before.digest
    assert read(e_txt="ship").vocabulary == ["sea", "ship"]
    assert read(e_txt="wide").vocabulary == ["sea"]
