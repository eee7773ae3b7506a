"""Which encoding a text has that is not UTF-8: told by a byte order mark, or by where its zero bytes lie."""

import codecs

# UTF-32's marks first: its little-endian one begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_MIN_BYTES = 16
_MANY = 0.4  # of the bytes at one place of each character; ASCII in UTF-16 has zeros at all of them
_FEW = 0.02


def wide_encoding(content: bytes) -> str:
    """UTF-16, UTF-16LE, UTF-16BE, UTF-32, UTF-32LE or UTF-32BE, as iconv names them; empty for what is none of them.

    content: the first bytes of a text. UTF-16 without a mark is legal UTF-8 for a program: a zero byte is a character.
    """
    for mark, name in _MARKS:
        if content.startswith(mark):
            return name
    if len(content) < _MIN_BYTES:
        return ""
    zeros = [content[place::4].count(0) / len(content[place::4]) for place in range(4)]
    few, many = [share <= _FEW for share in zeros], [share >= _MANY for share in zeros]
    if few[0] and many[1] and many[2] and many[3]:
        return "UTF-32LE"
    if few[3] and many[0] and many[1] and many[2]:
        return "UTF-32BE"
    if few[0] and few[2] and many[1] and many[3]:
        return "UTF-16LE"
    if many[0] and many[2] and few[1] and few[3]:
        return "UTF-16BE"
    return ""


def way_to_utf8(content: bytes) -> str:
    """What to do about bytes that are not UTF-8; content: those and some before them."""
    if wide := wide_encoding(content):
        return f"it is {wide}; convert the file first: `iconv -f {wide} -t UTF-8`"
    return "convert the file first, for instance with `iconv -f latin1 -t utf-8`"
