"""Inputs that are almost right: a good one, changed in a few places as damage, people and other programs do."""

import gzip
import struct
import zlib

NUMBERS = (
    b"-1", b"0", b"1", b"2", b"1.0", b"0.5", b"+1", b"1e3", b"1e400", b"-1e400", b"nan", b"inf", b"0x10", b"1_0",
    b"2147483647", b"2147483648", b"-2147483649", b"4294967296", b"20000000000", b"9223372036854775807",
    b"9223372036854775808", b"18446744073709551616", b"9" * 30, b"9" * 5000, b"",
)  # fmt: skip

PIECES = (
    b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\n", b"\r", b"\r\n", b"\n\n", b" ", b"\t", b"\x0b", b"\x0c", b"\x1a", b"%",
    b"#", b":", b",", b"-", b".", b"\xe9", b"\xc3", b"\x80", "\u2028".encode(), b"{", b"}", b"[", b"]", b'"', b"null",
    b"NaN", b"\x1f\x8b",
)  # fmt: skip


def mutated(seeds, random):
    """One of the inputs, changed; with a `random.Random`, so that a number repeats it."""
    content = random.choice(seeds)
    for _ in range(random.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
        content = random.choice(_CHANGES)(content, random)
    return _packed(content, random) if random.random() < 0.1 else content


def _packed(content, random):
    packed = gzip.compress(content, compresslevel=1, mtime=0)
    return random.choice((_flip, _cut, lambda packed, _: packed))(packed, random)


def _place(content, random):
    return random.randrange(len(content) + 1)


def _span(content, random, longest=40):
    begin = _place(content, random)
    return begin, min(len(content), begin + random.randrange(longest))


def _flip(content, random):
    if not content:
        return content
    changed = bytearray(content)
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(content, random):
    return content[: _place(content, random)]


def _behead(content, random):
    return content[_place(content, random) :]


def _remove(content, random):
    begin, end = _span(content, random)
    return content[:begin] + content[end:]


def _insert(content, random):
    at = 0 if random.random() < 0.2 else _place(content, random)
    return content[:at] + random.choice(PIECES + NUMBERS) + content[at:]


def _number(content, random):
    """Another number where one is."""
    at = _place(content, random)
    digits = [place for place in range(at, min(len(content), at + 200)) if content[place : place + 1].isdigit()]
    if not digits:
        return content
    end = digits[0]
    while end < len(content) and content[end : end + 1].isdigit():
        end += 1
    return content[: digits[0]] + random.choice(NUMBERS) + content[end:]


def _integer(content, random):
    """Another number where a binary format may have one."""
    at = random.choice((0, _place(content, random)))
    form = random.choice(("<i", "<q", "<d"))
    value = random.choice((-1, 0, 1, 2**31 - 1, -(2**31)))
    if form == "<q":
        value = random.choice((value, 2**32, 2**62, 2**63 - 1, -(2**63)))
    elif form == "<d":
        value = random.choice((float(value), float("nan"), float("inf"), 1e308))
    return content[:at] + struct.pack(form, value) + content[at + struct.calcsize(form) :]


def _lines(content, random):
    """A line twice, away, elsewhere, or very long."""
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    at, to = random.randrange(len(lines)), random.randrange(len(lines))
    how = random.randrange(5)
    if how == 0:
        lines.insert(to, lines[at])
    elif how == 1:
        del lines[at]
    elif how == 2:
        lines[at], lines[to] = lines[to], lines[at]
    elif how == 3:
        lines[at] = lines[at].rstrip(b"\n")
    else:
        lines[at] = lines[at].rstrip(b"\n") * random.choice((2, 100, 20_000 // len(lines[at]) + 1)) + b"\n"
    return b"".join(lines)


def _bytes(content, random):
    """Two bytes in each other's place."""
    if not content:
        return content
    changed = bytearray(content)
    at, to = random.randrange(len(changed)), random.randrange(len(changed))
    changed[at], changed[to] = changed[to], changed[at]
    return bytes(changed)


def _noise(content, random):
    begin, end = _span(content, random, 20)
    return content[:begin] + random.randbytes(random.randrange(20)) + content[end:]


def _repeat(content, random):
    begin, end = _span(content, random)
    return content[:end] + content[begin:end] * random.randrange(1, 50) + content[end:]


def _endings(content, random):
    return content.replace(b"\n", random.choice((b"\r\n", b"\r", b"\n\n", b" ")))


def _checksum(content, _):
    """Four bytes at the end as a checksum of the rest, so that what is behind one is reached."""
    return content[:-4] + struct.pack("<I", zlib.crc32(content[:-4]))


_CHANGES = (
    *(_number, _number, _number, _insert, _insert, _lines, _lines),
    *(_flip, _cut, _behead, _remove, _integer, _bytes, _noise, _repeat, _endings, _checksum),
)
