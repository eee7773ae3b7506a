"""Which text is held out: decided piece by piece as the text streams by, the same every time."""

import hashlib
from collections.abc import Iterable, Iterator

from robustbert.data.errors import DataError
from robustbert.data.text.readers import TextSource
from robustbert.data.text.records import MAX_PIECE_CHARS, Piece

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


class HoldOut:
    """Chooses piece by piece, so that about `fraction` of the characters are held out.

    The rule: with u in [0, 1) a hash of the piece's number and text, a piece of n characters is held out when what is
    held out already, plus u n, is at most `fraction` of all characters up to and with it. So the choice is random, and
    the share stays within about one piece of the fraction however unequal the pieces are. The last piece goes to the
    side that has none, so neither stays empty. state: what state() said, to go on from there.
    """

    def __init__(self, fraction: float, state: list[int] | None = None):
        self._fraction = fraction
        self.num_pieces, self._num_chars, self._num_held_out = state or (0, 0, 0)

    def choose(self, num_chars: int, text_digest: bytes, is_last: bool) -> bool:
        """Whether the next piece is held out."""
        self._num_chars += num_chars
        limit = self._fraction * self._num_chars
        held_out = self._num_held_out + _uniform(self.num_pieces, text_digest) * num_chars <= limit
        if is_last and self._num_held_out == 0:
            held_out = True
        elif is_last and self._num_held_out + num_chars == self._num_chars:
            held_out = False
        self.num_pieces += 1
        self._num_held_out += num_chars * held_out
        return held_out

    def state(self) -> list[int]:
        """All that the choice of the next piece depends on, beside the piece."""
        return [self.num_pieces, self._num_chars, self._num_held_out]

    def check_end(self) -> None:
        """DataError where there was a single piece."""
        if self.num_pieces == 1:
            raise DataError("the text is too short to hold some of it out: it cannot be cut in two; name other text in data.valid")


def hold_out(pieces: Iterable[Piece], fraction: float) -> Iterator[tuple[Piece, bool]]:
    """Mark each piece as held out (True) or not, by HoldOut. A piece whose document begins on its side is marked so.

    DataError where there is a single piece and fraction is above 0.
    """
    if fraction == 0:
        for piece in pieces:
            yield piece, False
        return
    choice, last_side = HoldOut(fraction), None
    for piece, is_last in with_is_last(pieces):
        held_out = choice.choose(len(piece.text), digest_of(piece.text), is_last)
        yield Piece(piece.text, piece.starts_document or held_out != last_side), held_out
        last_side = held_out
    choice.check_end()


def digest_of(text: str) -> bytes:
    """128 bits that tell texts apart."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def with_is_last(items: Iterable) -> Iterator[tuple]:
    """Each item (none of them None) with whether it is the last."""
    before = None
    for item in items:
        if before is not None:
            yield before, False
        before = item
    if before is not None:
        yield before, True


def _uniform(number: int, text_digest: bytes) -> float:
    digest = hashlib.blake2b(text_digest, digest_size=8, key=number.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little") / 2.0**64
