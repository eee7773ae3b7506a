"""Which text is held out: decided piece by piece as the text streams by, the same every time."""

import hashlib
from collections.abc import Iterable, Iterator

from robustbert.data.errors import DataError
from robustbert.data.readers import MAX_PIECE_CHARS, Piece, TextSource

_MIN_PIECE_CHARS = 2048
_PIECES_PER_SIDE = 16  # the smaller side of the split should come from at least about this many pieces


def piece_chars(source: TextSource, fraction: float) -> int:
    """How large the pieces of a source may be, in characters, so that `fraction` of it can be held out.

    A document is held out whole where that can meet the fraction. One that is long beside the held-out share (a book of
    a few, a file without document breaks) is cut into pieces of this size at the ends of paragraphs.
    """
    if fraction == 0:
        return MAX_PIECE_CHARS
    smaller_side = source.num_bytes * min(fraction, 1 - fraction)
    return int(min(MAX_PIECE_CHARS, max(_MIN_PIECE_CHARS, smaller_side / _PIECES_PER_SIDE)))


def hold_out(pieces: Iterable[Piece], fraction: float) -> Iterator[tuple[Piece, bool]]:
    """Mark each piece as held out (True) or not, so that about `fraction` of the characters are.

    The rule: with u in [0, 1) a hash of the piece's number and text, a piece of n characters is held out when what is
    held out already, plus u n, is at most `fraction` of all characters up to and with it. So the choice is random, and
    the share stays within about one piece of the fraction however unequal the pieces are. The last piece goes to the
    side that has none, so neither stays empty. A piece whose document begins on its side is marked so.
    DataError where there is a single piece and fraction is above 0.
    """
    if fraction == 0:
        for piece in pieces:
            yield piece, False
        return
    num_chars, num_held_out, last_side = 0, 0, None
    number = -1
    for number, (piece, is_last) in enumerate(_with_is_last(pieces)):
        size = len(piece.text)
        num_chars += size
        held_out = num_held_out + _uniform(number, piece.text) * size <= fraction * num_chars
        if is_last and num_held_out == 0:
            held_out = True
        elif is_last and num_held_out + size == num_chars:
            held_out = False
        num_held_out += size * held_out
        yield Piece(piece.text, piece.starts_document or held_out != last_side), held_out
        last_side = held_out
    if number == 0:
        raise DataError("the text is too short to hold some of it out: it cannot be cut in two; name other text in data.valid")


def _with_is_last(pieces: Iterable[Piece]) -> Iterator[tuple[Piece, bool]]:
    before = None
    for piece in pieces:
        if before is not None:
            yield before, False
        before = piece
    if before is not None:
        yield before, True


def _uniform(number: int, text: str) -> float:
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=number.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little") / 2.0**64
