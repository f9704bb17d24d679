"""MatrixMarket files: a matrix of counts, documents down, words across; as scipy and gensim's MmCorpus write them.

A line such as "%%MatrixMarket matrix coordinate integer general", comments, a line with the numbers of rows, columns
and entries, then one line for each entry.
"""

from __future__ import annotations

import re
from functools import partial

from hsa2c.examples.lda.corpora.entries import LARGEST_NUMBER, MOST_ENTRIES, Header, most_documents, read_matrix
from hsa2c.examples.lda.corpora.lines import Lines, shown

_BANNER = "%%MatrixMarket matrix coordinate integer general"

#: Words of the first line, and what they may be; numbers that are real must be whole.
_WORDS = {
    "format": ("coordinate", "array"),
    "field": ("integer", "unsigned-integer", "real", "double", "pattern"),
    "symmetry": ("general", "symmetric"),
}


def _read_header(lines: Lines) -> Header:
    """The first line, and that of the sizes."""
    form, field, symmetry = _read_banner(lines)
    number, line = lines.filled(comment=b"%")
    names = ("rows", "columns", "entries")[: 3 if form == "coordinate" else 2]
    if not re.fullmatch(rb"\s*[0-9]{1,18}" + rb"\s+[0-9]{1,18}" * (len(names) - 1) + rb"\s*", line):
        raise lines.error(f"{shown(line)}: must be the numbers of {', '.join(names)}", number)
    sizes = [int(size) for size in line.split()]
    for name, size, most in zip(names, sizes, (most_documents(lines), LARGEST_NUMBER, MOST_ENTRIES), strict=False):
        least = 0 if name == "entries" else 1
        if not least <= size <= most:
            raise lines.error(f"{name} = {size}: must be from {least} to {most} in a file of this size", number)
    if symmetry == "symmetric" and sizes[0] != sizes[1]:
        raise lines.error(f"columns = {sizes[1]}: must be {sizes[0]}, the rows of a symmetric matrix", number)
    return Header(
        documents=sizes[0],
        words=sizes[1],
        entries=sizes[2] if form == "coordinate" else sizes[0] * sizes[1],
        line=number,
        words_line=number,
        fields=("count",)
        if form == "array"
        else ("row", "column")
        if field == "pattern"
        else ("row", "column", "count"),
        least=0,
        mirrored=symmetry == "symmetric",
    )


def _read_banner(lines: Lines) -> list[str]:
    """Format, field and symmetry."""
    number, line = lines.filled()
    first, *words = line.decode(errors="replace").lower().split() or [""]
    if first != "%%matrixmarket" or len(words) != 4 or words[0] != "matrix":
        raise lines.error(f"{shown(line)}: must be a line such as {_BANNER}", number)
    for word, (name, allowed) in zip(words[1:], _WORDS.items(), strict=True):
        if word not in allowed:
            raise lines.error(f"{name} = {shown(word.encode())}: must be one of {', '.join(allowed)}", number)
    form, field, symmetry = words[1:]
    if form == "array" and (field == "pattern" or symmetry != "general"):
        raise lines.error(f"{field}, {symmetry}: an array must be of numbers, and general", number)
    return [form, field, symmetry]


read_matrix_market = partial(read_matrix, read_header=_read_header)
"""See `read_matrix`."""
